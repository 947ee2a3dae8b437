//! When a silent worker is suspect, when it is out, and when the silence is our own.
//!
//! A worker repeats its acknowledgement every 10 ms while it holds frames that are not stored, every 50 ms while it holds
//! others that are not done, and says every 200 ms without one that it is alive. Its silence is measured in time that the balancer itself was running.

use core::time::Duration;

use crate::config::Config;

/// A timer that fires later than this was late because the balancer did not run.
pub const STALL: Duration = Duration::from_millis(15);
/// Time that does not count after a stall, once in a while.
const GRACE: Duration = Duration::from_millis(30);
const GRACE_EVERY: Duration = Duration::from_millis(200);
/// For how long verdicts are held back when more than half of the workers fall silent at once.
pub const HOLD_BACK: Duration = Duration::from_secs(1);
/// How long each step of a slow start lasts.
const SLOW_START_STEP: Duration = Duration::from_millis(1_500);
/// How long a slow start lasts: a step at a quarter, a step at half.
pub const SLOW_START: Duration = Duration::from_secs(3);

/// Monotonic time without the spans in which the balancer stalled.
#[derive(Clone, Debug, Default)]
pub struct LiveClock {
    stalled: Duration,
    promised: Option<Duration>,
    last_stall: Option<Duration>,
}

impl LiveClock {
    /// Remembers when the next call was asked for.
    pub fn promise(&mut self, at: Option<Duration>) {
        self.promised = at;
    }

    /// Compares the moment of a call with what was asked for; how long the balancer stalled, if it did.
    pub fn tick(&mut self, mono: Duration) -> Option<Duration> {
        let late = mono.saturating_sub(self.promised?);
        if late <= STALL {
            return None;
        }
        self.promised = None;
        // What was said meanwhile must still be read. Not after every stall of a row, or an overloaded balancer would
        // never find anybody silent.
        let first = self.last_stall.is_none_or(|before| mono > before + GRACE_EVERY);
        self.stalled += late + if first { GRACE } else { Duration::ZERO };
        self.last_stall = Some(mono);
        Some(late)
    }

    /// Live time at a monotonic time.
    pub fn live(&self, mono: Duration) -> Duration {
        mono.saturating_sub(self.stalled)
    }

    /// Monotonic time at which a live time comes, if nothing stalls until then.
    pub fn mono(&self, live: Duration) -> Duration {
        live + self.stalled
    }
}

/// What is thought of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Well,
    /// Silent for a moment: its frames go elsewhere, the ring stays.
    Suspect,
    /// Silent for long: not on the ring.
    Ejected,
}

/// The signs of life of one worker. Times are live.
#[derive(Clone, Debug)]
pub struct Vitals {
    pub verdict: Verdict,
    /// Last message of any kind.
    heard: Duration,
    /// Last acknowledgement.
    acked: Duration,
    /// Since when it holds unfinished frames without a gap.
    busy_since: Option<Duration>,
    /// The same for frames that nobody has stored.
    urgent_since: Option<Duration>,
}

impl Vitals {
    /// A worker that was heard just now.
    pub fn new(live: Duration) -> Self {
        Self { verdict: Verdict::Well, heard: live, acked: live, busy_since: None, urgent_since: None }
    }

    /// A frame was sent to it, which is stored already or not.
    pub fn busy(&mut self, live: Duration, stored: bool) {
        self.busy_since.get_or_insert(live);
        if !stored {
            self.urgent_since.get_or_insert(live);
        }
    }

    /// All frames that it holds are stored.
    pub fn calm(&mut self) {
        self.urgent_since = None;
    }

    /// It holds nothing that we wait for.
    pub fn idle(&mut self) {
        self.calm();
        self.busy_since = None;
    }

    /// Whether it has said nothing for half as long as makes it leave the ring. Those that stop together had their last words at
    /// different moments: who was heard last must not speak for them all.
    pub fn is_quiet(&self, live: Duration, config: &Config) -> bool {
        live >= self.heard + config.eject_after / 2
    }

    /// A message came that shows nothing about its frames.
    pub fn heard(&mut self, live: Duration) {
        self.heard = self.heard.max(live);
    }

    /// An acknowledgement came.
    pub fn acked(&mut self, live: Duration) {
        self.heard(live);
        self.acked = self.acked.max(live);
    }

    /// For how long nothing was heard.
    pub fn silence(&self, live: Duration) -> Duration {
        live.saturating_sub(self.heard)
    }

    /// When it becomes suspect, unless it acknowledges before.
    fn suspect_at(&self, config: &Config) -> Option<Duration> {
        let silent = |since: Option<Duration>, limit| since.map(|since| self.acked.max(since) + limit);
        let stored = silent(self.busy_since, config.suspect_after_stored);
        silent(self.urgent_since, config.suspect_after).into_iter().chain(stored).min()
    }

