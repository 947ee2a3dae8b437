//! How many requests are with the database at once. A database that has more to do than it can answers everything late;
//! then deadlines pass, the same is asked again, and it has even more to do. So what it cannot take waits here, where
//! waiting costs nothing, and a request's deadline begins when the database gets it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

/// Requests at once: at the start, and the bounds.
const FIRST: usize = 64;
const LEAST: usize = 16;
const MOST: usize = 1_024;
/// How often the number is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Answers that take longer on average come from a database with too much to do: longer than this, and than so many times
/// what the quickest ever took, for a quorum may be far away.
const SLOW: Duration = Duration::from_millis(100);
const TIMES_QUICKEST: u32 = 4;

/// See the module.
pub(super) struct Gate {
    room: Semaphore,
    limit: Mutex<Limit>,
    /// Somebody had to wait since the last look.
    was_full: AtomicBool,
}

/// What was measured since the last look, and the number that followed from the looks so far.
struct Limit {
    allowed: usize,
    /// Permits that are in use and not wanted back.
    surplus: usize,
    answers: u32,
    took: Duration,
    quickest: Duration,
    looked: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        let looked = Instant::now();
        let (took, quickest) = (Duration::ZERO, Duration::MAX);
        let limit = Limit { allowed: FIRST, surplus: 0, answers: 0, took, quickest, looked };
        Self { room: Semaphore::new(FIRST), limit: Mutex::new(limit), was_full: AtomicBool::new(false) }
    }
}

impl Gate {
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
            if limit.looked.elapsed() >= LOOK_EVERY {
                let more = limit.look(self.was_full.swap(false, Ordering::Relaxed));
                self.room.add_permits(more);
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
    fn note(&mut self, took: Duration) {
        self.answers += 1;
        self.took += took;
        self.quickest = self.quickest.min(took);
    }

    /// Sets the number anew: down by a fifth if the database is slow, up by a quarter if it is not and there was no
    /// room. Returns how many permits are to be added; those to be taken away are `surplus`.
    fn look(&mut self, was_full: bool) -> usize {
        let average = self.took / self.answers.max(1);
        let before = self.allowed;
        if average > SLOW.max(self.quickest.saturating_mul(TIMES_QUICKEST)) {
            self.allowed = (before * 4 / 5).max(LEAST);
        } else if was_full {
            self.allowed = (before * 5 / 4).min(MOST);
        }
        (self.answers, self.took, self.looked) = (0, Duration::ZERO, Instant::now());
        self.surplus += before.saturating_sub(self.allowed);
        let more = self.allowed.saturating_sub(before);
        let kept = more.min(self.surplus);
        self.surplus -= kept;
        more - kept
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A database that does `rate` requests a second one after the other, asked by `clients` without pause. Returns how
    /// long its answers took at the end, and how many it gave.
    async fn answers(rate: u32, clients: usize) -> (Duration, u32) {
        let gate = Arc::new(Gate::default());
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
        let gate = Gate::default();
        for _ in 0..100 {
            gate.through(tokio::time::sleep(SLOW * 2)).await;
        }
        assert_eq!(gate.limit.lock().allowed, FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_database_gets_all_it_can_take() {
        let gate = Arc::new(Gate::default());
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
