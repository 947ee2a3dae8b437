//! The pending table: events whose integration was away, sent in order, by one worker at a time.

mod bounds;
mod refusal;
mod sending;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_store::StoreError;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use sending::Sending;

/// The lease that makes one worker the sender.
const LEASE: &str = "pending-events";
const LEASE_FOR: Duration = Duration::from_secs(3);
/// While nothing waits it lasts longer, for each renewal is a conditional write.
const IDLE_LEASE_FOR: Duration = Duration::from_secs(9);
/// How often the table is looked at.
const ROUND: Duration = Duration::from_millis(250);
/// How often who does not send asks whether it may.
const OTHERS_LOOK: Duration = Duration::from_secs(2);
/// What one look gives of an integration's devices.
const DEVICES: u32 = 512;
/// The right to send.
struct Lease {
    holder: String,
    /// Until then the store need not be asked.
    sure_until: Mutex<Instant>,
    idle: AtomicBool,
}

impl Lease {
    /// By this process's own clock, which runs on while it is stopped.
    async fn is_held(&self, pipeline: &Pipeline) -> Result<bool, StoreError> {
        let asked = Instant::now();
        if asked < *self.sure_until.lock() {
            return Ok(true);
        }
        let now = pipeline.surroundings.now();
        let lasts = if self.idle.load(Ordering::Relaxed) { IDLE_LEASE_FOR } else { LEASE_FOR };
        let held = pipeline.store.lease(LEASE, &self.holder, now, now + lasts).await?;
        if held {
            // Who was told that it has the lease has it for two thirds of its time at least.
            *self.sure_until.lock() = asked + lasts / 3;
        }
        Ok(held)
    }

    /// So that the next one need not wait for its end.
    async fn give_back(&self, pipeline: &Pipeline) {
        if Instant::now() < *self.sure_until.lock() + IDLE_LEASE_FOR {
            let now = pipeline.surroundings.now();
            if let Err(error) = pipeline.store.lease(LEASE, &self.holder, now, now).await {
                tracing::debug!(%error, "the right to send what waits ends by itself");
            }
        }
    }
}

/// Sends what waits, until told to stop.
pub async fn run(pipeline: Arc<Pipeline>, instance: u64, stop: CancellationToken) {
    let mut rounds = Rounds::new(pipeline.clone(), instance, stop.clone());
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = rounds.sending.one_ended() => continue,
            _ = ticks.tick() => {}
        }
        if let Err(error) = rounds.round().await {
            pipeline.metrics.store_error("pending", &error);
            tracing::debug!(%error, "could not look at the events that wait");
        }
    }
    rounds.end().await;
}

struct Rounds {
    pipeline: Arc<Pipeline>,
    lease: Arc<Lease>,
    sending: Sending,
    /// Another worker sends: nothing is looked at before.
    not_before: Instant,
    /// When the backlog was looked at last, and the task that does it.
    looked: Option<Instant>,
    look: JoinSet<()>,
}

impl Rounds {
    fn new(pipeline: Arc<Pipeline>, instance: u64, stop: CancellationToken) -> Self {
        let (now, holder) = (Instant::now(), format!("{}#{instance:016x}", pipeline.name));
        let lease = Arc::new(Lease { holder, sure_until: Mutex::new(now), idle: AtomicBool::new(false) });
        let sending = Sending::new(pipeline.clone(), lease.clone(), stop);
        Self { pipeline, lease, sending, not_before: now, looked: None, look: JoinSet::new() }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let pipeline = &self.pipeline;
        pipeline.metrics.integrations_failing(pipeline.troubles.count());
        if Instant::now() < self.not_before {
            return Ok(());
        }
        // Where that is known for less than a lease costs, nobody writes one as long as nothing waits.
        let may_have = pipeline.store.may_have_pending().await?;
        if !may_have || !self.lease.is_held(pipeline).await? {
            if may_have {
                self.not_before = Instant::now() + OTHERS_LOOK;
            }
            if self.looked.take().is_some() {
                pipeline.metrics.waiting(Vec::new());
            }
            return Ok(());
        }
        let aside = self.sending.aside();
        let found = pipeline.store.pending_turns(DEVICES, aside.clone()).await?;
        self.lease.idle.store(found.is_empty() && aside.is_empty() && self.sending.is_idle(), Ordering::Relaxed);
        self.sending.begin(found, aside).await;
        self.look_at_the_backlog();
        Ok(())
    }

    /// Beside the sending, for it may take long.
    fn look_at_the_backlog(&mut self) {
        while self.look.try_join_next().is_some() {}
        if self.look.is_empty() && self.looked.is_none_or(|looked| looked.elapsed() >= bounds::LOOK_EVERY) {
            self.looked = Some(Instant::now());
            let pipeline = self.pipeline.clone();
            self.look.spawn(async move {
                if let Err(error) = bounds::hold(&pipeline).await {
                    pipeline.metrics.store_error("pending_backlog", &error);
                    tracing::debug!(%error, "could not look at how much waits");
                }
            });
        }
    }

    async fn end(self) {
        self.sending.end().await;
        self.lease.give_back(&self.pipeline).await;
    }
}
