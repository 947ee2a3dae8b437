//! How many requests are with the database at once. A database that has more to do than it can answers everything late;
//! then deadlines pass, the same is asked again, and it has even more to do. So what it cannot take waits here, where
//! waiting costs nothing, and a request's deadline begins when the database gets it. A database that is slow even with the
//! least is not asked the same twice beside it either, see [`Patience`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use scylla::policies::speculative_execution::{Context, SpeculativeExecutionPolicy};
use tokio::{sync::Semaphore, time::Instant};

/// Requests at once: at the start, and the bounds. The least leaves room for what runs into its deadline all the same: three
/// servers that ask again for all that was left undone must not be more than nodes can do that have just started.
const FIRST: usize = 64;
const LEAST: usize = 4;
const MOST: usize = 1_024;
/// How often the number is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// And after how many answers at least: of fewer a single one would say what most of them were like.
const ENOUGH: u32 = 8;
/// A database most of whose answers take longer has too much to do: longer than this, and than so many times what the quickest
/// ever took, for a quorum may be far away. Most, for those of one node that has frozen say nothing of the others.
const SLOW: Duration = Duration::from_millis(100);
const TIMES_QUICKEST: u32 = 4;
/// What has no answer after this is asked of one more node, the first answer counts. Not earlier and not more.
const SPECULATE: Duration = Duration::from_millis(150);

/// See the module.
pub(super) struct Gate {
    room: Semaphore,
    limit: Mutex<Limit>,
    /// Somebody had to wait since the last look.
    was_full: AtomicBool,
    patience: Arc<Patience>,
}

/// Asks one more node where the first one is late, as when it has frozen; but not while the database as a whole is, which would
/// have twice to do then.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How many gates are down to the least.
    strained: AtomicUsize,
}

impl SpeculativeExecutionPolicy for Patience {
    fn max_retry_count(&self, _: &Context) -> usize {
        usize::from(self.strained.load(Ordering::Relaxed) == 0)
    }

    fn retry_interval(&self, _: &Context) -> Duration {
        SPECULATE
    }
}

/// What was measured since the last look, and the number that followed from the looks so far.
struct Limit {
    allowed: usize,
    /// Permits that are in use and not wanted back.
    surplus: usize,
    answers: u32,
    late: u32,
    quickest: Duration,
    looked: Instant,
}

impl Gate {
    pub fn new(patience: Arc<Patience>) -> Self {
        let looked = Instant::now();
        let limit = Limit { allowed: FIRST, surplus: 0, answers: 0, late: 0, quickest: Duration::MAX, looked };
        Self { room: Semaphore::new(FIRST), limit: Mutex::new(limit), was_full: AtomicBool::new(false), patience }
    }

    /// Runs the request as soon as there is room for it.
    pub async fn through<T>(&self, request: impl Future<Output = T>) -> T {
        let place = match self.room.try_acquire() {
            Ok(place) => Ok(place),
            Err(_) => {
                self.was_full.store(true, Ordering::Relaxed);
                self.room.acquire().await
            }
        };
        let began = Instant::now();
        let answer = request.await;
        // The semaphore is never closed.
        if let Ok(place) = place {
            let mut limit = self.limit.lock();
            limit.note(began.elapsed());
            if limit.looked.elapsed() >= LOOK_EVERY && limit.answers >= ENOUGH {
                let was_strained = limit.is_least();
                let more = limit.look(self.was_full.swap(false, Ordering::Relaxed));
                self.room.add_permits(more);
                match (was_strained, limit.is_least()) {
                    (false, true) => _ = self.patience.strained.fetch_add(1, Ordering::Relaxed),
                    (true, false) => _ = self.patience.strained.fetch_sub(1, Ordering::Relaxed),
                    _ => {}
                }
            }
            if limit.surplus > 0 {
                limit.surplus -= 1;
                place.forget();
            }
        }
        answer
    }
}

impl Limit {
    fn is_least(&self) -> bool {
        self.allowed == LEAST
    }

    fn note(&mut self, took: Duration) {
        self.quickest = self.quickest.min(took);
        self.answers += 1;
        self.late += u32::from(took > SLOW.max(self.quickest.saturating_mul(TIMES_QUICKEST)));
    }

