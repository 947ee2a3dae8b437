//! What a device's owner is told of a frame that makes no other event: `log` events with ChirpStack's codes, a few for each
//! device and cause, for strangers can cause them.

use std::{collections::HashMap, time::Duration};

use limpet_shared::Eui64;
use limpet_store::PendingEvent;
use limpet_worker_core::{
    ident,
    model::{DeviceContext, Event, EventKind, LogEvent, Tags},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Pipeline, work::Transmission};

/// So many events in so much time, for each device and cause.
const AT_MOST: u32 = 5;
const IN: Duration = Duration::from_secs(60);
/// Devices and causes remembered. Nobody is told of more, and how old these are is looked at so often at most.
const REMEMBERED: usize = 20_000;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Counts what owners are told.
#[derive(Default)]
pub(crate) struct Owners(Mutex<All>);

#[derive(Default)]
struct All {
    told: HashMap<(Eui64, &'static str), Told>,
    looked_at: Option<Instant>,
}

struct Told {
    since: Instant,
    events: u32,
    unsaid: u64,
}

impl Owners {
    /// Whether an event may be told; if so, how many were not since the last one.
    fn admit(&self, dev_eui: Eui64, cause: &'static str, now: Instant) -> Option<u64> {
        let mut all = self.0.lock();
        if !all.has_room_for((dev_eui, cause), now) {
            return None;
        }
        let told = all.told.entry((dev_eui, cause)).or_insert(Told { since: now, events: 0, unsaid: 0 });
        if now.duration_since(told.since) >= IN {
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

impl All {
    fn has_room_for(&mut self, key: (Eui64, &'static str), now: Instant) -> bool {
        let is_full = |all: &Self| all.told.len() >= REMEMBERED && !all.told.contains_key(&key);
        if is_full(self) && self.looked_at.is_none_or(|at| now.duration_since(at) >= LOOK_EVERY) {
            self.looked_at = Some(now);
            self.told.retain(|_, told| now.duration_since(told.since) < IN);
        }
        !is_full(self)
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
        let Some(unsaid) = self.owners.admit(device, word.cause, Instant::now()) else { return };
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
        for integration in self.waiting_under(&context.application) {
            let pending = PendingEvent {
                integration,
                device,
                session_since: copies.received_at(),
                slot: 0,
                part: first.key.0 as u32 >> 1,
                event: event.clone(),
                refusals: 0,
            };
            self.until_stored("put_pending", || self.store.put_pending(pending.clone())).await;
            self.waits();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_causes_is_told_no_more_when_all_places_are_taken() {
        let (owners, now) = (Owners::default(), Instant::now());
        let admitted =
            |from: u64, now| (from..from + 100_000).filter(|d| owners.admit(Eui64(*d), "x", now).is_some()).count();
        assert_eq!(admitted(0, now), REMEMBERED);
        assert_eq!(admitted(100_000, now + IN / 2), 0);
        assert!(owners.admit(Eui64(3), "x", now + IN / 2).is_some(), "who has a place is told on");
        assert_eq!(owners.0.lock().told.len(), REMEMBERED);
        assert_eq!(admitted(200_000, now + IN), REMEMBERED, "places that were not used for a minute are free");
    }
}
