//! What came back.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::Context;

/// The outcome of a run. `Display` is a table, `Serialize` the same as one JSON document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Plays the same again.
    pub seed: u64,
    pub region: String,
    pub seconds: f64,
    /// It ended before every uplink was sent, because it was told to.
    pub cut_short: bool,
    pub gateways: usize,
    pub devices: usize,
    pub joins: JoinSummary,
    pub uplinks: UplinkSummary,
    pub push_acks: PushSummary,
    pub downlinks: DownlinkSummary,
    /// Downlinks that gateways refused, by their word.
    pub tx_ack_errors: BTreeMap<String, u64>,
    /// What should have come and did not, in words; empty if all is well.
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JoinSummary {
    /// JoinRequests sent.
    pub tried: u64,
    /// Devices that got a session.
    pub accepted: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UplinkSummary {
    /// How many were to be sent.
    pub planned: u64,
    /// Different uplinks; repetitions of confirmed ones come on top.
    pub sent: u64,
    pub repeated: u64,
    pub confirmed: u64,
    /// Confirmed ones that the network acknowledged.
    pub acknowledged: u64,
}

/// Of packets, not of status reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PushSummary {
    pub received: u64,
    pub missing: u64,
    /// For a token that waited for none.
    pub unasked: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DownlinkSummary {
    /// Understood by a device in its first window.
    pub rx1: u64,
    /// Understood by a device in its second window.
    pub rx2: u64,
    /// Heard, but with a wrong MIC or malformed.
    pub undecodable: u64,
    /// Two different downlinks under one FCntDown: never acceptable.
    pub counter_reused: u64,
    /// Transmitted at a time, frequency or data rate that no device listened on.
    pub unheard: u64,
    /// Put into queues over the API.
    pub enqueued: u64,
    pub enqueue_failed: u64,
    /// Of those, received by their device.
    pub delivered: u64,
    /// PULL_RESPs that a forwarder drops without a word.
    pub junk: u64,
}

impl Summary {
    pub(super) fn of(context: &Context, elapsed: Duration, cut_short: bool) -> Self {
        let (plan, counts) = (&context.plan, context.stats.snapshot());
        let gateways: Vec<_> = context.air.gateways().iter().map(|gateway| gateway.counters()).collect();
        let mut tx_ack_errors = BTreeMap::new();
        for (word, count) in gateways.iter().flat_map(|counters| &counters.refused) {
            *tx_ack_errors.entry(word.clone()).or_default() += count;
        }
        let latencies = context.stats.latencies();
        let ms = |share: f64| {
            let at = (share * latencies.len() as f64).ceil() as usize;
            latencies.get(at.saturating_sub(1)).map_or(0.0, |us| f64::from(*us) / 1e3)
        };
        let mut summary = Self {
            seed: plan.seed,
            region: plan.region.name().into(),
            seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
            cut_short,
            gateways: plan.gateways,
            devices: plan.devices,
            joins: JoinSummary { tried: counts.joins_tried, accepted: counts.joins_accepted },
            uplinks: UplinkSummary {
                planned: plan.devices as u64 * u64::from(plan.uplinks),
                sent: counts.uplinks,
                repeated: counts.repeated,
                confirmed: counts.confirmed,
                acknowledged: counts.acknowledged,
            },
            push_acks: PushSummary {
                received: latencies.len() as u64,
                missing: context.stats.unacked(),
                unasked: gateways.iter().map(|c| c.push_acks_unasked).sum(),
                p50_ms: ms(0.5),
                p99_ms: ms(0.99),
                max_ms: ms(1.0),
            },
            downlinks: DownlinkSummary {
                rx1: counts.rx1,
                rx2: counts.rx2,
                undecodable: counts.undecodable,
                counter_reused: counts.counter_reused,
                unheard: context.air.strays().0,
                enqueued: counts.enqueued,
                enqueue_failed: counts.enqueue_failed,
                delivered: counts.delivered,
                junk: gateways.iter().map(|c| c.junk).sum(),
            },
            tx_ack_errors,
            missing: Vec::new(),
        };
        summary.missing = summary.find_missing();
        summary
    }

    /// Everything that was asked for came back.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    fn find_missing(&self) -> Vec<String> {
        let unless_cut_short = |count: u64| if self.cut_short { 0 } else { count };
        let never_joined = (self.devices as u64).saturating_sub(self.joins.accepted);
        let unsent = self.uplinks.planned.saturating_sub(self.uplinks.sent);
        let lacks = [
            (unless_cut_short(never_joined), "devices that never joined"),
            (unless_cut_short(unsent), "uplinks not sent"),
            (self.push_acks.missing, "PUSH_DATA without PUSH_ACK"),
            (self.uplinks.confirmed.saturating_sub(self.uplinks.acknowledged), "confirmed uplinks without ACK"),
            (self.downlinks.enqueue_failed, "downlinks not enqueued"),
            (self.downlinks.enqueued.saturating_sub(self.downlinks.delivered), "enqueued downlinks not received"),
            (self.downlinks.counter_reused, "downlinks under an FCntDown that was used before"),
        ];
        let mut missing: Vec<_> =
            lacks.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if self.push_acks.received == 0 && self.push_acks.missing > 0 {
            missing.push(
                "any answer: is --server right, and are the gateways known there (--api makes them known)".into(),
            );
        }
        missing
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { joins, uplinks, push_acks, downlinks, .. } = self;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<14} {value}");
        row("seed", format!("{} ({}, {} s)", self.seed, self.region, self.seconds))?;
        row("played", format!("{} gateways, {} devices", self.gateways, self.devices))?;
        row("joins", format!("{} accepted of {} tried", joins.accepted, joins.tried))?;
        row("uplinks", format!("{} sent, {} of them repeated", uplinks.sent, uplinks.repeated))?;
        row("confirmed", format!("{} acknowledged of {}", uplinks.acknowledged, uplinks.confirmed))?;
        let PushSummary { p50_ms, p99_ms, max_ms, .. } = push_acks;
        row("PUSH_ACK", format!("{} received, {} missing", push_acks.received, push_acks.missing))?;
        row("  after", format!("{p50_ms:.1} ms (p50), {p99_ms:.1} ms (p99), {max_ms:.1} ms (max)"))?;
        row("downlinks", format!("{} in RX1, {} in RX2", downlinks.rx1, downlinks.rx2))?;
        let (unheard, undecodable, junk) = (downlinks.unheard, downlinks.undecodable, downlinks.junk);
        row("  useless", format!("{unheard} that no device heard, {undecodable} undecodable, {junk} malformed"))?;
        if downlinks.enqueued > 0 {
            row("  enqueued", format!("{} received of {}", downlinks.delivered, downlinks.enqueued))?;
        }
        let refused: Vec<_> = self.tx_ack_errors.iter().map(|(word, count)| format!("{count} {word}")).collect();
        row("TX_ACK errors", if refused.is_empty() { "none".into() } else { refused.join(", ") })?;
        row("missing", if self.missing.is_empty() { "nothing".into() } else { self.missing.join(", ") })
    }
}
