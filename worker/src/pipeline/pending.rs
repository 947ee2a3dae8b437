//! The pending table: events whose integration was away, sent in order, by one worker at a time.

mod refusal;
mod sending;

use std::{sync::Arc, time::Duration};

use limpet_store::StoreError;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use sending::Sending;

/// The lease that makes one worker the sender.
const LEASE: &str = "pending-events";
const LEASE_FOR: Duration = Duration::from_secs(3);
/// Who was told that it has the lease has it for two thirds of its time at least; it asks again after one.
const SURE_FOR: Duration = Duration::from_secs(1);
/// How often the table is looked at.
const ROUND: Duration = Duration::from_millis(250);
/// What one look gives of an integration's devices.
const DEVICES: u32 = 512;
/// Events kept for one integration at most; the oldest go first, counted and logged.
const KEEP: u64 = 200_000;
/// How often the tables' sizes are held to that.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// The right to send.
struct Lease {
    holder: String,
    /// Until then the store need not be asked.
    sure_until: Mutex<Instant>,
}

impl Lease {
    /// By this process's own clock, which runs on while it is stopped.
    async fn is_held(&self, pipeline: &Pipeline) -> Result<bool, StoreError> {
        let asked = Instant::now();
        if asked < *self.sure_until.lock() {
            return Ok(true);
        }
        let now = pipeline.surroundings.now();
        let held = pipeline.store.lease(LEASE, &self.holder, now, now + LEASE_FOR).await?;
        if held {
            *self.sure_until.lock() = asked + SURE_FOR;
        }
        Ok(held)
    }
}

/// Sends what waits, until told to stop.
pub async fn run(pipeline: Arc<Pipeline>, instance: u64, stop: CancellationToken) {
    let holder = format!("{}#{instance:016x}", pipeline.name);
    let lease = Arc::new(Lease { holder, sure_until: Mutex::new(Instant::now()) });
    let mut sending = Sending::new(pipeline.clone(), lease.clone(), stop.clone());
    let mut trimmed = Instant::now();
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = sending.one_ended() => continue,
            _ = rounds.tick() => {}
        }
        if let Err(error) = round(&pipeline, &lease, &mut sending, &mut trimmed).await {
            pipeline.metrics.store_error("pending", &error);
            tracing::debug!(%error, "could not look at the events that wait");
        }
    }
    sending.end().await;
}

async fn round(
    pipeline: &Arc<Pipeline>,
    lease: &Arc<Lease>,
    sending: &mut Sending,
    trimmed: &mut Instant,
) -> Result<(), StoreError> {
    pipeline.metrics.integrations_failing(pipeline.troubles.count());
    // As long as nothing waits, which is nearly always, nobody writes a lease; and only its holder looks at what waits.
    if !pipeline.store.may_have_pending().await? || !lease.is_held(pipeline).await? {
        return Ok(());
    }
    sending.begin(pipeline.store.pending_turns(DEVICES, sending.aside()).await?);
    if trimmed.elapsed() >= TRIM_EVERY {
        *trimmed = Instant::now();
        trim(pipeline).await?;
    }
    Ok(())
}

/// Holds every integration's waiting events to their bound.
async fn trim(pipeline: &Pipeline) -> Result<(), StoreError> {
    let mut seen = std::collections::HashSet::new();
    for (integration, _) in pipeline.store.pending_devices(DEVICES).await? {
        if !seen.insert(integration) {
            continue;
        }
        let dropped = pipeline.store.trim_pending(integration, KEEP).await?;
        if dropped > 0 {
            pipeline.metrics.pending_dropped("overflow", dropped);
            tracing::error!(integration = %integration.0, dropped, keep = KEEP, "too many events wait: the oldest were dropped");
        }
    }
    Ok(())
}
