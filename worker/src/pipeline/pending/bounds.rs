//! What waits, and what may wait for one integration: of more than that the oldest go, counted and logged.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use limpet_shared::UnixMicros;
use limpet_store::{Backlog, IntegrationId, PendingBounds, StoreError, Trimmed};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::addresses::Address;
use crate::pipeline::Pipeline;

/// How often the backlog is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(15);
const EVENTS: u64 = 200_000;
const BYTES: u64 = 256 << 20;
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Age is what clocks say, which may jump, or be another worker's that is wrong. It counts only where this process itself has seen
/// something wait for so long.
const SEEN_FOR: Duration = Duration::from_secs(24 * 3600);

/// Since when this process has seen, without a break, that something waits for an integration.
#[derive(Default)]
pub(super) struct Seen(HashMap<IntegrationId, Instant>);

impl Seen {
    fn see(&mut self, backlog: &[Backlog], now: Instant) {
        let there: HashSet<_> = backlog.iter().map(|of| of.integration).collect();
        self.0.retain(|of, _| there.contains(of));
        for of in there {
            self.0.entry(of).or_insert(now);
        }
    }

    /// What may wait for it.
    fn bounds(&self, of: IntegrationId, now: UnixMicros, steady: Instant) -> PendingBounds {
        let is_seen = self.0.get(&of).is_some_and(|since| steady - *since >= SEEN_FOR);
        PendingBounds { events: EVENTS, bytes: BYTES, since: if is_seen { now - AGE } else { UnixMicros(0) } }
    }
}

fn is_beyond(of: &Backlog, bounds: &PendingBounds) -> bool {
    of.events > bounds.events || of.bytes > bounds.bytes || of.oldest < bounds.since
}

/// Tells what waits, and holds every integration's events to their bounds.
pub(super) async fn hold(pipeline: &Pipeline, seen: &Mutex<Seen>) -> Result<(), StoreError> {
    let (now, steady) = (pipeline.surroundings.now(), Instant::now());
    let backlog = pipeline.store.pending_backlog().await?;
    let waits = |of: &Backlog| {
        let Address { application_id, endpoint, .. } = pipeline.addresses.of(of.integration);
        ((application_id.to_string(), endpoint), of.events, now.since(of.oldest).as_secs_f64())
    };
    pipeline.metrics.waiting(backlog.iter().map(waits).collect());
    pipeline.counted.set(backlog.clone());
    seen.lock().see(&backlog, steady);
    let mut held = Ok(());
    for of in &backlog {
        let bounds = seen.lock().bounds(of.integration, now, steady);
        if !is_beyond(of, &bounds) {
            continue;
        }
        match pipeline.store.trim_pending(of.integration, &bounds).await {
            Ok(dropped) if dropped.events() > 0 => tell(pipeline, of, dropped),
            Ok(_) => {}
            // The others are held to theirs.
            Err(error) => held = Err(error),
        }
    }
    held
}

fn tell(pipeline: &Pipeline, of: &Backlog, dropped: Trimmed) {
    let Trimmed { too_old, overflow } = dropped;
    pipeline.metrics.pending_dropped("too_old", too_old);
    pipeline.metrics.pending_dropped("overflow", overflow);
    let Address { application, application_id, endpoint } = pipeline.addresses.of(of.integration);
    tracing::error!(
        application, %application_id, endpoint, integration = %of.integration.0, too_old, overflow, waiting = of.events, bytes = of.bytes,
        most = EVENTS, most_bytes = BYTES, most_days = AGE.as_secs() / 86_400,
        "too much waits for an integration: the oldest events were dropped"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: IntegrationId = IntegrationId(uuid::Uuid::nil());
    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn each_bound_counts_by_itself() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let within = Backlog { integration: OF, events: EVENTS, bytes: BYTES, oldest: NOW - AGE };
        seen.see(&[within], began);
        let bounds = seen.bounds(OF, NOW, began + SEEN_FOR);
        assert!(!is_beyond(&within, &bounds));
        assert!(is_beyond(&Backlog { events: EVENTS + 1, ..within }, &bounds));
        assert!(is_beyond(&Backlog { bytes: BYTES + 1, ..within }, &bounds));
        assert!(is_beyond(&Backlog { oldest: within.oldest - Duration::from_micros(1), ..within }, &bounds));
    }

    /// The clock stood years behind when they were put, and was set a moment ago; or another worker's stands so.
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_seconds_is_not_too_old_whatever_clocks_say() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let years_old = Backlog { integration: OF, events: 1, bytes: 1, oldest: UnixMicros(1) };
        let too_old = |seen: &Seen, at| is_beyond(&years_old, &seen.bounds(OF, NOW, at));
        seen.see(&[years_old], began);
        assert!(!too_old(&seen, began + Duration::from_secs(15)));
        let (gone, again) = (began + SEEN_FOR / 2, began + SEEN_FOR);
        seen.see(&[], gone);
        seen.see(&[years_old], again);
        assert!(!too_old(&seen, again + SEEN_FOR - Duration::from_secs(1)));
        assert!(too_old(&seen, again + SEEN_FOR));
    }
}
