//! Acting on a slot: its downlink, its events, the mark (step 6).

use std::{borrow::Cow, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use limpet_integration::DeliveryError;
use limpet_link::host::{self, Rule};
use limpet_shared::{
    Eui64,
    link::{self, Transmission, Window},
    region::Region,
};
use limpet_store::{IntegrationId, PendingEvent, StoreError};
use limpet_worker_core::model::*;
use serde::{Deserialize, Serialize};
use tokio::{sync::OnceCell, time::Instant};

use super::{
    EMIT_LIMIT, Pipeline,
    decoding::{Reading, part_of_complaint},
};

/// What a TX_ACK hands back: all that any worker needs to act on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TxContext {
    pub session: SessionKey,
    pub since: limpet_shared::UnixMicros,
    pub slot: u64,
    pub resets: u32,
    pub fcnt_down: u32,
    pub item: Option<SentItem>,
    pub region: String,
    pub windows: Vec<PlannedWindow>,
    /// The balancer whose clock they are on.
    #[serde(default)]
    pub balancer: u64,
    /// The gateways to ask next, and the bytes for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PlannedGateway>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phy: Vec<u8>,
}

/// The events of a slot, as they go out.
struct Telling<'a> {
    session: &'a Session,
    context: &'a DeviceContext,
    began: Instant,
    /// What each one's payload says, read once it is needed: nothing is that waits behind others.
    readings: Vec<OnceCell<Reading>>,
}

impl Telling<'_> {
    /// The time that is left to read and to deliver this part: [`EMIT_LIMIT`] each, as who plans windows counts on.
    fn left(&self, part: u32) -> Duration {
        (EMIT_LIMIT * (part + 1)).saturating_sub(self.began.elapsed())
    }
}

impl Pipeline {
    /// After the compare-and-set: downlink first, for its window does not wait; then the event; then the mark.
    pub(super) async fn act(&self, session: &Session, context: &DeviceContext, region: &Region) {
        if let Some(decided) = session.slot_answer() {
            self.send_downlink(session, decided, region);
        }
        self.emit_slot(session, context).await;
        self.note(session).await;
    }

    /// Sends the decided bytes unless they are known to be on air. The balancer forwards each window once.
    pub(super) fn send_again(&self, row: &SessionRow) {
        let Some(decided) = row.session.answer.as_decided() else { return };
        let Some(region) = self.regions.by_name(&row.session.region) else { return };
        let planned = &decided.downlink;
        let now = self.now_at(planned.balancer);
        let in_time = planned.windows.iter().any(|w| w.at > now);
        if in_time && row.marks.sent <= u64::from(planned.fcnt_down) {
            self.send_downlink(&row.session, decided, region);
        }
    }

    pub(super) fn send_downlink(&self, session: &Session, decided: &DecidedAnswer, region: &Region) {
        let DecidedAnswer { slot, downlink: planned } = decided;
        let others = planned.others.clone();
        let context = TxContext {
            session: session.key,
            since: session.since,
            slot: *slot,
            resets: session.resets,
            fcnt_down: planned.fcnt_down,
            item: planned.item.clone(),
            region: session.region.clone(),
            windows: planned.windows.clone(),
            balancer: planned.balancer,
            phy: if others.is_empty() { Vec::new() } else { planned.phy.clone() },
            others,
        };
        self.transmit(planned.key, planned.gateway, &planned.phy, &context, region);
    }

    /// Sends the bytes to a gateway, for the windows in the context.
    pub(super) fn transmit(&self, key: u64, gateway: Eui64, phy: &[u8], context: &TxContext, region: &Region) {
        let windows: Vec<Window> = {
            let most = if host::keeps(Rule::BothWindows) { usize::MAX } else { 1 };
            context.windows.iter().take(most).filter_map(|w| window(w, region)).collect()
        };
        let Ok(told) = serde_json::to_vec(context) else { return };
        self.metrics.downlink();
        let (others, phy) = (!context.others.is_empty(), Bytes::copy_from_slice(phy));
        let downlink = link::Downlink { key, gateway: gateway.0, windows, context: told.into(), others, phy };
        self.link.send(downlink, context.balancer);
    }

    /// The slot's events, to every endpoint or to the pending table, then `out`. No endpoint waits for another.
    pub(super) async fn emit_slot(&self, session: &Session, context: &DeviceContext) {
        if !host::keeps(Rule::MarkAfterEvents) {
            let mark = || self.store.mark_out(&session.key, session.slot.number, false);
            self.until_stored("mark_out", mark).await;
        }
        let endpoints = context.application.endpoints();
        let telling = Telling {
            session,
            context,
            began: Instant::now(),
            readings: session.slot.events.iter().map(|_| OnceCell::new()).collect(),
        };
        let told = endpoints.iter().map(|endpoint| self.emit_to(endpoint, &telling));
        let through_pending = join_all(told).await.contains(&true);
        let (key, number) = (&session.key, session.slot.number);
        self.until_stored("mark_out", || self.store.mark_out(key, number, through_pending)).await;
        self.metrics.out(self.now_at(0).since(session.slot.received_at));
    }

