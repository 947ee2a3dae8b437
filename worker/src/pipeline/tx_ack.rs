//! What a gateway said of a downlink.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use limpet_link::host::{self, Rule};
use limpet_shared::{Eui64, UnixMicros, gwmp::TxError, link::TxAck};
use limpet_store::{Commit, Freshness, PendingEvent};
use limpet_worker_core::{
    downlink, ident,
    model::{Event, EventKind, LogEvent, PlannedGateway, Tags, TxAckEvent},
};

use super::{Pause, Pipeline, act::TxContext};

/// Ours for a silent gateway: the bytes may have been on air, and it may still say so.
const NO_ANSWER: &str = "NO_ANSWER";
/// Ours where no gateway was asked.
const NO_ROUTE: &str = "NO_ROUTE";
/// Ours where the gateway is of a kind that cannot be timed so.
const OTHER_KIND: &str = "OTHER_KIND";
/// How often the row of a refused item is written, if others write it too.
const TAKE_BACK_TRIES: u32 = 3;

/// Parts of a slot's events that come after it. Both may come, in this order: a gateway that was given up answers after all.
const PART_TX_FAILED: u32 = 1000;
const PART_TX_ACK: u32 = 1001;

/// TX_ACKs of queue items in work at one moment: while the store is away they wait for it, and need memory.
const MOST_AT_ONCE: usize = 4096;

/// The TX_ACKs that are not written down yet. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Outcomes(Arc<AtomicUsize>);

/// While this lives, a TX_ACK is in work.
pub(crate) struct InWork(Outcomes);

