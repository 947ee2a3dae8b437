//! The pending table: events whose integration was away, sent in order, by one worker at a time.

mod addresses;
mod bounds;
mod counted;
mod parting;
mod refusal;
mod sending;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_link::host::{self, Rule};
use limpet_shared::UnixMicros;
use limpet_store::StoreError;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub(super) use self::refusal::COMPLAINT;
pub(crate) use self::{addresses::Addresses, counted::Counted};
use super::Pipeline;
use sending::Sending;

/// The lease that makes one worker the sender.
const LEASE: &str = "pending-events";
const LEASE_FOR: Duration = Duration::from_secs(3);
/// While nothing waits it lasts longer, for each renewal is a conditional write.
const IDLE_LEASE_FOR: Duration = Duration::from_secs(9);
/// How often the table is looked at.
const ROUND: Duration = Duration::from_millis(250);
/// The same while nothing waits as far as this worker knows: it is told of what it has put there itself.
const QUIET_ROUND: Duration = Duration::from_secs(1);
/// How often who does not send asks whether it may.
const OTHERS_LOOK: Duration = Duration::from_secs(2);
/// What one look gives of an integration's devices.
const DEVICES: u32 = 512;
/// The right to send.
struct Lease {
    holder: String,
    /// Until then the store need not be asked.
    sure_until: Mutex<Instant>,
    /// All turns ask when that is over, and one asks the store for all.
    asking: tokio::sync::Mutex<()>,
    idle: AtomicBool,
}

impl Lease {
    /// By this process's own clock, which runs on while it is stopped.
    async fn is_held(&self, pipeline: &Pipeline) -> Result<bool, StoreError> {
        if Instant::now() < *self.sure_until.lock() || !host::keeps(Rule::OneSender) {
            return Ok(true);
        }
        let _one = self.asking.lock().await;
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

    /// Whether who sends goes on with the next event.
    async fn goes_on(&self, pipeline: &Pipeline, stop: &CancellationToken) -> Result<bool, StoreError> {
        Ok(!stop.is_cancelled() && self.is_held(pipeline).await?)
    }

    /// So that the next one need not wait for its end.
    async fn give_back(&self, pipeline: &Pipeline) {
        if Instant::now() < *self.sure_until.lock() + IDLE_LEASE_FOR {
            // Over by everybody's clock, however far behind this one's.
            let (now, over) = (pipeline.surroundings.now(), UnixMicros::default());
            if let Err(error) = pipeline.store.lease(LEASE, &self.holder, now, over).await {
                tracing::debug!(%error, "the right to send what waits ends by itself");
            }
        }
    }
}

/// Sends what waits, until told to stop.
pub async fn run(pipeline: Arc<Pipeline>, instance: u64, stop: CancellationToken) {
    let mut rounds = Rounds::new(pipeline.clone(), instance, stop.clone());
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = rounds.sending.one_ended() => continue,
            () = pipeline.waiting.notified() => {
                next = next.min(Instant::now() + ROUND);
                continue;
            }
            () = tokio::time::sleep_until(next) => {}
        }
        let pause = rounds.round().await.unwrap_or_else(|error| {
            pipeline.metrics.store_error("pending", &error);
            tracing::debug!(%error, "could not look at the events that wait");
            ROUND
        });
        // While nothing waits there is no hurry.
        next = if pause < QUIET_ROUND { Instant::now() + pause } else { pipeline.beat.next(pause) };
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
    seen: Arc<Mutex<bounds::Seen>>,
}

impl Rounds {
    fn new(pipeline: Arc<Pipeline>, instance: u64, stop: CancellationToken) -> Self {
        let (now, holder) = (Instant::now(), format!("{}#{instance:016x}", pipeline.name));
        let (asking, idle) = Default::default();
        let lease = Arc::new(Lease { holder, sure_until: Mutex::new(now), asking, idle });
        let sending = Sending::new(pipeline.clone(), lease.clone(), stop);
        let (looked, look, seen) = Default::default();
        Self { pipeline, lease, sending, not_before: now, looked, look, seen }
    }

