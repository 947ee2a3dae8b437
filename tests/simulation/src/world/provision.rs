//! The network as it was provisioned, and what is asked of its API from outside.

use std::time::Duration;

use limpet_shared::{UnixMicros, region::Region};
use limpet_store::{FrameStore, IntegrationId, Store};
use limpet_worker_core::{
    model::*,
    session::{Personalization, personalized},
};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::{Result, World};
use crate::{
    field::{app_key, dev_eui, gateway_eui, keys},
    machine::BEGIN,
    plan::{APPLICATIONS, DevicePlan, Plan},
};

const TENANT: Uuid = Uuid::from_u128(1);

pub fn application_id(index: usize) -> Uuid {
    Uuid::from_u128(10 + index as u128)
}

/// For what is done from outside.
pub fn apart() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_time().start_paused(true).build()
}

pub fn network(store: &dyn Store, plan: &Plan) -> Result<()> {
    apart()?.block_on(async {
        // Somebody has set it up: hashing a password takes longer than all the rest of a start.
        store.init_setting("first_start_done", b"yes").await?;
        store.create_tenant(&Tenant { id: TENANT, name: "t".into(), ..Tenant::default() }).await?;
        for index in 0..APPLICATIONS {
            let http = HttpIntegration { json: true, url: "http://[::1]:1/".into(), ..HttpIntegration::default() };
            let id = application_id(index);
            let application = Application {
                id,
                tenant_id: TENANT,
                name: format!("a{index}"),
                http: Some(http),
                ..Application::default()
            };
            store.create_application(&application).await?;
        }
        for (id, mac_version) in [(false, MacVersion::V1_0_3), (true, MacVersion::V1_0_4)] {
            store.create_device_profile(&profile(id, mac_version)).await?;
        }
        for (index, device) in plan.devices.iter().enumerate() {
            create_device(store, index, device).await?;
        }
        let from_start = plan.gateways.iter().enumerate().filter(|(_, gateway)| gateway.added_at.is_none());
        for (index, _) in from_start {
            create_gateway(store, index).await?;
        }
        Ok(())
    })
}

fn profile(counts_nonces: bool, mac_version: MacVersion) -> DeviceProfile {
    DeviceProfile {
        id: Uuid::from_u128(20 + u128::from(counts_nonces)),
        tenant_id: TENANT,
        name: format!("p{counts_nonces}"),
        region: "EU868".into(),
        mac_version,
        supports_otaa: true,
        ..Default::default()
    }
}

async fn create_device(store: &dyn Store, index: usize, plan: &DevicePlan) -> Result<()> {
    let profile = profile(plan.counts_nonces, MacVersion::V1_0_3);
    let device = Device {
        dev_eui: dev_eui(index),
        application_id: application_id(plan.application),
        device_profile_id: profile.id,
        name: format!("device {index}"),
        app_key: Some(app_key(index)),
        skip_fcnt_check: !plan.joins && plan.starts_again_at.is_some(),
        ..Device::default()
    };
    store.create_device(&device).await?;
    if plan.joins {
        return Ok(());
    }
    let (dev_addr, keys) = keys(index);
    let abp = Personalization {
        dev_eui: dev_eui(index),
        dev_addr,
        keys: SessionKeys { nwk_s_key: keys.nwk_s_key, app_s_key: keys.app_s_key },
        fcnt_up: 0,
        fcnt_down: 0,
        queue_done: 0,
    };
    let region = Region::by_name("eu868").ok_or("a region")?;
    let mut session = personalized(&abp, &profile, region, 1, BEGIN - Duration::from_secs(60));
    session.mac.channels_set = true;
    store.create_session(&session).await?;
    let current = Some(CurrentSession { key: session.key, since: session.since, dev_nonce: None });
    store.commit_join(&DeviceState { rev: 1, current, ..DeviceState::new(dev_eui(index)) }, None).await?;
    Ok(())
}

async fn create_gateway(store: &dyn Store, index: usize) -> Result<()> {
    let (eui, name) = (gateway_eui(index), format!("gateway {index}"));
    store.create_gateway(&Gateway { eui, tenant_id: TENANT, name, ..Gateway::default() }).await?;
    Ok(())
}

/// What an application wants of a device.
pub fn queue_item(number: usize, device: usize) -> QueueItem {
    QueueItem {
        dev_eui: dev_eui(device),
        id: format!("item-{number}"),
        fport: 5,
        confirmed: number.is_multiple_of(3),
        data: format!("{}{number}", crate::field::ITEM).into_bytes(),
        ..QueueItem::default()
    }
}

impl World {
    /// Whether an event of this device waits for its endpoint.
    pub(super) async fn waits(&self, device: usize) -> limpet_store::Result<bool> {
        let application = self.plan.devices.get(device).map(|device| application_id(device.application));
        let (of, ever) = (IntegrationId(application.unwrap_or_default()), UnixMicros(i64::MAX.unsigned_abs()));
        self.store.has_pending(of, dev_eui(device), ever, i64::MAX.unsigned_abs()).await
    }

    /// What an application asks the API for.
    pub(super) fn enqueue(&mut self, number: usize, device: usize) -> Result<()> {
        apart()?.block_on(self.store.enqueue(queue_item(number, device)))?;
        self.items.insert(number);
        Ok(())
    }

    /// What an operator asks it for.
    pub(super) fn add_gateways(&self, now: Duration) -> Result<()> {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now && now < at + crate::machine::TICK);
        for (index, _) in self.plan.gateways.iter().enumerate().filter(|(_, gateway)| due(gateway.added_at)) {
            self.trace.say(now, format!("gateway {index} is added"));
            apart()?.block_on(create_gateway(&*self.store, index))?;
        }
        Ok(())
    }
}
