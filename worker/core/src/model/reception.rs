//! One gateway's copy of an uplink.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::time::Duration;

use limpet_shared::{Eui64, RadioTime, UnixMicros};
use serde::{Deserialize, Serialize};

use super::{Location, Tags};

/// What copies of one transmission share: a hash of the PHYPayload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DedupKey(pub u128);

/// Receptions are stored for so long: the longest total outage that is survived.
pub const RECEPTIONS_KEPT: Duration = Duration::from_secs(3600);

/// A reception as it is stored, keyed (`key`, `gateway`, `context`). A redelivery by the balancer writes the same
/// row again: it holds nothing of the worker that wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reception {
    pub key: DedupKey,
    pub gateway: Eui64,
    /// Hash of what tells two receptions of equal bytes at one gateway apart: receive time, channel, radio time, board,
    /// antenna.
    pub context: u64,
    /// When the balancer received the datagram, on its clock.
    pub received_at: UnixMicros,
    /// Which run of which balancer that was: whose clock tells how old the reception is. 0 if it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub balancer: u64,
    /// The region that the frame was matched to, such as `eu868`.
    pub region: String,
    /// Hz.
    pub frequency: u32,
    /// Data rate index of the region.
    pub data_rate: u8,
    /// PHYPayload.
    pub phy: Vec<u8>,
    pub rx: RxInfo,
}

fn is_false(yes: &bool) -> bool {
    !yes
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a gateway heard it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RxInfo {
    /// When, in the gateway's own terms; a downlink is timed by it. Without it the gateway can't answer. The stored name is that of
    /// the first kind there was.
    #[serde(rename = "tmst")]
    pub radio: Option<RadioTime>,
    /// GPS time of reception as the gateway wrote it (RFC 3339).
    pub time: Option<String>,
    /// Milliseconds since the GPS epoch.
    pub tmms: Option<u64>,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f32,
    pub channel: u32,
    pub rf_chain: u32,
    /// As the gateway named them; given back with a downlink.
    pub board: Option<u32>,
    pub antenna: Option<u32>,
    /// Code rate, such as `4/5`.
    pub code_rate: String,
    /// The frame had no CRC. One with a bad CRC is no reception.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_crc: bool,
    /// Fine timestamp, ns within the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_time: Option<u32>,
    /// How each antenna heard it, best first, if the gateway says so; the fields above are the best one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub antennas: Vec<AntennaSignal>,
    /// Where the gateway was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// What the forwarder says of itself (`meta`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Tags,
}

/// How one antenna heard a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AntennaSignal {
    pub antenna: u32,
    pub channel: u32,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f32,
    /// Fine timestamp, ns within the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_time: Option<u32>,
}
