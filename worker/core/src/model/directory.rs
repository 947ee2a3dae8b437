//! What people provision: tenants, users, API keys, applications, device profiles, devices, gateways; and the queue.

use alloc::{string::String, vec::Vec};

use limpet_shared::{AesKey, DevAddr, Eui64, UnixMicros};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Tags;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: Uuid,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    pub name: String,
    pub description: String,
    pub can_have_gateways: bool,
    /// 0: no limit.
    pub max_gateway_count: u32,
    /// 0: no limit.
    pub max_device_count: u32,
    pub tags: Tags,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub id: Uuid,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    /// What one logs in with: `admin`, or an e-mail address.
    pub email: String,
    pub is_admin: bool,
    pub is_active: bool,
    pub note: String,
    /// argon2id, PHC string.
    pub password_hash: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: Uuid,
    pub created_at: UnixMicros,
    pub name: String,
    pub is_admin: bool,
    /// Of a key that may act for one tenant only.
    pub tenant_id: Option<Uuid>,
    /// It may look, and change nothing.
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Application {
    pub id: Uuid,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    pub tenant_id: Uuid,
    pub name: String,
    pub description: String,
    pub tags: Tags,
    pub http: Option<HttpIntegration>,
}

/// An application's events by HTTP POST.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpIntegration {
    pub headers: Tags,
    /// JSON if true, else protobuf.
    pub json: bool,
    /// One URL, or several with commas between them: each gets every event.
    pub url: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceProfile {
    pub id: Uuid,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    pub tenant_id: Uuid,
    pub name: String,
    pub description: String,
    /// Name of the region's band, such as `EU868`.
    pub region: String,
    /// Region configuration that its devices must be in, such as `us915_1`; none: whichever fits the frame.
    pub region_config_id: Option<String>,
    pub mac_version: MacVersion,
    /// Name of the regional parameters' revision, as ChirpStack writes it (`A`, `B`, `RP002_1_0_3`).
    pub reg_params_revision: String,
    pub supports_otaa: bool,
    /// Seconds between two uplinks, as far as is known; after one and a half of it a device counts as inactive. 0: not known.
    pub uplink_interval_secs: u32,
    pub flush_queue_on_activate: bool,
    /// Seconds: what its devices are told, if it is more than the region's.
    #[serde(default, skip_serializing_if = "is_regions_own")]
    pub rx1_delay: u8,
    /// How often a day its devices are asked for their status; 0: never.
    #[serde(default, skip_serializing_if = "is_never_asked")]
    pub device_status_req_interval: u32,
    /// ABP: seconds.
    pub abp_rx1_delay: u8,
    pub abp_rx1_dr_offset: u8,
    pub abp_rx2_dr: u8,
    /// Hz; 0: the region's.
    pub abp_rx2_freq: u32,
    /// How payloads are read and written.
    #[serde(default, skip_serializing_if = "PayloadCodec::is_none")]
    pub codec: PayloadCodec,
    pub tags: Tags,
}

/// How a profile's payloads are read and written. The script is kept whatever runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadCodec {
    pub runtime: CodecRuntime,
    pub script: String,
}

