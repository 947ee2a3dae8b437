//! What a device's owner is told of a frame that makes no other event: `log` events with ChirpStack's codes, a few for each
//! device and cause, for strangers can cause them.

use std::{collections::HashMap, time::Duration};

use limpet_shared::{Eui64, UnixMicros};
use limpet_store::PendingEvent;
use limpet_worker_core::{
    ident,
    model::{DeviceContext, Event, EventKind, LogEvent, Tags},
};
use parking_lot::Mutex;

use super::{Pipeline, act::integrations, work::Transmission};

/// So many events in so much time, for each device and cause.
const AT_MOST: u32 = 5;
const IN: Duration = Duration::from_secs(60);
/// Devices and causes remembered.
const REMEMBERED: usize = 20_000;

/// Counts what owners are told.
#[derive(Default)]
pub(crate) struct Owners(Mutex<HashMap<(Eui64, &'static str), Told>>);

#[derive(Default)]
struct Told {
    since: UnixMicros,
    events: u32,
    unsaid: u64,
}

impl Owners {
    /// Whether an event may be told; if so, how many were not since the last one.
    fn admit(&self, dev_eui: Eui64, cause: &'static str, now: UnixMicros) -> Option<u64> {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, told| now.since(told.since) < IN);
        }
        let told = all.entry((dev_eui, cause)).or_default();
        if now.since(told.since) >= IN {
            (told.since, told.events) = (now, 0);
        }
        if told.events >= AT_MOST {
            told.unsaid += 1;
            return None;
        }
        told.events += 1;
        Some(std::mem::take(&mut told.unsaid))
    }
}

/// What is to be told.
pub(super) struct Word {
    /// The drop reason.
    pub cause: &'static str,
    /// ChirpStack's LogCode.
    pub code: &'static str,
    pub error: bool,
    pub description: String,
}

impl Pipeline {
    /// By way of the pending table, whose key is the transmission's: workers that have its other copies tell the same.
    pub(super) async fn tell_owner(&self, copies: &Transmission, context: &DeviceContext, word: Word) {
        let Some(first) = copies.receptions.first().filter(|_| !copies.swept) else { return };
        let device = context.device.dev_eui;
        let Some(unsaid) = self.owners.admit(device, word.cause, self.surroundings.now()) else { return };
        let mut tags = Tags::from([("gateway_id".into(), first.gateway.to_string())]);
        if unsaid > 0 {
            tags.insert("not_told_before".into(), unsaid.to_string());
        }
        let Word { cause, code, error, description } = word;
        let event = Event {
            id: ident::log_id(device, cause, first.key, copies.received_at()),
            at: copies.received_at(),
            device: context.info(),
            kind: EventKind::Log(LogEvent { error, code: code.into(), description, context: tags }),
        };
        for (integration, _) in integrations(&context.application) {
            let pending = PendingEvent {
                integration,
                device,
                session_since: copies.received_at(),
                slot: 0,
                part: first.key.0 as u32 >> 1,
                event: event.clone(),
            };
            self.until_stored("put_pending", || self.store.put_pending(pending.clone())).await;
            self.metrics.pending();
        }
    }
}