impl Outcomes {
    /// `None` if too many are in work.
    fn enter(&self) -> Option<InWork> {
        let room = |count: usize| (count < MOST_AT_ONCE).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(InWork(self.clone()))
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipeline {
    /// Any worker can take it: the context tells all. On air means that a queue item is not offered again.
    pub async fn tx_ack(&self, ack: TxAck) {
        let on_air = ack.error.is_empty() || ack.assumed;
        self.metrics.tx_ack(match () {
            () if ack.assumed => "ASSUMED",
            () if on_air => "OK",
            () => &ack.error,
        });
        let context: TxContext = match serde_json::from_slice(&ack.context) {
            Ok(context) => context,
            Err(error) => return tracing::warn!(%error, "a TX_ACK with a context that is not ours"),
        };
        let refused = !on_air && ack.error != NO_ANSWER;
        if refused && host::keeps(Rule::AskAnother) && self.ask_another(&ack, &context) {
            return;
        }
        let Some(item) = &context.item else { return };
        let Some(_place) = self.outcomes.enter() else {
            self.metrics.tx_acks_lost(1);
            if let Some(unsaid) = self.store_errors.admit(self.surroundings.now()) {
                tracing::error!(
                    dev_eui = %context.session.dev_eui, item = item.id, waiting = MOST_AT_ONCE, unsaid,
                    "too many TX_ACKs wait for the store: this one is lost, as if the gateway had not answered"
                );
            }
            return;
        };
        // The event first. If this worker dies before the item is settled, the item counts as not answered for, and is offered
        // again: the application may hear twice of it, and never nothing.
        let kind = event_kind(&ack, on_air, &context, item.id.clone());
        if host::keeps(Rule::TellOfItems) {
            self.emit_after(&ack, on_air, &context, kind).await;
        }
        // A word that nobody has defined says as little as silence: that offer counts.
        if refused && (TxError::is_listed(&ack.error) || [NO_ROUTE, OTHER_KIND].contains(&&*ack.error)) {
            self.take_back(&context, item.seq).await;
        }
        if on_air || !host::keeps(Rule::OfferAgain) {
            self.until_stored("mark_sent", || self.store.mark_sent(&context.session, context.fcnt_down)).await;
            let dev_eui = context.session.dev_eui;
            self.until_stored("delete_queue_item", || self.store.delete_queue_item(dev_eui, item.seq)).await;
        }
    }

    /// The gateway does not transmit: the same bytes go to the next one that heard the uplink, while a window is left.
    fn ask_another(&self, ack: &TxAck, context: &TxContext) -> bool {
        let Some(region) = self.regions.by_name(&context.region) else { return false };
        let in_time = |planned: &PlannedGateway| {
            let earliest = self.now_at(planned.balancer) + downlink::LEAD;
            planned.windows.iter().any(|w| w.at >= earliest)
        };
        let Some(at) = context.others.iter().position(in_time) else { return false };
        let mut others = context.others.get(at..).unwrap_or_default().iter().cloned();
        let Some(PlannedGateway { gateway, balancer, windows }) = others.next() else { return false };
        let others = others.collect();
        tracing::debug!(refused_by = %Eui64(ack.gateway), error = ack.error, %gateway, "another gateway is asked");
        let context = TxContext { windows, balancer, others, ..context.clone() };
        self.transmit(ack.key, gateway, &context.phy, &context, region);
        true
    }

    /// An item that certainly was not on air may be offered again without counting. If this gets lost it counts.
    async fn take_back(&self, tx: &TxContext, seq: u64) {
        let (mut refused, mut pause) = (0, Pause::default());
        while refused < TAKE_BACK_TRIES {
            let read = || self.store.session(&tx.session, Freshness::Serial);
            let Some(row) = self.until_stored("session", read).await else { return };
            let mut next = row.session;
            let item = next.item.as_mut().filter(|item| item.seq == seq);
            if !item.is_some_and(|item| item.take_back(tx.fcnt_down)) {
                return;
            }
            next.rev += 1;
            match self.store.commit_session(&next).await {
                Ok(Commit::Applied) => return,
                Ok(Commit::Refused) => refused += 1,
                // What it did, the next look says.
                Err(error) => self.store_failed("take_back", &error, &mut pause).await,
            }
        }
    }

    /// An event after the slot's own.
    async fn emit_after(&self, ack: &TxAck, on_air: bool, tx: &TxContext, kind: EventKind) {
        let read = || self.store.device_context(tx.session.dev_eui);
        // A device that was deleted has nobody to tell.
        let Some(device) = self.until_stored("device_context", read).await else { return };
        let (what, part) = if on_air { ("txack", PART_TX_ACK) } else { ("txfail", PART_TX_FAILED) };
        let event = Event {
            id: ident::event_id(what, &tx.session, tx.resets, tx.fcnt_down),
            at: UnixMicros(ack.at),
            device: device.info(),
            kind,
        };
        for integration in self.waiting_under(&device.application) {
            let pending = PendingEvent {
                integration,
                device: tx.session.dev_eui,
                session_since: tx.since,
                slot: tx.slot,
                part,
                event: event.clone(),
                refusals: 0,
            };
            // By way of the pending table: it must not overtake the uplink's own event.
            self.until_stored("put_pending", || self.store.put_pending(pending.clone())).await;
            self.waits();
        }
    }
}

fn event_kind(ack: &TxAck, on_air: bool, tx: &TxContext, queue_item: String) -> EventKind {
    let window = tx.windows.iter().find(|w| u32::from(w.number) == ack.window).or(tx.windows.first());
    if !on_air {
        let context = Tags::from([
            ("queue_item_id".into(), queue_item),
            ("gateway_id".into(), Eui64(ack.gateway).to_string()),
            ("error".into(), ack.error.clone()),
        ]);
        let what = if ack.error == NO_ANSWER { "has not said whether it transmitted" } else { "did not transmit" };
        let description = format!("the gateway {what}: {}; the item is offered again", ack.error);
        return EventKind::Log(LogEvent { error: true, code: "DOWNLINK_GATEWAY".into(), description, context });
    }
    EventKind::TxAck(TxAckEvent {
        queue_item,
        fcnt_down: tx.fcnt_down,
        gateway: Eui64(ack.gateway),
        frequency: window.map_or(0, |w| w.frequency),
        data_rate: window.map_or(0, |w| w.data_rate),
        power: window.map_or(0, |w| w.power),
        region: tx.region.clone(),
    })
}