impl PayloadCodec {
    fn is_none(&self) -> bool {
        self.runtime == CodecRuntime::None && self.script.is_empty()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodecRuntime {
    #[default]
    None,
    CayenneLpp,
    /// JavaScript.
    Js,
}

fn is_regions_own(rx1_delay: &u8) -> bool {
    *rx1_delay == 0
}

fn is_never_asked(times_a_day: &u32) -> bool {
    *times_a_day == 0
}

impl DeviceProfile {
    /// Whether a device that was heard last then is active: until one and a half uplink intervals have passed without an
    /// uplink, as in ChirpStack. `None` if it was never heard, or nobody has said how often it is to be.
    pub fn is_active(&self, last_seen: Option<UnixMicros>, now: UnixMicros) -> Option<bool> {
        let interval = u64::from(self.uplink_interval_secs);
        last_seen.filter(|_| interval > 0).map(|at| now.since(at).as_secs() * 2 <= interval * 3)
    }
}

/// LoRaWAN versions that a device may speak here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MacVersion {
    V1_0_0,
    V1_0_1,
    V1_0_2,
    #[default]
    V1_0_3,
    /// DevNonce counts up.
    V1_0_4,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub dev_eui: Eui64,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    pub application_id: Uuid,
    pub device_profile_id: Uuid,
    pub name: String,
    pub description: String,
    pub join_eui: Eui64,
    /// A counter below the highest is a restarted device, not a replay.
    pub skip_fcnt_check: bool,
    pub is_disabled: bool,
    pub variables: Tags,
    pub tags: Tags,
    /// For OTAA: AppKey of LoRaWAN 1.0.x.
    pub app_key: Option<AesKey>,
}

/// What the worker learns about a device while it runs; not part of the device as provisioned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceSeen {
    pub last_seen_at: Option<UnixMicros>,
    pub data_rate: Option<u8>,
    pub battery: Option<u8>,
    pub margin: Option<i8>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    pub eui: Eui64,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    pub tenant_id: Uuid,
    pub name: String,
    pub description: String,
    /// Degrees, metres above sea level.
    pub location: Option<Location>,
    /// Seconds between two stats; after twice that it counts as offline.
    pub stats_interval_secs: u32,
    /// The tag `region` ties its frames to one region.
    pub tags: Tags,
    pub metadata: Tags,
    /// As clients set it; all gateways have the same.
    #[serde(default)]
    pub downlink_priority: u32,
}

impl Gateway {
    /// Seconds between two stats of a gateway of which nothing else is said: the default of ChirpStack's clients.
    pub const STATS_INTERVAL: u32 = 30;

    /// Where it is: by its own last `stat`, which as in ChirpStack replaces what was provisioned, or else where it was put by
    /// hand.
    pub fn place(&self, seen: &GatewaySeen) -> Option<Location> {
        let place = |location: Option<Location>| location.filter(Location::is_place);
        place(seen.location).or(place(self.location))
    }

    /// Whether it is online: until two of its stats are missing. `None` if it was never heard. The one rule for everybody
    /// who shows gateways.
    pub fn is_online(&self, last_seen: Option<UnixMicros>, now: UnixMicros) -> Option<bool> {
        let interval = if self.stats_interval_secs == 0 { Self::STATS_INTERVAL } else { self.stats_interval_secs };
        last_seen.map(|at| now.since(at).as_secs() <= 2 * u64::from(interval))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub latitude: f64,
    pub longitude: f64,
    pub altitude: f64,
    /// ChirpStack's LocationSource.
    pub source: i32,
    pub accuracy: f32,
}

impl Location {
    /// A receiver without a fix, and a form that was not filled in, say 0/0: no place.
    pub fn is_place(&self) -> bool {
        let on_earth = (-90.0..=90.0).contains(&self.latitude) && (-180.0..=180.0).contains(&self.longitude);
        on_earth && (self.latitude != 0.0 || self.longitude != 0.0) && self.altitude.is_finite()
    }
}

/// When and where a gateway was heard last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewaySeen {
    pub last_seen_at: Option<UnixMicros>,
    pub address: Option<String>,
    /// From the last `stat`.
    pub location: Option<Location>,
}

/// A downlink that waits for its device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueItem {
    pub dev_eui: Eui64,
    /// Allocated by the store, counting up per device.
    pub seq: u64,
    pub id: String,
    pub created_at: UnixMicros,
    pub confirmed: bool,
    /// 1 to 255, without 224 to 255 unless the application means it.
    pub fport: u8,
    /// Plain; the worker encrypts.
    pub data: Vec<u8>,
    pub expires_at: Option<UnixMicros>,
}

/// All that the pipeline must know of a device besides its session, from one read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceContext {
    pub device: Device,
    pub profile: DeviceProfile,
    pub application: Application,
    pub tenant_name: String,
}

/// ABP activation as the API sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    pub dev_eui: Eui64,
    pub dev_addr: DevAddr,
    pub nwk_s_key: AesKey,
    pub app_s_key: AesKey,
    pub fcnt_up: u32,
    pub n_fcnt_down: u32,
}
