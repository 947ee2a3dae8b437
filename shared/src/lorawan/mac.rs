//! MAC commands of LoRaWAN 1.0.x, class A and B (5, 12).
//!
//! A command carries no length, so nothing behind an unknown one can be read. That never makes a frame invalid (5):
//! what was read before it counts.

use alloc::vec::Vec;
use core::time::Duration;

mod downlink;
mod uplink;

pub use downlink::{DownlinkCommand, parse_downlink};
pub use uplink::{UplinkCommand, parse_uplink};

use crate::UnixMicros;

/// Command identifiers; request and answer share one (table 12 of 5, table 58 of 12).
mod cid {
    pub const LINK_CHECK: u8 = 0x02;
    pub const LINK_ADR: u8 = 0x03;
    pub const DUTY_CYCLE: u8 = 0x04;
    pub const RX_PARAM_SETUP: u8 = 0x05;
    pub const DEV_STATUS: u8 = 0x06;
    pub const NEW_CHANNEL: u8 = 0x07;
    pub const RX_TIMING_SETUP: u8 = 0x08;
    pub const TX_PARAM_SETUP: u8 = 0x09;
    pub const DL_CHANNEL: u8 = 0x0a;
    pub const DEVICE_TIME: u8 = 0x0d;
    pub const PING_SLOT_INFO: u8 = 0x10;
    pub const PING_SLOT_CHANNEL: u8 = 0x11;
    pub const BEACON_FREQ: u8 = 0x13;
}

/// MAC commands in the order they came, and what ended them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<C> {
    pub commands: Vec<C>,
    pub end: End,
}

/// What ended a run of MAC commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every byte was read.
    Complete,
    /// A command identifier that 1.0.x does not define in this direction; it and all behind it was not read.
    Unknown(u8),
    /// The command of this identifier lacks bytes.
    Truncated(u8),
}

/// Reads commands with `take`, which gives one command and the bytes behind it.
fn read_all<C>(mut bytes: &[u8], take: impl Fn(&[u8]) -> Result<(C, &[u8]), End>) -> Parsed<C> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        match take(bytes) {
            Ok((command, rest)) => {
                commands.push(command);
                bytes = rest;
            }
            Err(end) => return Parsed { commands, end },
        }
    }
    Parsed { commands, end: End::Complete }
}

/// Why `bytes`, which no command's pattern matched, can't be read.
fn unread(bytes: &[u8]) -> End {
    match bytes {
        [cid @ (cid::LINK_CHECK..=cid::DL_CHANNEL | cid::DEVICE_TIME), ..] => End::Truncated(*cid),
        [cid @ (cid::PING_SLOT_INFO | cid::PING_SLOT_CHANNEL | cid::BEACON_FREQ), ..] => End::Truncated(*cid),
        [cid, ..] => End::Unknown(*cid),
        [] => End::Complete,
    }
}

/// The Unix time of the GPS epoch, 1980-01-06T00:00:00Z.
const GPS_EPOCH: Duration = Duration::from_secs(315_964_800);
/// GPS counts leap seconds, Unix time does not: 18 since the end of 2016, with no further one announced.
const LEAP_SECONDS: Duration = Duration::from_secs(18);

/// The time since the GPS epoch; zero for a clock that is set before it. Right for any moment from 2017 on.
pub fn since_gps_epoch(unix: UnixMicros) -> Duration {
    Duration::from_micros(unix.0).saturating_sub(GPS_EPOCH) + LEAP_SECONDS
}

/// What DeviceTimeAns carries (5.11): seconds since the GPS epoch (which wrap in 2116) and the fraction of
/// the second in steps of 1/256 s, rounded down.
pub fn gps_time(unix: UnixMicros) -> (u32, u8) {
    let since = since_gps_epoch(unix);
    (since.as_secs() as u32, (u64::from(since.subsec_micros()) * 256 / 1_000_000) as u8)
}
