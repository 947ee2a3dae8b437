//! Planning a downlink: which gateway, which windows, which bytes fit.

use alloc::vec::Vec;
use core::time::Duration;

use limpet_shared::{UnixMicros, region::Region};

use crate::model::{MacState, PlannedGateway, PlannedWindow, Reception, RegionSettings};

/// A window that opens sooner than this cannot be met any more: the way to the gateway, and the 42.5 ms that
/// Semtech's forwarder wants ahead.
pub const LEAD: Duration = Duration::from_millis(120);

/// Gateways that a downlink is planned for at most.
const MOST_GATEWAYS: usize = 3;

/// What the deciding worker knows of the way back of a reception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The gateway asks for downlinks (PULL_DATA).
    pub asks: bool,
    /// What time it is on the clock of the balancer that received it: this machine's may be another.
    pub now: UnixMicros,
}

/// What time it is at each balancer that has received a copy; at others it is `otherwise`.
pub fn clock<'a>(
    receptions: &'a [Reception],
    ways: &'a [Way],
    otherwise: UnixMicros,
) -> impl Fn(u64) -> UnixMicros + 'a {
    move |balancer| {
        let way = receptions.iter().zip(ways).find(|(r, _)| r.balancer == balancer);
        way.map_or(otherwise, |(_, way)| way.now)
    }
}

/// Receive windows of a Class A device, and where they fall for one uplink.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the end of the uplink to RX1; RX2 opens one second later.
    pub rx1_delay: Duration,
    pub rx1_dr_offset: u8,
    pub rx2_frequency: u32,
    pub rx2_data_rate: u8,
    /// Whether the device knows a limit to the length of downlinks, where that is known.
    pub limited: Option<bool>,
}

impl Timing {
    /// After a data uplink, as the session has agreed.
    pub fn of(mac: &MacState) -> Self {
        Self {
            rx1_delay: Duration::from_secs(u64::from(mac.rx1_delay.max(1))),
            rx1_dr_offset: mac.rx1_dr_offset,
            rx2_frequency: mac.rx2_frequency,
            rx2_data_rate: mac.rx2_data_rate,
            limited: mac.dwell.map(|limits| limits.downlink),
        }
    }
    /// After a JoinRequest: JOIN_ACCEPT_DELAY1 and 2 with the region's defaults.
    pub fn of_join(region: &Region) -> Self {
        let (rx2_frequency, rx2_data_rate) = region.rx2();
        let rx1_delay = Region::join_accept_delays().0;
        Self { rx1_delay, rx1_dr_offset: 0, rx2_frequency, rx2_data_rate, limited: None }
    }
}

/// The gateways that can answer, the best first, each with all windows of this uplink. Only gateways that ask for
/// downlinks are chosen, if any is known to. `ways` are those of the receptions, in their order. The windows are the device's; of the
/// region's settings only the power is looked at, which no device knows of.
pub fn plan(
    receptions: &[Reception],
    ways: &[Way],
    timing: Timing,
    (region, settings): (&Region, &RegionSettings),
) -> Vec<PlannedGateway> {
    let mut able: Vec<(&Reception, &Way)> = receptions.iter().zip(ways).filter(|(r, _)| r.rx.radio.is_some()).collect();
    if able.iter().any(|(_, way)| way.asks) {
        able.retain(|(_, way)| way.asks);
    }
    // One whose windows are over comes last.
    let is_late =
        |(r, way): &(&Reception, &Way)| windows(r, timing, (region, settings)).iter().all(|w| w.at < way.now + LEAD);
    able.sort_by(|a, b| is_late(a).cmp(&is_late(b)).then(better(a.0, b.0)));
    let mut plan: Vec<PlannedGateway> = Vec::new();
    for (sender, _) in able {
        let windows = windows(sender, timing, (region, settings));
        let known = plan.iter().any(|planned| planned.gateway == sender.gateway);
        if !known && !windows.is_empty() && plan.len() < MOST_GATEWAYS {
            plan.push(PlannedGateway { gateway: sender.gateway, balancer: sender.balancer, windows });
        }
    }
    plan
}

/// What of the plan can still be met; `now_at` says what time it is at a balancer.
pub fn in_time(plan: &[PlannedGateway], now_at: impl Fn(u64) -> UnixMicros) -> Vec<PlannedGateway> {
    narrowed(plan, |planned, window| window.at >= now_at(planned.balancer) + LEAD)
}

/// What of the plan can carry a MACPayload of `length` bytes.
pub fn fitting(
    plan: &[PlannedGateway],
    length: usize,
    (region, settings): (&Region, &RegionSettings),
) -> Vec<PlannedGateway> {
    narrowed(plan, |_, window| settings.max_downlink(region, window.data_rate).is_some_and(|max| length <= max))
}

/// The windows that are wanted, and the gateways that have any.
fn narrowed(plan: &[PlannedGateway], wants: impl Fn(&PlannedGateway, &PlannedWindow) -> bool) -> Vec<PlannedGateway> {
    let narrowed = plan.iter().map(|planned| {
        let windows = planned.windows.iter().filter(|window| wants(planned, window)).cloned().collect();
        PlannedGateway { windows, ..*planned }
    });
    narrowed.filter(|planned| !planned.windows.is_empty()).collect()
}

/// Orders receptions best first.
pub fn better(a: &Reception, b: &Reception) -> core::cmp::Ordering {
    b.rx.snr.total_cmp(&a.rx.snr).then(b.rx.rssi.cmp(&a.rx.rssi)).then(a.gateway.cmp(&b.gateway))
}

/// The windows that follow this reception, RX1 first.
fn windows(sender: &Reception, timing: Timing, (region, settings): (&Region, &RegionSettings)) -> Vec<PlannedWindow> {
    let Some(radio) = &sender.rx.radio else { return Vec::new() };
    let uplink = (sender.frequency, sender.data_rate);
    let rx1 = region.rx1_of(uplink, timing.rx1_dr_offset, timing.limited);
    let rx2 = Some((timing.rx2_frequency, timing.rx2_data_rate));
    let rx2_delay = timing.rx1_delay + Duration::from_secs(1);
    [(1, timing.rx1_delay, rx1), (2, rx2_delay, rx2)]
        .into_iter()
        .filter_map(|(number, delay, channel)| {
            let (frequency, data_rate) = channel?;
            Some(PlannedWindow {
                number,
                at: sender.received_at + delay,
                radio: radio.after(delay),
                frequency,
                data_rate,
                power: settings.power(region, frequency),
                board: sender.rx.board,
                antenna: sender.rx.antenna,
            })
        })
        .collect()
}
