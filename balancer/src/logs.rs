//! Events as lines for people. What strangers can cause is limited to a few lines per second and reason.

use std::{collections::BTreeMap, net::SocketAddr};

use limpet_balancer_core::{DropReason, Event};
use limpet_shared::{Eui64, LogLimit, UnixMicros};

/// Limits the lines about drops: those of each reason by themselves.
#[derive(Default)]
pub struct DropLog(BTreeMap<DropReason, LogLimit>);

impl DropLog {
    /// One line: why, and whose.
    pub fn say(&mut self, now: UnixMicros, reason: DropReason, gateway: Option<Eui64>, from: Option<SocketAddr>) {
        let Some(unsaid) = self.admit(reason, now) else { return };
        let gateway = gateway.map(tracing::field::display);
        let from = from.map(tracing::field::display);
        let label = reason.label();
        if worth_a_warning(reason) {
            tracing::warn!(gateway, from, reason = label, unsaid, "dropped: {reason}");
        } else {
            tracing::debug!(gateway, from, reason = label, unsaid, "dropped: {reason}");
        }
    }

    fn admit(&mut self, reason: DropReason, now: UnixMicros) -> Option<u64> {
        self.0.entry(reason).or_default().admit(now)
    }
}

/// Drops that cost somebody an uplink or a downlink; the others are what any open port gets.
fn worth_a_warning(reason: DropReason) -> bool {
    use DropReason::*;
    matches!(
        reason,
        AddressLocked
            | AddressHeld
            | GatewayRate
            | RetentionFull
            | RetentionShare
            | NoWorker
            | Poison
            | TxAckUnheard
            | DownlinkMalformed
            | DownlinkOtherKind
            | DownlinksFull
    )
}

/// Events that come at most a few times per second by themselves.
pub fn event(event: &Event) {
    match event {
        Event::Received { .. } | Event::PushAcked { .. } | Event::PushAckWithheld { .. } | Event::Spilled { .. } => {}
        Event::Redelivered { gateway, attempt, why } => {
            tracing::debug!(%gateway, attempt, reason = why.label(), "gave a frame to another worker");
        }
        Event::Worker { name, state, reason } => {
            let why = (!reason.is_empty()).then_some(reason.as_str());
            match *state {
                // Who said that it goes, as at every orderly stop, is nothing to worry about.
                "gone" if reason == "it left" => tracing::info!(worker = name, state, reason = why, "a worker"),
                "ready" | "joining" | "draining" | "overloaded" => {
                    tracing::info!(worker = name, state, reason = why, "a worker");
                }
                _ => tracing::warn!(worker = name, state, reason = why, "a worker"),
            }
        }
        Event::WorkerRefused { name, reason } => tracing::warn!(worker = name, reason, "did not let a worker in"),
        Event::RingChanged { epoch } => tracing::info!(epoch, "the ring has changed"),
        Event::UnknownGateway { gateway, address } => tracing::warn!(
            %gateway, %address,
            "rejected a gateway that the network does not know; to add it: limpet ctl gateway add {gateway}"
        ),
        Event::GatewayMoved { gateway, from, to } => {
            tracing::warn!(%gateway, %from, %to, "a gateway speaks from another address");
        }
        Event::DownlinkSent { gateway, window } => tracing::debug!(%gateway, window, "sent a downlink"),
        Event::DownlinkSettled { gateway, window, error } if error.is_empty() => {
            tracing::debug!(%gateway, window, "a gateway transmits a downlink");
        }
        Event::DownlinkSettled { gateway, window, error } => {
            tracing::info!(%gateway, window, error, "a downlink was not transmitted, as far as is known");
        }
        Event::ClusterChanged { version, gateways } => tracing::debug!(version, gateways, "learned about the network"),
        // A lone worker is always more than half; there is nobody else to turn to anyway.
        Event::VerdictsHeld { silent, of: 1 } => tracing::debug!(silent, "the only worker is silent"),
        Event::VerdictsHeld { silent, of } => {
            tracing::warn!(silent, of, "more than half of the workers are silent at once; waiting before believing it");
        }
        Event::Stalled { late } => {
            tracing::debug!(late_ms = late.as_millis() as u64, "the balancer itself did not run for a while");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_reason_has_a_limit_of_its_own() {
        let (mut log, start) = (DropLog::default(), UnixMicros(7_000_000));
        let said = (0..100).filter(|_| log.admit(DropReason::TooShort, start).is_some()).count();
        assert!(said < 10, "{said}");
        assert_eq!(log.admit(DropReason::Poison, start), Some(0));
        assert_eq!(log.admit(DropReason::TooShort, start + Duration::from_secs(1)), Some(100 - said as u64));
    }
}