    /// Sets the number anew: down by a fifth if the database is slow, up by a quarter if it is not and there was no
    /// room, or less than at the start. Returns how many permits are to be added; those to be taken away are `surplus`.
    fn look(&mut self, was_full: bool) -> usize {
        let before = self.allowed;
        if self.late > self.answers / 2 {
            self.allowed = (before * 4 / 5).max(LEAST);
        } else if was_full {
            self.allowed = (before * 5 / 4).min(MOST);
        } else if before < FIRST {
            // With few requests there is room always; they are not to find a gate that is narrow since a bad hour.
            self.allowed = (before * 5 / 4).min(FIRST);
        }
        (self.answers, self.late, self.looked) = (0, 0, Instant::now());
        self.surplus += before.saturating_sub(self.allowed);
        let more = self.allowed.saturating_sub(before);
        let kept = more.min(self.surplus);
        self.surplus -= kept;
        more - kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that does `rate` requests a second one after the other, asked by `clients` without pause. Returns how
    /// long its answers took at the end, and how many it gave.
    async fn answers(rate: u32, clients: usize) -> (Duration, u32) {
        let gate = Arc::new(Gate::new(Arc::default()));
        let server = Arc::new(tokio::sync::Mutex::new(()));
        let seen = Arc::new(Mutex::new((Duration::ZERO, 0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let (gate, server, seen) = (gate.clone(), server.clone(), seen.clone());
            tasks.spawn(async move {
                loop {
                    let request = async {
                        let asked = Instant::now();
                        let turn = server.lock().await;
                        tokio::time::sleep(Duration::from_secs(1) / rate).await;
                        drop(turn);
                        let mut seen = seen.lock();
                        *seen = (asked.elapsed(), seen.1 + 1);
                    };
                    gate.through(request).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        *seen.lock()
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_database_still_answers_soon_and_works_without_pause() {
        let (took, answered) = answers(200, 2_000).await;
        assert!(took < SLOW * 2, "2,000 requests at once would take 10 s each; took {took:?}");
        assert!(answered > 200 * 30 * 9 / 10, "{answered}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_far_away_is_not_a_slow_one() {
        let gate = Gate::new(Arc::default());
        for _ in 0..100 {
            gate.through(tokio::time::sleep(SLOW * 2)).await;
        }
        assert_eq!(gate.limit.lock().allowed, FIRST);
    }

    /// All that are asked run into their deadline: few more are asked then, and none of them of two nodes. It ends when that does.
    #[tokio::test(start_paused = true)]
    async fn a_database_that_answers_nothing_in_time_gets_little_to_do_until_it_does() {
        let patience = Arc::new(Patience::default());
        let (gate, slow) = (Arc::new(Gate::new(patience.clone())), Arc::new(AtomicBool::new(true)));
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let (gate, slow, asked) = (gate.clone(), slow.clone(), asked.clone());
            tasks.spawn(async move {
                loop {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let request = async {
                        let takes = if slow.load(Ordering::Relaxed) { 800 } else { 5 };
                        tokio::time::sleep(Duration::from_millis(takes)).await;
                    };
                    gate.through(request).await;
                }
            });
        }
        gate.limit.lock().quickest = Duration::from_millis(5);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = asked.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let in_a_minute = asked.load(Ordering::Relaxed) - before;
        assert!(in_a_minute <= LEAST * 60 * 1_000 / 800 + LEAST, "{in_a_minute}");
        assert_eq!(patience.strained.load(Ordering::Relaxed), 1);
        slow.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(gate.limit.lock().allowed > FIRST);
        assert_eq!(patience.strained.load(Ordering::Relaxed), 0);
    }

    /// What that node would have answered comes from another one after [`SPECULATE`], or runs into its deadline.
    #[tokio::test(start_paused = true)]
    async fn one_node_of_three_that_has_frozen_takes_nothing_from_the_others() {
        let patience = Arc::new(Patience::default());
        let gate = Arc::new(Gate::new(patience.clone()));
        let (mut tasks, answered) = (tokio::task::JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for task in 0..300_u64 {
            let (gate, answered) = (gate.clone(), answered.clone());
            tasks.spawn(async move {
                for request in task.. {
                    let takes = if request % 3 == 0 { 800 } else { 5 };
                    gate.through(async { tokio::time::sleep(Duration::from_millis(takes)).await }).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(patience.strained.load(Ordering::Relaxed), 0);
        assert!(gate.limit.lock().allowed > FIRST);
        // All 300 could have been asked at once: two of three a few milliseconds each, and 800 ms for the third.
        assert!(answered.load(Ordering::Relaxed) > 300 * 10, "{answered:?}");
    }

    /// With few requests a second, of which that node's come from another one after [`SPECULATE`].
    #[tokio::test(start_paused = true)]
    async fn a_frozen_node_and_few_requests_leave_the_gate_open() {
        let patience = Arc::new(Patience::default());
        let gate = Gate::new(patience.clone());
        for request in 0..600_u64 {
            let takes = if request % 3 == 0 { 155 } else { 5 };
            gate.through(tokio::time::sleep(Duration::from_millis(takes))).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(patience.strained.load(Ordering::Relaxed), 0, "after {request} requests");
        }
        assert_eq!(gate.limit.lock().allowed, FIRST);
        // A short hour in which everything is slow is over for few requests too.
        for takes in [800; 100].into_iter().chain([5; 600]) {
            gate.through(tokio::time::sleep(Duration::from_millis(takes))).await;
        }
        assert_eq!(gate.limit.lock().allowed, FIRST);
        assert_eq!(patience.strained.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_database_gets_all_it_can_take() {
        let gate = Arc::new(Gate::new(Arc::default()));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..MOST {
            let gate = gate.clone();
            tasks.spawn(async move {
                for _ in 0..100 {
                    gate.through(tokio::time::sleep(Duration::from_millis(10))).await;
                }
            });
        }
        let began = Instant::now();
        while tasks.join_next().await.is_some() {}
        // 100 rounds of 10 ms if all could run at once; at the first limit it would be 16 times that.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let limit = gate.limit.lock();
        assert_eq!(gate.room.available_permits() - limit.surplus, limit.allowed, "no permit is lost");
    }
}
