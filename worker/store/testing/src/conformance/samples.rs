//! Things to store, with every field in use, under identities that nothing else has.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use limpet_shared::{AesKey, ContextTime, DevAddr, Eui64, RadioTime, StationTime, UnixMicros};
use limpet_worker_core::model::*;
use uuid::Uuid;

use limpet_store::{IntegrationId, PendingEvent, Result, Store};

/// A time that no expiry of another property touches.
pub(super) const NOON: UnixMicros = UnixMicros(1_790_000_000_000_000);

/// Makes samples; each value it gives is new.
#[derive(Clone)]
pub struct Samples {
    base: u64,
    next: Arc<AtomicU64>,
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

impl Samples {
    pub fn new() -> Self {
        // High enough for 2^20 numbers above it, and with the top bit in play.
        let base = Uuid::new_v4().as_u64_pair().0 & !0xf_ffff;
        Self { base, next: Arc::new(AtomicU64::new(0)) }
    }

    /// A number that was not given before; numbers of one maker count up.
    pub fn number(&self) -> u64 {
        self.base | self.next.fetch_add(1, Ordering::Relaxed)
    }
    pub fn eui(&self) -> Eui64 {
        Eui64(self.number())
    }
    pub fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
    pub fn addr(&self) -> DevAddr {
        DevAddr(Uuid::new_v4().as_fields().0)
    }
    pub fn dedup_key(&self) -> DedupKey {
        DedupKey(u128::from(self.number()) << 64 | u128::MAX >> 64)
    }
    /// A word that no other sample holds, for searches: letters alone, so that no number is found in it.
    pub fn word(&self) -> String {
        let digits = format!("{:x}", self.number());
        digits.chars().filter_map(|digit| char::from_u32('a' as u32 + digit.to_digit(16)?)).chain(['x']).collect()
    }

    /// Of each kind in turn.
    pub fn radio_time(&self) -> RadioTime {
        let delay = 5_000_000;
        match self.number() % 3 {
            0 => RadioTime::Counter(u32::MAX),
            1 => RadioTime::Station(StationTime { xtime: i64::MIN + 1, rctx: i64::MAX, delay }),
            _ => RadioTime::Context(ContextTime { context: vec![0, 128, 255], delay }),
        }
    }

    pub fn reception(&self, key: DedupKey) -> Reception {
        Reception {
            key,
            gateway: self.eui(),
            context: u64::MAX - self.number(),
            received_at: NOON,
            balancer: u64::MAX,
            region: "eu868".into(),
            frequency: 868_100_000,
            data_rate: 5,
            phy: (0..=255).collect(),
            rx: RxInfo {
                radio: Some(self.radio_time()),
                time: Some("2026-07-01T12:00:00.123456Z".into()),
                tmms: Some(1_460_000_000_000),
                rssi: -117,
                snr: -7.25,
                channel: 7,
                rf_chain: 1,
                board: Some(2),
                antenna: Some(3),
                code_rate: "4/5".into(),
                no_crc: true,
                fine_time: Some(999_999_999),
                antennas: vec![AntennaSignal { antenna: 1, channel: 9, rssi: -90, snr: 1.5, fine_time: Some(1) }],
                location: Some(Location { latitude: 52.1, longitude: -4.3, altitude: 7.0, source: 1, accuracy: 0.0 }),
                metadata: tags("serial", "Ä7"),
            },
        }
    }

    pub fn event(&self, dev_eui: Eui64) -> Event {
        let reception = self.reception(self.dedup_key());
        Event {
            id: self.uuid(),
            at: NOON,
            device: DeviceInfo {
                dev_eui,
                device_name: "Zähler \"7\"".into(),
                tags: tags("floor", "3"),
                ..DeviceInfo::default()
            },
            kind: EventKind::Up(UpEvent {
                dev_addr: self.addr(),
                adr: true,
                data_rate: 5,
                fcnt: u32::MAX,
                fport: None,
                confirmed: true,
                data: vec![0, 1, 254, 255],
                region: "eu868".into(),
                frequency: 868_300_000,
                receptions: vec![EventReception { gateway: reception.gateway, received_at: NOON, rx: reception.rx }],
            }),
        }
    }

    pub fn session_key(&self) -> SessionKey {
        SessionKey { dev_addr: self.addr(), dev_eui: self.eui(), id: SessionId(self.number()) }
    }

