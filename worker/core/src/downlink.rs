//! Planning a downlink: which gateway, which windows, which bytes fit.

use alloc::vec::Vec;
use core::time::Duration;

use limpet_shared::{UnixMicros, region::Region};

use crate::model::{MacState, PlannedWindow, Reception};

/// A window that opens sooner than this cannot be met any more: the way to the gateway, and the 42.5 ms that
/// Semtech's forwarder wants ahead.
pub const LEAD: Duration = Duration::from_millis(120);

/// Receive windows of a Class A device, and where they fall for one uplink.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the end of the uplink to RX1; RX2 opens one second later.
    pub rx1_delay: Duration,
    pub rx1_dr_offset: u8,
    pub rx2_frequency: u32,
    pub rx2_data_rate: u8,
}

impl Timing {
    /// After a data uplink, as the session has agreed.
    pub fn of(mac: &MacState) -> Self {
        Self {
            rx1_delay: Duration::from_secs(u64::from(mac.rx1_delay.max(1))),
            rx1_dr_offset: mac.rx1_dr_offset,
            rx2_frequency: mac.rx2_frequency,
            rx2_data_rate: mac.rx2_data_rate,
        }
    }
    /// After a JoinRequest: JOIN_ACCEPT_DELAY1 and 2 with the region's defaults.
    pub fn of_join(region: &Region) -> Self {
        let (rx2_frequency, rx2_data_rate) = region.rx2();
        Self { rx1_delay: Region::join_accept_delays().0, rx1_dr_offset: 0, rx2_frequency, rx2_data_rate }
    }
}

/// The reception to answer: of a gateway whose counter is known, with the best SNR, then RSSI; the lowest EUI decides a tie,
/// so that every worker chooses alike.
pub fn answer_to(receptions: &[Reception]) -> Option<&Reception> {
    receptions.iter().filter(|r| r.rx.tmst.is_some()).min_by(|a, b| better(a, b))
}

/// Orders receptions best first.
pub fn better(a: &Reception, b: &Reception) -> core::cmp::Ordering {
    b.rx.snr.total_cmp(&a.rx.snr).then(b.rx.rssi.cmp(&a.rx.rssi)).then(a.gateway.cmp(&b.gateway))
}

/// The windows after `uplink` that can still be met at `now`, RX1 first.
pub fn windows(uplink: &Reception, timing: Timing, region: &Region, now: UnixMicros) -> Vec<PlannedWindow> {
    let Some(tmst) = uplink.rx.tmst else { return Vec::new() };
    let rx1 = region.rx1(uplink.frequency, uplink.data_rate, timing.rx1_dr_offset);
    let rx2 = Some((timing.rx2_frequency, timing.rx2_data_rate));
    let rx2_delay = timing.rx1_delay + Duration::from_secs(1);
    [(1, timing.rx1_delay, rx1), (2, rx2_delay, rx2)]
        .into_iter()
        .filter_map(|(number, delay, channel)| {
            let (frequency, data_rate) = channel?;
            let at = uplink.received_at + delay;
            (at >= now + LEAD).then(|| PlannedWindow {
                number,
                at,
                tmst: tmst.wrapping_add(delay.as_micros() as u32),
                frequency,
                data_rate,
                power: region.downlink_power(frequency),
                board: uplink.rx.board,
                antenna: uplink.rx.antenna,
            })
        })
        .collect()
}

/// Keeps the windows whose data rate can carry a MACPayload of `length` bytes.
pub fn fitting(windows: &[PlannedWindow], length: usize, region: &Region) -> Vec<PlannedWindow> {
    let fits = |w: &&PlannedWindow| region.max_mac_payload(w.data_rate).is_some_and(|max| length <= max);
    windows.iter().filter(fits).cloned().collect()
}
