//! What waits, and what may wait for one integration: of more than that the oldest go, counted and logged.

use std::time::Duration;

use limpet_shared::UnixMicros;
use limpet_store::{Backlog, PendingBounds, StoreError, Trimmed};

use crate::pipeline::Pipeline;

/// How often the backlog is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(15);
const EVENTS: u64 = 200_000;
const BYTES: u64 = 256 << 20;
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);

fn bounds(now: UnixMicros) -> PendingBounds {
    PendingBounds { events: EVENTS, bytes: BYTES, since: now - AGE }
}

fn is_beyond(of: &Backlog, bounds: &PendingBounds) -> bool {
    of.events > bounds.events || of.bytes > bounds.bytes || of.oldest < bounds.since
}

/// Tells what waits, and holds every integration's events to their bounds.
pub(super) async fn hold(pipeline: &Pipeline) -> Result<(), StoreError> {
    let now = pipeline.surroundings.now();
    let bounds = bounds(now);
    let backlog = pipeline.store.pending_backlog().await?;
    let waits = |of: &Backlog| (of.integration.0.to_string(), of.events, now.since(of.oldest).as_secs_f64());
    pipeline.metrics.waiting(backlog.iter().map(waits).collect());
    for of in backlog.iter().filter(|of| is_beyond(of, &bounds)) {
        let dropped = pipeline.store.trim_pending(of.integration, &bounds).await?;
        if dropped.events() > 0 {
            tell(pipeline, of, dropped).await;
        }
    }
    Ok(())
}

async fn tell(pipeline: &Pipeline, of: &Backlog, dropped: Trimmed) {
    let Trimmed { too_old, overflow } = dropped;
    pipeline.metrics.pending_dropped("too_old", too_old);
    pipeline.metrics.pending_dropped("overflow", overflow);
    let id = of.integration.0;
    // For its name alone.
    let application = pipeline.store.application(id).await.ok().flatten().map(|found| found.name).unwrap_or_default();
    tracing::error!(
        %application, application_id = %id, too_old, overflow, waiting = of.events, bytes = of.bytes,
        most = EVENTS, most_bytes = BYTES, most_days = AGE.as_secs() / 86_400,
        "too much waits for an integration: the oldest events were dropped"
    );
}

#[cfg(test)]
mod tests {
    use limpet_store::IntegrationId;

    use super::*;

    #[test]
    fn each_bound_counts_by_itself() {
        let now = UnixMicros(1_700_000_000_000_000);
        let bounds = bounds(now);
        let within =
            Backlog { integration: IntegrationId(uuid::Uuid::nil()), events: EVENTS, bytes: BYTES, oldest: now - AGE };
        assert!(!is_beyond(&within, &bounds));
        assert!(is_beyond(&Backlog { events: EVENTS + 1, ..within }, &bounds));
        assert!(is_beyond(&Backlog { bytes: BYTES + 1, ..within }, &bounds));
        assert!(is_beyond(&Backlog { oldest: within.oldest - Duration::from_micros(1), ..within }, &bounds));
    }
}
