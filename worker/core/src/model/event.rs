//! What integrations are told, in the domain's words; the integration renders it.

use alloc::{string::String, vec::Vec};

use limpet_shared::{DevAddr, Eui64, UnixMicros};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{RxInfo, Tags};

/// One event of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `deduplicationId`: a hash of session and FCntUp (or of the join, or of session and FCntDown), the same
    /// whoever computes it.
    pub id: Uuid,
    pub at: UnixMicros,
    pub device: DeviceInfo,
    pub kind: EventKind,
}

/// Whose event it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub tenant_id: Uuid,
    pub tenant_name: String,
    pub application_id: Uuid,
    pub application_name: String,
    pub device_profile_id: Uuid,
    pub device_profile_name: String,
    pub device_name: String,
    pub dev_eui: Eui64,
    /// Of application, device profile and device; the device's win.
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    Up(UpEvent),
    Join(JoinEvent),
    Ack(AckEvent),
    TxAck(TxAckEvent),
    Log(LogEvent),
    Status(StatusEvent),
}

impl EventKind {
    /// ChirpStack's name of it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Join(_) => "join",
            Self::Ack(_) => "ack",
            Self::TxAck(_) => "txack",
            Self::Log(_) => "log",
            Self::Status(_) => "status",
        }
    }
}

/// An uplink was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpEvent {
    pub dev_addr: DevAddr,
    pub adr: bool,
    pub data_rate: u8,
    /// 32-bit FCntUp.
    pub fcnt: u32,
    /// `None`: the frame had no FPort.
    pub fport: Option<u8>,
    pub confirmed: bool,
    /// Decrypted FRMPayload; empty for FPort 0 and none.
    pub data: Vec<u8>,
    pub region: String,
    /// Hz.
    pub frequency: u32,
    /// Best first.
    pub receptions: Vec<EventReception>,
}

/// How one gateway heard the uplink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventReception {
    pub gateway: Eui64,
    pub received_at: UnixMicros,
    pub rx: RxInfo,
}

/// A device joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinEvent {
    pub dev_addr: DevAddr,
    pub region: String,
}

/// A confirmed downlink was acknowledged by the device, or the next uplink came without an ACK.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AckEvent {
    pub queue_item: String,
    pub acknowledged: bool,
    pub fcnt_down: u32,
}

/// A gateway said that it transmits a queue item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TxAckEvent {
    pub queue_item: String,
    pub fcnt_down: u32,
    pub gateway: Eui64,
    /// Hz.
    pub frequency: u32,
    pub data_rate: u8,
    pub power: i8,
    pub region: String,
}

/// Something an operator of the application should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEvent {
    pub error: bool,
    /// ChirpStack's code, such as `DOWNLINK_PAYLOAD_SIZE`.
    pub code: String,
    pub description: String,
    pub context: Tags,
}

/// The device has told its status (DevStatusAns; LoRaWAN 1.0.4, 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// SNR in dB of the downlink that asked, -32 to 31.
    pub margin: i8,
    /// 0: powered from outside; 1 to 254: the battery's level; 255: not measured.
    pub battery: u8,
}