    /// The verdict that its silence calls for.
    pub fn due(&self, live: Duration, config: &Config) -> Verdict {
        if live >= self.heard + config.eject_after {
            Verdict::Ejected
        } else if self.verdict == Verdict::Suspect || self.suspect_at(config).is_some_and(|at| live >= at) {
            Verdict::Suspect
        } else {
            Verdict::Well
        }
    }

    /// The next moment at which [`Self::due`] can become worse.
    pub fn next(&self, config: &Config) -> Option<Duration> {
        let eject = self.heard + config.eject_after;
        match self.verdict {
            Verdict::Well => Some(self.suspect_at(config).map_or(eject, |at| at.min(eject))),
            Verdict::Suspect => Some(eject),
            Verdict::Ejected => None,
        }
    }
}

/// Holds verdicts back while more than half of the workers are silent at once.
#[derive(Clone, Debug, Default)]
pub struct MassGuard {
    since: Option<Duration>,
    /// When they began to be heard again.
    lifted: Option<Duration>,
}

impl MassGuard {
    /// Whether verdicts may pass, `silent` of `of` workers being silent.
    pub fn passes(&mut self, silent: usize, of: usize, live: Duration) -> bool {
        if silent * 2 > of {
            self.lifted = None;
            return live >= *self.since.get_or_insert(live) + HOLD_BACK;
        }
        if let Some(since) = self.since.take()
            && live < since + HOLD_BACK
        {
            self.lifted = Some(live);
        }
        // Of those that come back together one is heard first.
        self.lifted.is_none_or(|lifted| silent == 0 || live >= lifted + GRACE)
    }

    /// When verdicts that are held back now pass.
    pub fn until(&self) -> Option<Duration> {
        self.since.map(|since| since + HOLD_BACK).or(self.lifted.map(|lifted| lifted + GRACE))
    }
}

/// Percent of its weight that a worker has now whose slow start ends at `full_at`.
pub fn slow_start(full_at: Duration, now: Duration) -> u32 {
    let left = full_at.saturating_sub(now);
    if left > SLOW_START_STEP {
        25
    } else if left > Duration::ZERO {
        50
    } else {
        100
    }
}

/// When that changes next, after `now`.
pub fn next_step(full_at: Duration, now: Duration) -> Option<Duration> {
    [full_at.saturating_sub(SLOW_START_STEP), full_at].into_iter().find(|&at| at > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_stall_is_not_counted_as_silence() {
        let mut clock = LiveClock::default();
        clock.promise(Some(MS * 100));
        assert_eq!(clock.tick(MS * 110), None);
        clock.promise(Some(MS * 120));
        assert_eq!(clock.tick(MS * 5_120), Some(MS * 5_000));
        assert_eq!(clock.tick(MS * 5_120), None, "counted once");
        assert_eq!(clock.live(MS * 5_120), MS * 120 - GRACE);
        assert_eq!(clock.mono(MS * 120), MS * 5_120 + GRACE);
        clock.promise(Some(MS * 5_150));
        assert_eq!(clock.tick(MS * 5_170), Some(MS * 20));
        assert_eq!(clock.live(MS * 5_170), MS * 150 - GRACE, "no second grace so soon");
    }

    #[test]
    fn more_than_half_are_held_back_for_a_second() {
        let mut guard = MassGuard::default();
        assert!(guard.passes(1, 2, MS));
        assert!(!guard.passes(2, 3, MS * 2));
        assert!(!guard.passes(3, 3, MS * 500));
        assert!(guard.passes(2, 3, MS * 1_002));
        assert!(guard.passes(1, 3, MS * 1_003));
        assert!(!guard.passes(2, 3, MS * 1_004), "a new case starts anew");
    }

    #[test]
    fn who_comes_back_after_the_others_is_given_a_moment() {
        let mut guard = MassGuard::default();
        assert!(!guard.passes(3, 3, MS));
        assert!(!guard.passes(1, 3, MS * 900), "two of three are heard again");
        assert_eq!(guard.until(), Some(MS * 900 + GRACE));
        assert!(guard.passes(0, 3, MS * 901));
        assert!(!guard.passes(1, 3, MS * 910));
        assert!(guard.passes(1, 3, MS * 900 + GRACE), "it does not come back");
    }

    #[test]
    fn a_slow_start_ends_after_three_seconds() {
        let full_at = MS * 1_000 + SLOW_START;
        let at = |ms: u32| slow_start(full_at, MS * ms);
        assert_eq!([at(1_000), at(2_499), at(2_500), at(3_999), at(4_000), at(99_000)], [25, 25, 50, 50, 100, 100]);
        assert_eq!(next_step(full_at, MS * 1_000), Some(MS * 2_500));
        assert_eq!(next_step(full_at, MS * 2_500), Some(MS * 4_000));
        assert_eq!(next_step(full_at, MS * 4_000), None);
    }
}