    /// Whether any of them waits.
    async fn emit_to(&self, endpoint: &Endpoint<'_>, telling: &Telling<'_>) -> bool {
        let (session, application) = (telling.session, &telling.context.application);
        let own = self.waits_under(endpoint, application);
        let mut behind = session.slot.behind_pending && host::keeps(Rule::WaitBehind) && {
            let (device, slot) = (session.key.dev_eui, session.slot.number);
            let has = |of| self.store.has_pending(IntegrationId(of), device, session.since, slot);
            // What waits for all URLs is moved to where it waits for each, never back: so in this order.
            self.until_stored("has_pending", || has(application.id)).await
                || self.until_stored("has_pending", || has(endpoint.apart)).await
        };
        for ((part, event), reading) in (0_u32..).zip(&session.slot.events).zip(&telling.readings) {
            let mut pending = None;
            if behind {
                pending = Some(waiting(session, own, part, event));
            } else {
                let read = || self.read_payload(event, telling.context, telling.left(part));
                let reading = reading.get_or_init(read).await;
                if let Err(error) = self.deliver(endpoint, event, reading, telling.left(part)).await {
                    let refusals = u32::from(error.is_verdict());
                    pending = Some(PendingEvent { refusals, ..waiting(session, own, part, event) });
                } else if let Some(complaint) = self.complaint(reading, event) {
                    pending = Some(waiting(session, own, part_of_complaint(part), &complaint));
                }
            }
            behind |= pending.is_some();
            if let Some(pending) = pending.filter(|_| host::keeps(Rule::KeepWaiting)) {
                self.until_stored("put_pending", || self.store.put_pending(pending.clone())).await;
                self.waits();
            }
        }
        behind
    }

    async fn deliver(
        &self,
        endpoint: &Endpoint<'_>,
        event: &Event,
        reading: &Reading,
        limit: Duration,
    ) -> Result<(), DeliveryError> {
        reading.is_known()?;
        let mut event = Cow::Borrowed(event);
        if !host::keeps(Rule::StableId) {
            event.to_mut().id = uuid::Uuid::new_v4();
        }
        let event = &*event;
        match self.deliver.deliver(&endpoint.http, event, reading.object(), limit).await {
            Ok(()) => {
                self.metrics.delivered(&event.kind);
                self.troubles.took(&event.device, endpoint);
                Ok(())
            }
            Err(error) => {
                self.metrics.delivery_failed();
                // Whether it takes events, and only slowly, is seen when there is more time for it.
                if !matches!(error, DeliveryError::TimedOut(_)) {
                    self.troubles.failed(&event.device, endpoint, &error);
                }
                tracing::debug!(dev_eui = %event.device.dev_eui, %error, "an event waits: its integration did not take it");
                Err(error)
            }
        }
    }

    /// The event in the slot may not be out: it goes to the pending table before the slot is replaced. It is never
    /// waited for here, or a slow integration would hold up the device.
    pub(super) async fn keep_slot(&self, row: &SessionRow, context: &DeviceContext) -> Result<(), StoreError> {
        if row.slot_is_out() || !host::keeps(Rule::KeepBeforeReplacing) {
            return Ok(());
        }
        for integration in self.waiting_under(&context.application) {
            for (part, event) in (0_u32..).zip(&row.session.slot.events) {
                self.store.put_pending(waiting(&row.session, integration, part, event)).await?;
                self.waits();
            }
        }
        Ok(())
    }

    /// What the events that wait for one of its endpoints wait under. While there is a worker that takes all URLs of an application
    /// for one integration, they wait for all together: it would take another id for that of an application that was removed.
    fn waits_under(&self, endpoint: &Endpoint<'_>, application: &Application) -> IntegrationId {
        let apart = self.urls_apart.load(Ordering::Relaxed);
        IntegrationId(if apart { endpoint.id } else { application.id })
    }

    /// What an event for all of its endpoints waits under.
    pub(super) fn waiting_under(&self, application: &Application) -> Vec<IntegrationId> {
        let endpoints = application.endpoints();
        let mut all: Vec<_> = endpoints.iter().map(|endpoint| self.waits_under(endpoint, application)).collect();
        all.dedup();
        all
    }

    /// For people: when the device was heard. Nothing depends on it.
    async fn note(&self, session: &Session) {
        let seen = DeviceSeen {
            last_seen_at: Some(session.slot.received_at),
            data_rate: Some(session.mac.data_rate),
            battery: session.mac.battery,
            margin: session.mac.margin,
        };
        if let Err(error) = self.store.note_device(session.key.dev_eui, seen).await {
            tracing::debug!(dev_eui = %session.key.dev_eui, %error, "could not note when a device was seen");
        }
    }
}

fn waiting(session: &Session, integration: IntegrationId, part: u32, event: &Event) -> PendingEvent {
    PendingEvent {
        integration,
        device: session.key.dev_eui,
        session_since: session.since,
        slot: session.slot.number,
        part,
        event: event.clone(),
        refusals: 0,
    }
}

/// A window as the balancer gets it, which writes it as the gateway's kind wants it.
fn window(planned: &PlannedWindow, region: &Region) -> Option<Window> {
    let transmission = Transmission {
        time: Some(planned.radio.clone()),
        frequency: planned.frequency,
        data_rate: planned.data_rate.into(),
        power: planned.power.into(),
        board: planned.board,
        antenna: planned.antenna,
        ..Transmission::default()
    };
    let transmission = transmission.modulated(region.modulation(planned.data_rate)?);
    transmission.as_ref()?;
    Some(Window { number: planned.number.into(), at: planned.at.0, transmission, ..Window::default() })
}
