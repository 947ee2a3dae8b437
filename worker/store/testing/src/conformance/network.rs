//! A whole network, put into a store as servers would: for tests that move one.

use futures_util::{StreamExt, TryStreamExt, stream};
use limpet_shared::{
    UnixMicros,
    admin::{RevokedServer, Role, TokenInfo},
};
use limpet_worker_core::model::{
    CurrentSession, Device, DeviceSeen, DeviceState, GatewaySeen, NetworkSettings, SessionKey,
};

use super::samples::{House, NOON, Samples};
use limpet_store::{
    IntegrationId, Result, Store,
    moving::{DeviceRecord, NETWORK_BEGAN, Record},
};

/// Devices that are made at one moment.
const AT_ONCE: usize = 256;
/// Devices whose samples are made by one maker.
const OF_ONE_MAKER: u32 = 1_000;

impl Samples {
    /// Settings, two tenants, people, gateways, and devices of every kind: joined, activated by hand, never heard of, with
    /// queues, with events that wait.
    pub async fn network(&self, store: &dyn Store, devices: u32) -> Result<()> {
        self.people(store).await?;
        let houses = [House::build(store, self).await?, House::build(store, self).await?];
        for house in &houses {
            for _ in 0..3 {
                let gateway = self.gateway(house.tenant.id);
                store.create_gateway(&gateway).await?;
                store.update_gateway(&gateway).await?;
                let seen =
                    GatewaySeen { last_seen_at: Some(NOON), address: Some("192.0.2.7:1700".into()), location: None };
                store.note_gateway(gateway.eui, seen).await?;
            }
        }
        let makers: Vec<Samples> = (0..=devices / OF_ONE_MAKER).map(|_| Samples::new()).collect();
        let (makers, houses) = (&makers, &houses);
        let all = (0..devices).map(|n| async move {
            let new = &makers[(n / OF_ONE_MAKER) as usize];
            new.one_of_the_devices(store, &houses[(n % 2) as usize], n).await
        });
        stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn people(&self, store: &dyn Store) -> Result<()> {
        store.init_setting("regions", b"eu868").await?;
        store.init_setting("ring_key", &self.aes_key().0).await?;
        store.init_setting(NETWORK_BEGAN, &1_790_000_000_u64.to_be_bytes()).await?;
        store.replace_network_settings(&NetworkSettings::default(), &self.network_settings()).await?;
        store.create_user(&self.user()).await?;
        store.create_user(&self.user()).await?;
        let tenant = self.tenant();
        store.create_tenant(&tenant).await?;
        store.create_api_key(&self.api_key(None)).await?;
        store.create_api_key(&self.api_key(Some(tenant.id))).await?;
        let (name, key) = (format!("server {}", self.word()), self.uuid().to_string());
        store.revoke_server(&RevokedServer { name, role: Role::Worker, key, at: NOON }).await?;
        let token = TokenInfo {
            id: format!("{:016x}", self.number()),
            created_at: NOON,
            expires_at: UnixMicros(u64::MAX / 4),
            uses: 3,
            used: [("edge".to_owned(), 2)].into(),
            ..TokenInfo::default()
        };
        store.put_token(&token).await
    }

    async fn one_of_the_devices(&self, store: &dyn Store, house: &House, n: u32) -> Result<()> {
        let device = self.device(&house.application, &house.profile);
        store.create_device(&device).await?;
        match n % 4 {
            0 => self.joined(store, &device).await?,
            1 => self.personalized(store, &device).await?,
            2 => {
                self.joined(store, &device).await?;
                for _ in 0..3 {
                    store.enqueue(self.item(device.dev_eui)).await?;
                }
                store.delete_queue_item(device.dev_eui, 1).await?;
                let integration = IntegrationId(house.application.id);
                store.put_pending(self.pending(integration, device.dev_eui, 9)).await?;
                store.put_pending(self.pending(integration, device.dev_eui, 10)).await?;
            }
            // Provisioned, and not heard of yet.
            _ => return Ok(()),
        }
        let seen = DeviceSeen { last_seen_at: Some(NOON), data_rate: Some(5), battery: Some(254), margin: Some(-3) };
        // As it is written down in the end; a note on its way may be lost with the process.
        store.restore(&[Record::Device(Box::new(DeviceRecord { device, seen, queue_last: 0 }))]).await
    }

    async fn joined(&self, store: &dyn Store, device: &Device) -> Result<()> {
        let mut join = self.join(device.dev_eui, (self.number() % 65_536) as u16);
        join.session.rev = 1;
        let key = join.session.key;
        let current = CurrentSession { key, since: NOON, dev_nonce: Some(join.dev_nonce) };
        let next = DeviceState {
            rev: 1,
            next_join_nonce: 2,
            highest_dev_nonce: Some(join.dev_nonce),
            current: Some(current),
            ..DeviceState::new(device.dev_eui)
        };
        store.commit_join(&next, Some(&join)).await?;
        store.create_session(&join.session).await?;
        let mut session = join.session;
        session.rev = 2;
        store.commit_session(&session).await?;
        store.mark_out(&key, session.slot.number, true).await?;
        store.mark_sent(&key, session.next_fcnt_down - 1).await
    }

    async fn personalized(&self, store: &dyn Store, device: &Device) -> Result<()> {
        let key = SessionKey { dev_eui: device.dev_eui, ..self.session_key() };
        let current = Some(CurrentSession { key, since: NOON, dev_nonce: None });
        store.commit_join(&DeviceState { rev: 1, current, ..DeviceState::new(device.dev_eui) }, None).await?;
        let mut session = self.session(key);
        session.joined = false;
        store.create_session(&session).await.map(drop)
    }
}
