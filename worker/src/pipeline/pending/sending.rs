//! Whose events are being sent now. Each integration has its own share of what goes on at one moment, and less of it while
//! it fails, so that it holds up nobody else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use limpet_shared::Eui64;
use limpet_store::{IntegrationId, StoreError};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Lease,
    refusal::{Refusal, set_aside},
};
use crate::pipeline::Pipeline;

/// Turns at one moment: of all, of one integration, and of those that fail together, each of which is tried with one.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_ONE: usize = 16;
const TRIED_AT_ONCE: usize = 16;
/// Events of one device sent in one turn.
const BATCH: u32 = 32;
/// An integration has this long to take a waiting event.
const LIMIT: Duration = Duration::from_secs(5);
/// Pauses after an integration failed: doubled up to the second number.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

type Device = (IntegrationId, Eui64);

/// An integration that failed, and when it is tried again.
struct Backoff {
    pause: Duration,
    until: Instant,
}

/// How a device's turn ended.
enum Ended {
    /// With all of it sent, or by losing the lease.
    Well { delivered: bool },
    /// The integration takes nothing now.
    Failed,
    /// The integration does not want the first event that waits.
    Refused(Refusal),
}

pub(super) struct Sending {
    pipeline: Arc<Pipeline>,
    lease: Arc<Lease>,
    stop: CancellationToken,
    turns: JoinSet<(Device, Result<Ended, StoreError>)>,
    under_way: HashSet<Device>,
    backoff: HashMap<IntegrationId, Backoff>,
    refused: HashMap<Device, Refusal>,
    /// Of the last look, those that had no turn yet.
    waiting: Vec<Device>,
}

impl Sending {
    pub fn new(pipeline: Arc<Pipeline>, lease: Arc<Lease>, stop: CancellationToken) -> Self {
        let (turns, under_way, backoff, refused, waiting) = Default::default();
        Self { pipeline, lease, stop, turns, under_way, backoff, refused, waiting }
    }

    fn turns_of(&self, integration: IntegrationId) -> usize {
        self.under_way.iter().filter(|(of, _)| *of == integration).count()
    }

    fn has_room(&self, integration: IntegrationId) -> bool {
        let mine = self.turns_of(integration);
        match self.backoff.get(&integration) {
            None => mine < AT_ONCE_OF_ONE,
            Some(backoff) => {
                let failing = self.under_way.iter().filter(|(of, _)| self.backoff.contains_key(of)).count();
                mine == 0 && Instant::now() >= backoff.until && failing < TRIED_AT_ONCE
            }
        }
    }

    /// Integrations that get no turn now.
    pub fn aside(&self) -> Vec<IntegrationId> {
        let known: HashSet<_> = self.under_way.iter().map(|(of, _)| *of).chain(self.backoff.keys().copied()).collect();
        known.into_iter().filter(|of| !self.has_room(*of)).collect()
    }

    /// What a look has found: it begins with as many as there is room for, and goes on as turns end.
    pub fn begin(&mut self, waiting: Vec<Device>) {
        let now = Instant::now();
        self.backoff.retain(|_, backoff| now < backoff.until + 2 * PAUSE.1);
        self.refused.retain(|_, refusal| now < refusal.until + PAUSE.1);
        self.waiting = waiting;
        self.fill();
    }

    fn fill(&mut self) {
        let now = Instant::now();
        for device in std::mem::take(&mut self.waiting) {
            let aside = self.refused.get(&device).is_some_and(|refusal| now < refusal.until);
            if aside || self.under_way.contains(&device) {
                continue;
            }
            if self.turns.len() < AT_ONCE && self.has_room(device.0) {
                self.start(device);
            } else {
                self.waiting.push(device);
            }
        }
    }

    fn start(&mut self, device: Device) {
        self.under_way.insert(device);
        let turn = Turn {
            pipeline: self.pipeline.clone(),
            lease: self.lease.clone(),
            stop: self.stop.clone(),
            device,
            refused: self.refused.get(&device).cloned(),
        };
        self.turns.spawn(async move { (device, turn.run().await) });
    }

