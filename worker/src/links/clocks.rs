//! What time it is at each balancer. Frames and windows carry the time of the balancer that received the uplink, and no two
//! machines' clocks agree: a worker that is 0.65 s ahead would find that no RX1 can be met. So the worker asks, and measures
//! by its steady clock, which nobody sets.

use std::{collections::BTreeMap, time::Duration};

use limpet_shared::UnixMicros;
use tokio::time::Instant;

/// How long a Welcome has been on its way at most: until the first answer to a question this is what is known.
const WELCOME_TOOK: i128 = 20_000;
/// What two clocks drift apart in a second, us: what was measured once gets less exact.
const DRIFT: i128 = 100;

/// The balancers' clocks.
#[derive(Debug)]
pub struct Clocks {
    start: Instant,
    known: BTreeMap<u64, Clock>,
}

/// The balancer's time when this process's steady clock was at 0 lies between these two (Unix, us).
#[derive(Clone, Copy, Debug)]
struct Clock {
    low: i128,
    high: i128,
    measured: Duration,
}

impl Clocks {
    pub fn new() -> Self {
        Self { start: Instant::now(), known: BTreeMap::new() }
    }

    /// A balancer's Welcome has just come, with its time.
    pub fn welcomed(&mut self, balancer: u64, now: UnixMicros) {
        if now.0 > 0 {
            let low = i128::from(now.0) - self.steady();
            self.measured(balancer, low, low + WELCOME_TOOK);
        }
    }

    /// The moment to be given back with the answer; never 0.
    pub fn question(&self) -> u64 {
        u64::try_from(self.steady()).unwrap_or_default().max(1)
    }

    /// A balancer says what time it was when it read the question.
    pub fn answered(&mut self, balancer: u64, asked_at: u64, now: UnixMicros) {
        let (asked_at, read) = (i128::from(asked_at), self.steady());
        if asked_at <= read {
            self.measured(balancer, i128::from(now.0) - read, i128::from(now.0) - asked_at);
        }
    }

    /// What both measurements allow; if nothing does, somebody has set a clock, and the new one counts.
    fn measured(&mut self, balancer: u64, low: i128, high: i128) {
        let measured = self.start.elapsed();
        let new = Clock { low, high, measured };
        let clock = self.known.entry(balancer).or_insert(new);
        let drift = DRIFT * measured.saturating_sub(clock.measured).as_secs() as i128;
        let (low, high) = (low.max(clock.low - drift), high.min(clock.high + drift));
        *clock = if low <= high { Clock { low, high, measured } } else { new };
    }

    /// The link is gone.
    pub fn forget(&mut self, balancer: u64) {
        self.known.remove(&balancer);
    }

    /// What time it is there. If that is not known, what another balancer says: it may be the same machine, started again.
    pub fn now_at(&self, balancer: u64) -> Option<UnixMicros> {
        let clock = self.known.get(&balancer).or_else(|| self.known.values().next())?;
        Some(unix(clock.middle() + self.steady()))
    }

    /// A moment of one balancer's clock on another's.
    pub fn between(&self, from: u64, to: u64, at: UnixMicros) -> UnixMicros {
        match (self.known.get(&from), self.known.get(&to)) {
            (Some(from), Some(to)) => unix(i128::from(at.0) + to.middle() - from.middle()),
            _ => at,
        }
    }

    fn steady(&self) -> i128 {
        i128::try_from(self.start.elapsed().as_micros()).unwrap_or(i128::MAX)
    }
}

impl Clock {
    fn middle(&self) -> i128 {
        (self.low + self.high) / 2
    }
}

fn unix(micros: i128) -> UnixMicros {
    UnixMicros(u64::try_from(micros.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_700_000_000_000_000;

    async fn ask(clocks: &mut Clocks, balancer: u64, clock: impl Fn() -> u64, way_there: u64, way_back: u64) {
        let asked_at = clocks.question();
        tokio::time::sleep(Duration::from_millis(way_there)).await;
        let now = UnixMicros(clock());
        tokio::time::sleep(Duration::from_millis(way_back)).await;
        clocks.answered(balancer, asked_at, now);
    }

    #[tokio::test(start_paused = true)]
    async fn the_quickest_answer_counts_until_somebody_sets_a_clock() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.now_at(1), None);
        let start = Instant::now();
        let true_time = || NOON + start.elapsed().as_micros() as u64;
        let off =
            |clocks: &Clocks, truth: u64| (clocks.now_at(1).unwrap().0 as i64 - truth as i64).unsigned_abs() / 1_000;
        // The Welcome was read late: a process that starts is busy.
        let welcome = UnixMicros(true_time());
        tokio::time::sleep(Duration::from_millis(300)).await;
        clocks.welcomed(1, welcome);
        ask(&mut clocks, 1, true_time, 2, 2).await;
        assert_eq!(off(&clocks, true_time()), 0);
        for _ in 0..20 {
            ask(&mut clocks, 1, true_time, 0, 400).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(off(&clocks, true_time()) <= 4, "a slow answer spoils nothing");
        let set = || true_time() + 650_000;
        ask(&mut clocks, 1, set, 1, 1).await;
        assert!(off(&clocks, set()) <= 4, "a clock was set");
        clocks.forget(1);
        assert_eq!(clocks.now_at(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_of_one_clock_is_another_moment_of_the_next() {
        let mut clocks = Clocks::new();
        let start = Instant::now();
        let first = || NOON + start.elapsed().as_micros() as u64;
        let second = || first() + 3_000_000;
        tokio::time::sleep(Duration::from_millis(5)).await;
        ask(&mut clocks, 1, first, 1, 1).await;
        ask(&mut clocks, 2, second, 1, 1).await;
        assert_eq!(clocks.between(1, 2, UnixMicros(NOON)), UnixMicros(NOON + 3_000_000));
        assert_eq!(clocks.between(2, 1, UnixMicros(NOON)), UnixMicros(NOON - 3_000_000));
        assert_eq!(clocks.between(9, 1, UnixMicros(NOON)), UnixMicros(NOON), "of an unknown clock nothing is known");
        assert_eq!(clocks.now_at(9), clocks.now_at(1), "better another balancer's clock than a worker's own");
    }
}