    pub fn downlink(&self) -> PlannedDownlink {
        PlannedDownlink {
            key: u64::MAX - self.number(),
            gateway: self.eui(),
            fcnt_down: 70_000,
            phy: vec![0x60, 0, 255],
            windows: vec![PlannedWindow {
                number: 1,
                at: NOON,
                radio: self.radio_time(),
                frequency: 869_525_000,
                data_rate: 0,
                power: -1,
                board: Some(1),
                antenna: Some(1),
            }],
            balancer: u64::MAX - 1,
            item: Some(SentItem { seq: 3, id: self.uuid().to_string() }),
            others: vec![PlannedGateway { gateway: self.eui(), balancer: 7, windows: Vec::new() }],
        }
    }

    /// A session at revision 1.
    pub fn session(&self, key: SessionKey) -> Session {
        Session {
            key,
            rev: 1,
            since: NOON,
            replaced_at: Some(70_000),
            joined: true,
            region: "us915_1".into(),
            keys: SessionKeys { nwk_s_key: self.aes_key(), app_s_key: self.aes_key() },
            seen: Seen {
                next: 70_001,
                bits: [u64::MAX, 0, 0, 0, 0, 0, 0, 1],
                high_at: NOON,
                high_mic: Some([1, 2, 3, 4]),
                restarted_after: NOON,
            },
            resets: 2,
            next_fcnt_down: 70_002,
            mac: self.mac(),
            slot: self.slot(key.dev_eui),
            answer: Answer::decided(9, self.downlink()),
            item: Some(ItemInFlight { seq: 3, first_fcnt_down: 70_000, offers: 2, refused: Some(70_001), refusals: 1 }),
            queue_done: 2,
            awaiting_ack: Some(AwaitingAck { queue_item: self.uuid().to_string(), fcnt_down: 69_999 }),
            over: None,
        }
    }

    fn slot(&self, dev_eui: Eui64) -> Slot {
        let mut slot = Slot::empty();
        (slot.number, slot.kind, slot.mic) = (9, SlotKind::Up(70_000), Some([1, 2, 3, 4]));
        (slot.received_at, slot.accepted_at, slot.worker) = (NOON, NOON, "worker-a".into());
        (slot.events, slot.behind_pending) = (vec![self.event(dev_eui)], true);
        slot
    }

    /// An answer that is not decided.
    pub fn open_answer(&self, slot: u64) -> Answer {
        let windows = self.downlink().windows;
        Answer::Open(Box::new(OpenAnswer {
            slot,
            opened_at: NOON,
            ack: true,
            adr: true,
            asked: true,
            fopts: vec![2, 10, 1],
            requests: vec![8, 5],
            gateways: vec![PlannedGateway { gateway: self.eui(), balancer: u64::MAX, windows }],
            region: "us915_1".into(),
        }))
    }

    fn mac(&self) -> MacState {
        MacState {
            rx1_delay: 15,
            rx1_dr_offset: 3,
            rx2_data_rate: 8,
            rx2_frequency: 923_300_000,
            data_rate: 4,
            channels_set: true,
            channels_tried: 2,
            battery: Some(255),
            margin: Some(-32),
            extra_channels: Some(vec![867_100_000, 867_300_000]),
            tx_power: 7,
            status_asked_at: NOON,
            adr: AdrState {
                nb_trans: 3,
                max_data_rate: Some(4),
                min_power: 1,
                max_power: Some(6),
                ignored: 2,
                heard: vec![HeardUplink { missed: 255, snr: -80 }; 20],
            },
            requests: vec![Request { commands: vec![8, 5], tries: 3, asked_at: 70_000, state: RequestState::Refused }],
            dwell: Some(DwellTime { uplink: true, downlink: false }),
        }
    }

    pub fn aes_key(&self) -> AesKey {
        AesKey(*self.uuid().as_bytes())
    }

    pub fn join(&self, dev_eui: Eui64, dev_nonce: u16) -> JoinRow {
        let key = SessionKey { dev_eui, ..self.session_key() };
        JoinRow {
            dev_eui,
            dev_nonce,
            session: self.session(key),
            accept: self.downlink(),
            retired: None,
            forgotten: Vec::new(),
        }
    }

    pub fn item(&self, dev_eui: Eui64) -> QueueItem {
        QueueItem {
            dev_eui,
            seq: 0,
            id: self.uuid().to_string(),
            created_at: NOON,
            confirmed: true,
            fport: 223,
            data: vec![255, 0, 7],
            expires_at: Some(UnixMicros(1)),
        }
    }