    /// Returns after what time the next one is due.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        let pipeline = &self.pipeline;
        pipeline.metrics.integrations_failing(pipeline.troubles.count());
        let others = self.not_before.saturating_duration_since(Instant::now());
        if !others.is_zero() {
            return Ok(others);
        }
        // Where that is known for less than a lease costs, nobody writes one as long as nothing waits.
        let may_have = pipeline.store.may_have_pending().await?;
        if !may_have || !self.lease.is_held(pipeline).await? {
            self.forget_the_backlog();
            if !may_have {
                return Ok(QUIET_ROUND);
            }
            self.not_before = Instant::now() + OTHERS_LOOK;
            return Ok(OTHERS_LOOK);
        }
        let aside = self.sending.aside();
        let found = pipeline.store.pending_turns(DEVICES, aside.clone()).await?;
        let idle = found.is_empty() && aside.is_empty() && self.sending.is_idle();
        if idle && !self.lease.idle.swap(idle, Ordering::Relaxed) {
            // All of it was sent: whoever looks at the numbers need not wait for the next time.
            self.looked = None;
        }
        self.lease.idle.store(idle, Ordering::Relaxed);
        self.sending.begin(found, aside).await;
        self.look_at_the_backlog();
        Ok(if idle { QUIET_ROUND } else { ROUND })
    }

    /// Another worker tells. A look that is under way here ends later, and what it finds is forgotten then.
    fn forget_the_backlog(&mut self) {
        let looks = !self.look.is_empty();
        while self.look.try_join_next().is_some() {}
        if self.looked.take().is_some() || looks {
            self.pipeline.counted.forget();
            self.pipeline.metrics.waiting(Vec::new());
            *self.seen.lock() = bounds::Seen::default();
        }
    }

    /// Beside the sending, for it may take long.
    fn look_at_the_backlog(&mut self) {
        while self.look.try_join_next().is_some() {}
        if self.look.is_empty() && self.looked.is_none_or(|looked| looked.elapsed() >= bounds::LOOK_EVERY) {
            self.looked = Some(Instant::now());
            let (pipeline, seen) = (self.pipeline.clone(), self.seen.clone());
            self.look.spawn(async move {
                if let Err(error) = bounds::hold(&pipeline, &seen).await {
                    pipeline.metrics.store_error("pending_backlog", &error);
                    tracing::debug!(%error, "could not look at how much waits");
                }
            });
        }
    }

    async fn end(mut self) {
        self.forget_the_backlog();
        self.sending.end().await;
        self.lease.give_back(&self.pipeline).await;
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::Eui64;
    use limpet_store::{FrameStore, IntegrationId, SqliteStore};
    use limpet_store_testing::{
        conformance::Samples,
        fault::{FaultStore, Faults},
    };
    use uuid::Uuid;

    use super::*;
    use crate::pipeline::tests::Net;

    #[tokio::test(start_paused = true)]
    async fn many_turns_that_ask_at_a_time_ask_the_store_once() {
        let net = Net::new("eu868", 0).await;
        let delay = Duration::from_millis(20);
        let store = FaultStore::new(net.store.clone(), 1, Faults { delay, ..Faults::default() });
        let rounds = Rounds::new(net.worker_over("w0", store.clone()), 1, CancellationToken::new());
        let ask = || async { rounds.lease.is_held(&rounds.pipeline).await };
        for asked in 1..4 {
            let held = futures_util::future::join_all((0..80).map(|_| ask())).await;
            assert!(held.into_iter().all(|held| held == Ok(true)));
            assert_eq!(store.asked().writes, asked);
            tokio::time::sleep(LEASE_FOR).await;
        }
    }

    /// The lease went to another while the look was under way.
    #[tokio::test(start_paused = true)]
    async fn a_look_that_ends_late_leaves_no_numbers_of_what_another_sends() {
        let net = Net::new("eu868", 0).await;
        let rounds = &mut Rounds::new(net.worker("w0"), 1, CancellationToken::new());
        net.store.put_pending(Samples::new().pending(IntegrationId(Uuid::nil()), Eui64(1), 1)).await.unwrap();
        let shown = |rounds: &Rounds| {
            (rounds.pipeline.metrics.text().contains("application="), rounds.pipeline.counted.told().is_some())
        };
        rounds.look_at_the_backlog();
        rounds.forget_the_backlog();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shown(rounds), (true, true), "it has ended");
        rounds.forget_the_backlog();
        assert_eq!(shown(rounds), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_leaves_the_lease_to_others_at_once_though_their_clocks_are_behind() {
        let net = Net::new("eu868", 0).await;
        let Rounds { pipeline, lease, .. } = Rounds::new(net.worker("w0"), 1, CancellationToken::new());
        assert!(lease.is_held(&pipeline).await.unwrap());
        let behind = pipeline.surroundings.now() - Duration::from_secs(15);
        assert!(!net.store.lease(LEASE, "b", behind, behind + LEASE_FOR).await.unwrap());
        lease.give_back(&pipeline).await;
        assert!(net.store.lease(LEASE, "b", behind, behind + LEASE_FOR).await.unwrap());
    }

    /// The clock of who held it before was a day ahead.
    #[tokio::test(start_paused = true)]
    async fn a_lease_from_a_clock_that_was_ahead_ends_within_a_minute() {
        let net = Net::new("eu868", 0).await;
        let (store, now) = (SqliteStore::in_memory().unwrap(), net.worker("w").surroundings.now());
        let day = Duration::from_secs(86_400);
        assert!(store.lease(LEASE, "a", now + day, now + day + LEASE_FOR).await.unwrap());
        let rounds = Rounds::new(net.worker_over("w0", store), 1, CancellationToken::new());
        let mut waited = 0;
        while !rounds.lease.is_held(&rounds.pipeline).await.unwrap() {
            tokio::time::sleep(OTHERS_LOOK).await;
            waited += OTHERS_LOOK.as_secs();
            assert!(waited < 60, "nobody sends for a day");
        }
        assert!(waited > IDLE_LEASE_FOR.as_secs(), "whoever holds it would have renewed it");
    }
}
