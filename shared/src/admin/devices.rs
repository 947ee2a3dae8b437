//! Devices, as operators add and list them.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{AesKey, DevAddr, Eui64, UnixMicros};

/// A device to add: by OTAA with an AppKey, or by ABP with DevAddr and both session keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceAdd {
    pub dev_eui: Eui64,
    pub join_eui: Option<Eui64>,
    pub app_key: Option<AesKey>,
    pub dev_addr: Option<DevAddr>,
    pub nwk_s_key: Option<AesKey>,
    pub app_s_key: Option<AesKey>,
    pub name: Option<String>,
    /// Name of the application; made in the first tenant if it is not there. Default: `default`.
    pub application: Option<String>,
    /// Region, such as `eu868` or `us915_1`. Default: the first one configured.
    pub region: Option<String>,
    /// LoRaWAN MAC version: `1.0.2`, `1.0.3` or `1.0.4`. Default: `1.0.3`.
    pub mac_version: Option<String>,
    /// URL that gets the application's events by HTTP POST.
    pub webhook: Option<String>,
}

/// A device of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub dev_eui: Eui64,
    pub name: String,
    /// Names of what it belongs to.
    pub application: String,
    pub profile: String,
    pub last_seen: Option<UnixMicros>,
    /// It was heard within one and a half of its profile's uplink intervals; `None` if it was never heard, or there is no interval.
    #[serde(default)]
    pub active: Option<bool>,
    pub is_disabled: bool,
}

/// A device with what the network knows of it, without keys and payloads: a balancer may pass it on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceDetail {
    pub device: Device,
    pub description: String,
    pub join_eui: Eui64,
    /// It has an AppKey, so that it can join.
    pub has_app_key: bool,
    /// None before its first join or activation.
    pub session: Option<DeviceSession>,
    /// How many downlinks wait, and the first of them.
    pub queued: u32,
    pub queue: Vec<QueuedDownlink>,
}

/// What a device's session is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceSession {
    pub dev_addr: DevAddr,
    /// By OTAA, else by ABP.
    pub joined: bool,
    pub region: String,
    pub since: UnixMicros,
    /// The counters of the next frames.
    pub fcnt_up: u32,
    pub fcnt_down: u32,
    /// The receive windows that the device has, by ChirpStack's names: seconds, an offset, a data rate, Hz.
    pub rx1_delay: u8,
    pub rx1_dr_offset: u8,
    pub rx2_dr: u8,
    pub rx2_frequency: u32,
}

/// A downlink that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueuedDownlink {
    pub id: String,
    pub fport: u8,
    pub bytes: u32,
    pub confirmed: bool,
    /// It went to a gateway, and it is not known whether that has sent it.
    pub is_pending: bool,
    pub created_at: UnixMicros,
}