    pub fn integration(&self) -> IntegrationId {
        IntegrationId(self.uuid())
    }

    pub fn pending(&self, integration: IntegrationId, device: Eui64, slot: u64) -> PendingEvent {
        PendingEvent { integration, device, session_since: NOON, slot, part: 0, event: self.event(device), refusals: 0 }
    }

    pub fn tenant(&self) -> Tenant {
        Tenant {
            id: self.uuid(),
            created_at: NOON,
            updated_at: NOON,
            name: format!("tenant {}", self.word()),
            description: "what it is for".into(),
            can_have_gateways: true,
            max_gateway_count: 1_000_000,
            max_device_count: 1_000_000,
            tags: tags("country", "PT"),
        }
    }

    pub fn user(&self) -> User {
        User {
            id: self.uuid(),
            created_at: NOON,
            updated_at: NOON,
            email: format!("{}@example.org", self.word()),
            is_admin: true,
            is_active: true,
            note: "night shift".into(),
            password_hash: "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$aGFzaA".into(),
        }
    }

    pub fn api_key(&self, tenant: Option<Uuid>) -> ApiKey {
        let name = format!("key {}", self.word());
        let (id, is_admin) = (self.uuid(), tenant.is_none());
        ApiKey { id, created_at: NOON, name, is_admin, tenant_id: tenant, read_only: false }
    }

    pub fn application(&self, tenant: Uuid) -> Application {
        Application {
            id: self.uuid(),
            created_at: NOON,
            updated_at: NOON,
            tenant_id: tenant,
            name: format!("application {}", self.word()),
            description: String::new(),
            tags: tags("kind", "meters"),
            http: Some(HttpIntegration {
                headers: tags("Authorization", "Bearer x"),
                json: true,
                url: "http://127.0.0.1:9/up".into(),
            }),
        }
    }

    pub fn profile(&self, tenant: Uuid) -> DeviceProfile {
        DeviceProfile {
            id: self.uuid(),
            tenant_id: tenant,
            name: format!("profile {}", self.word()),
            region: "EU868".into(),
            region_config_id: Some("eu868".into()),
            mac_version: MacVersion::V1_0_4,
            reg_params_revision: "RP002_1_0_3".into(),
            supports_otaa: true,
            uplink_interval_secs: 3600,
            codec: PayloadCodec { runtime: CodecRuntime::Js, script: "let \"x\" = 'ä\n';".into() },
            ..DeviceProfile::default()
        }
    }

    pub fn gateway(&self, tenant: Uuid) -> Gateway {
        Gateway {
            eui: self.eui(),
            created_at: NOON,
            updated_at: NOON,
            tenant_id: tenant,
            name: format!("gateway {}", self.word()),
            description: "on the mast".into(),
            location: Some(Location { latitude: 38.7, longitude: -9.1, altitude: 12.5, source: 1, accuracy: 3.0 }),
            stats_interval_secs: 30,
            tags: tags("region", "eu868"),
            metadata: tags("serial", "1234"),
            downlink_priority: 10,
        }
    }

    pub fn device(&self, application: &Application, profile: &DeviceProfile) -> Device {
        Device {
            dev_eui: self.eui(),
            created_at: NOON,
            updated_at: NOON,
            application_id: application.id,
            device_profile_id: profile.id,
            name: format!("device {}", self.word()),
            description: "third floor".into(),
            join_eui: self.eui(),
            skip_fcnt_check: true,
            is_disabled: false,
            variables: tags("secret", "x"),
            tags: tags("floor", "3"),
            app_key: Some(self.aes_key()),
        }
    }
}

fn tags(name: &str, value: &str) -> Tags {
    Tags::from([(name.into(), value.into())])
}

/// A tenant with an application and a profile.
pub(super) struct House {
    pub tenant: Tenant,
    pub application: Application,
    pub profile: DeviceProfile,
}

impl House {
    pub async fn build(store: &dyn Store, new: &Samples) -> Result<Self> {
        let tenant = new.tenant();
        let (application, profile) = (new.application(tenant.id), new.profile(tenant.id));
        store.create_tenant(&tenant).await?;
        store.create_application(&application).await?;
        store.create_device_profile(&profile).await?;
        Ok(Self { tenant, application, profile })
    }

    pub async fn device(&self, store: &dyn Store, new: &Samples) -> Result<Device> {
        let device = new.device(&self.application, &self.profile);
        store.create_device(&device).await?;
        Ok(device)
    }
}