    /// Waits until a turn has ended; for ever if there is none.
    pub async fn one_ended(&mut self) {
        match self.turns.join_next().await {
            Some(Ok((device, ended))) => {
                self.note(device, ended);
                self.fill();
            }
            Some(Err(error)) => {
                // Whose turn it was is not known: they all begin anew.
                tracing::error!(%error, "sending events broke off");
                self.turns.abort_all();
                while self.turns.join_next().await.is_some() {}
                self.under_way.clear();
            }
            None => std::future::pending().await,
        }
    }

    fn note(&mut self, device: Device, ended: Result<Ended, StoreError>) {
        self.under_way.remove(&device);
        match ended {
            Ok(Ended::Well { delivered }) => {
                self.refused.remove(&device);
                if delivered {
                    self.backoff.remove(&device.0);
                }
            }
            Ok(Ended::Failed) => self.back_off(device.0),
            Ok(Ended::Refused(refusal)) => {
                // It answers, so it is there.
                self.backoff.remove(&device.0);
                self.refused.insert(device, refusal);
            }
            Err(error) => self.pipeline.metrics.store_error("pending", &error),
        }
    }

    fn back_off(&mut self, integration: IntegrationId) {
        let now = Instant::now();
        let pause = match self.backoff.get(&integration) {
            // Turns that were under way when the pause began fail with it; they do not lengthen it.
            Some(backoff) if now < backoff.until => return,
            Some(backoff) => (backoff.pause * 2).min(PAUSE.1),
            None => PAUSE.0,
        };
        self.backoff.insert(integration, Backoff { pause, until: now + pause });
    }

    /// Turns end after the event that they are at.
    pub async fn end(mut self) {
        while self.turns.join_next().await.is_some() {}
    }
}

/// A device's turn: its events in order, each deleted by its key once it was taken.
struct Turn {
    pipeline: Arc<Pipeline>,
    lease: Arc<Lease>,
    stop: CancellationToken,
    device: Device,
    /// What is known of the first one from an earlier turn.
    refused: Option<Refusal>,
}

impl Turn {
    async fn run(self) -> Result<Ended, StoreError> {
        let (pipeline, (integration, device)) = (&self.pipeline, self.device);
        let mut delivered = false;
        let http = pipeline.store.application(integration.0).await?.and_then(|a| a.http);
        for waiting in pipeline.store.pending(integration, device, BATCH).await? {
            let Some(http) = &http else {
                // The integration was removed: there is nobody to tell.
                pipeline.metrics.pending_dropped("integration_removed", 1);
                pipeline.store.delete_pending(&waiting).await?;
                continue;
            };
            // Asked before each event: a pause of this process must not make two senders for longer than one event.
            if self.stop.is_cancelled() || !self.lease.is_held(pipeline).await? {
                break;
            }
            match pipeline.deliver.deliver(http, &waiting.event, LIMIT).await {
                Ok(()) => {
                    pipeline.metrics.delivered(&waiting.event.kind);
                    pipeline.troubles.took(&waiting.event.device);
                    delivered = true;
                    pipeline.store.delete_pending(&waiting).await?;
                }
                Err(error) if error.is_verdict() => {
                    pipeline.metrics.delivery_failed();
                    let refusal = Refusal::again(self.refused.as_ref(), &waiting);
                    if !refusal.is_final() {
                        return Ok(Ended::Refused(refusal));
                    }
                    set_aside(pipeline, &waiting, &error).await?;
                    // What tells of it stands in its place now, and was not read.
                    break;
                }
                Err(error) => {
                    pipeline.metrics.delivery_failed();
                    pipeline.troubles.failed(&waiting.event.device, &error);
                    tracing::debug!(dev_eui = %device, %error, "an event goes on waiting");
                    return Ok(Ended::Failed);
                }
            }
        }
        Ok(Ended::Well { delivered })
    }
}
