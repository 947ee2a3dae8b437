//! An event that its integration does not want: tried a few times, then set aside, for those behind it wait.

use std::time::Duration;

use limpet_integration::DeliveryError;
use limpet_shared::UnixMicros;
use limpet_store::{PendingEvent, StoreError};
use limpet_worker_core::{
    ident,
    model::{DedupKey, Event, EventKind, LogEvent, Tags},
};
use tokio::time::Instant;

use crate::pipeline::Pipeline;

/// How often an event is refused before that is final, as it comes and while it waits, and the time between two tries.
const TRIES: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(1_200);
/// In the `part` of a `log` event that tells of another one, whose id it names: behind that one, and it tells of no further one. Of a refusal,
/// and of a payload that could not be decoded.
const TOLD: u32 = 1 << 31;
pub(in crate::pipeline) const COMPLAINT: u32 = 1 << 30;

/// Session start, slot and part of an event: it among its device's.
type Key = (UnixMicros, u64, u32);

#[derive(Clone, Debug)]
pub(super) struct Refusal {
    event: Key,
    tries: u32,
    /// The device waits until then.
    pub until: Instant,
}

impl Refusal {
    pub fn again(before: Option<&Self>, event: &PendingEvent) -> Self {
        let key = (event.session_since, event.slot, event.part);
        let tries = before.filter(|refusal| refusal.event == key).map_or(event.refusals, |refusal| refusal.tries) + 1;
        Self { event: key, tries, until: Instant::now() + BETWEEN }
    }

    /// It was not offered: its device waits as long, and that is no try.
    pub fn not_yet(before: Option<&Self>, event: &PendingEvent) -> Self {
        let refusal = Self::again(before, event);
        Self { tries: refusal.tries - 1, ..refusal }
    }

    pub fn is_final(&self) -> bool {
        self.tries >= TRIES
    }
}

/// Whether it only tells of another event: that it was refused, or not decoded.
pub(super) fn tells_of_one(event: &PendingEvent) -> bool {
    event.part & (TOLD | COMPLAINT) != 0
}

/// Takes it out of the line, and tells its owner by a `log` event in its place.
pub(super) async fn set_aside(
    pipeline: &Pipeline,
    refused: &PendingEvent,
    error: &DeliveryError,
) -> Result<(), StoreError> {
    let Event { id, at, device, kind } = &refused.event;
    let kind = kind.name();
    if !tells_of_one(refused) {
        let context = Tags::from([("refused_id".into(), id.to_string()), ("refused_event".into(), kind.into())]);
        let description = format!("the integration refused the event `{kind}`, which is not offered again: {error}");
        let event = Event {
            id: ident::log_id(device.dev_eui, "refused", DedupKey(id.as_u128()), *at),
            at: *at,
            device: device.clone(),
            kind: EventKind::Log(LogEvent { error: true, code: "UNKNOWN".into(), description, context }),
        };
        pipeline
            .store
            .put_pending(PendingEvent { part: refused.part | TOLD, event, refusals: 0, ..refused.clone() })
            .await?;
    }
    pipeline.store.delete_pending(refused).await?;
    pipeline.metrics.pending_dropped("refused", 1);
    if let Some(unsaid) = pipeline.refused_events.admit(pipeline.surroundings.now()) {
        let (application, dev_eui) = (&device.application_name, device.dev_eui);
        tracing::warn!(%application, %dev_eui, event = kind, %id, %error, unsaid, "an event was refused for good and set aside");
    }
    Ok(())
}
