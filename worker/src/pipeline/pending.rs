//! The pending table: events whose integration was away, sent in order, by one worker at a time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use limpet_shared::Eui64;
use limpet_store::{IntegrationId, StoreError};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Pipeline;

/// The lease that makes one worker the sender.
const LEASE: &str = "pending-events";
const LEASE_FOR: Duration = Duration::from_secs(3);
/// Who was told that it has the lease has it for two thirds of its time at least; it asks again after one.
const SURE_FOR: Duration = Duration::from_secs(1);
/// How often the table is looked at.
const ROUND: Duration = Duration::from_millis(250);
/// Devices served in one round, and at one moment.
const DEVICES: u32 = 256;
const AT_ONCE: usize = 16;
/// Events of one device sent in one turn.
const BATCH: u32 = 32;
/// An integration has this long to take a waiting event.
const LIMIT: Duration = Duration::from_secs(5);
/// Pauses after an integration failed: doubled up to the second number.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Events kept for one integration at most; the oldest go first, counted and logged.
const KEEP: u64 = 200_000;
/// How often the tables' sizes are held to that.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// An integration that failed, and when it is tried again.
#[derive(Clone, Copy)]
struct Backoff {
    pause: Duration,
    until: Instant,
}

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
    let mut backoff: HashMap<IntegrationId, Backoff> = HashMap::new();
    let mut trimmed = Instant::now();
    while !stop.is_cancelled() {
        if let Err(error) = round(&pipeline, &lease, &mut backoff, &mut trimmed).await {
            pipeline.metrics.store_error("pending", &error);
            tracing::debug!(%error, "could not look at the events that wait");
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn round(
    pipeline: &Arc<Pipeline>,
    lease: &Arc<Lease>,
    backoff: &mut HashMap<IntegrationId, Backoff>,
    trimmed: &mut Instant,
) -> Result<(), StoreError> {
    // As long as nothing waits, which is nearly always, nobody writes a lease; and only its holder looks at what waits.
    if !pipeline.store.may_have_pending().await? || !lease.is_held(pipeline).await? {
        return Ok(());
    }
    let devices = pipeline.store.pending_devices(DEVICES).await?;
    let now = Instant::now();
    backoff.retain(|_, b| now < b.until + PAUSE.1);
    let mut turns = JoinSet::new();
    let mut waiting = devices.into_iter();
    loop {
        while turns.len() < AT_ONCE
            && let Some((integration, device)) = waiting.next()
        {
            if backoff.get(&integration).is_none_or(|b| Instant::now() >= b.until) {
                let (pipeline, lease) = (pipeline.clone(), lease.clone());
                turns.spawn(async move { (integration, turn(&pipeline, &lease, integration, device).await) });
            }
        }
        let Some(Ok((integration, result))) = turns.join_next().await else { break };
        match result {
            Ok(true) => drop(backoff.remove(&integration)),
            Ok(false) => back_off(backoff, integration),
            Err(error) => pipeline.metrics.store_error("pending", &error),
        }
    }
    if now >= *trimmed + TRIM_EVERY {
        *trimmed = now;
        trim(pipeline).await?;
    }
    Ok(())
}

fn back_off(backoff: &mut HashMap<IntegrationId, Backoff>, integration: IntegrationId) {
    let now = Instant::now();
    let pause = match backoff.get(&integration) {
        // Turns that were under way when the pause began fail with it; they do not lengthen it.
        Some(b) if now < b.until => return,
        Some(b) => (b.pause * 2).min(PAUSE.1),
        None => PAUSE.0,
    };
    backoff.insert(integration, Backoff { pause, until: now + pause });
}

/// A device's turn: its events in order, each deleted by its key once it was taken. False if the integration failed.
async fn turn(
    pipeline: &Pipeline,
    lease: &Lease,
    integration: IntegrationId,
    device: Eui64,
) -> Result<bool, StoreError> {
    let http = pipeline.store.application(integration.0).await?.and_then(|a| a.http);
    for waiting in pipeline.store.pending(integration, device, BATCH).await? {
        let Some(http) = &http else {
            // The integration was removed: there is nobody to tell.
            pipeline.metrics.pending_dropped("integration_removed", 1);
            pipeline.store.delete_pending(&waiting).await?;
            continue;
        };
        // Asked before each event: a pause of this process must not make two senders for longer than one event.
        if !lease.is_held(pipeline).await? {
            return Ok(true);
        }
        if let Err(error) = pipeline.deliver.deliver(http, &waiting.event, LIMIT).await {
            pipeline.metrics.delivery_failed();
            tracing::debug!(dev_eui = %device, %error, "an event goes on waiting");
            return Ok(false);
        }
        pipeline.metrics.delivered(&waiting.event.kind);
        pipeline.store.delete_pending(&waiting).await?;
    }
    Ok(true)
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
