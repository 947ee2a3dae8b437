//! Whose script runs next. Each owner has a line; who has used least of the threads' time lately goes first, and nobody has all
//! threads at once. So a script that takes all the time it may costs the time of its owner.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Calls that may wait, of all owners and of one.
const WAITING: usize = 4096;
const WAITING_OF_ONE: usize = 512;
/// Bytes of what they are called with and of their scripts, of one owner and of all.
const BYTES_OF_ONE: usize = 8 << 20;
const BYTES: usize = 64 << 20;
/// After so many refusals it is looked for those of all owners that nobody waits for.
const REFUSED: u32 = 256;
/// What was used counts half after each of these.
const HALF: Duration = Duration::from_secs(1);
/// So little is as good as nothing.
const NOTHING: Duration = Duration::from_micros(10);

pub(crate) struct Turns<J> {
    lines: HashMap<u128, Line<J>>,
    waiting: usize,
    bytes: usize,
    refused: u32,
    /// Threads that one owner may have.
    most: usize,
    halved_at: Instant,
}

struct Line<J> {
    jobs: VecDeque<(usize, J)>,
    bytes: usize,
    running: usize,
    used: Duration,
}

impl<J> Line<J> {
    fn forget(&mut self, is_left: impl Fn(&J) -> bool) {
        self.jobs.retain(|(_, job)| !is_left(job));
        self.bytes = self.jobs.iter().map(|(bytes, _)| bytes).sum();
    }
}

impl<J> Turns<J> {
    pub fn new(threads: usize, now: Instant) -> Self {
        Self {
            lines: HashMap::new(),
            waiting: 0,
            bytes: 0,
            refused: 0,
            most: threads.saturating_sub(1).max(1),
            halved_at: now,
        }
    }

    /// Gives the job of so many bytes back if too much waits, also without those that nobody waits for any more.
    pub fn push(&mut self, owner: u128, job: J, bytes: usize, is_left: impl Fn(&J) -> bool) -> Result<(), J> {
        if !self.has_room(owner, bytes) {
            self.forget(owner, is_left);
            if !self.has_room(owner, bytes) {
                self.refused = self.refused.wrapping_add(1);
                return Err(job);
            }
        }
        let line = self.lines.entry(owner).or_insert_with(|| Line {
            jobs: VecDeque::new(),
            bytes: 0,
            running: 0,
            used: Duration::ZERO,
        });
        line.jobs.push_back((bytes, job));
        line.bytes += bytes;
        self.waiting += 1;
        self.bytes += bytes;
        Ok(())
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn has_room(&self, owner: u128, bytes: usize) -> bool {
        let of_one = self.lines.get(&owner).map_or((0, 0), |line| (line.jobs.len(), line.bytes));
        self.waiting < WAITING
            && self.bytes + bytes <= BYTES
            && of_one.0 < WAITING_OF_ONE
            && of_one.1 + bytes <= BYTES_OF_ONE
    }

    /// Of the owner's line, and now and then of all: a flood of what is refused must not cost a look at all that waits each time.
    fn forget(&mut self, owner: u128, is_left: impl Fn(&J) -> bool) {
        if self.refused.is_multiple_of(REFUSED) {
            self.lines.values_mut().for_each(|line| line.forget(&is_left));
            self.waiting = self.lines.values().map(|line| line.jobs.len()).sum();
            self.bytes = self.lines.values().map(|line| line.bytes).sum();
        } else if let Some(line) = self.lines.get_mut(&owner) {
            let before = (line.jobs.len(), line.bytes);
            line.forget(is_left);
            self.waiting -= before.0 - line.jobs.len();
            self.bytes -= before.1 - line.bytes;
        }
    }

    /// Owners that are `slow` have one thread at most.
    pub fn next(&mut self, now: Instant, slow: &[u128]) -> Option<(u128, J)> {
        self.halve(now);
        let most = |owner| if slow.contains(owner) { 1 } else { self.most };
        let open = self.lines.iter_mut().filter(|(owner, line)| !line.jobs.is_empty() && line.running < most(owner));
        let (owner, line) = open.min_by_key(|(owner, line)| (line.used, line.running, **owner))?;
        let (bytes, job) = line.jobs.pop_front()?;
        line.running += 1;
        line.bytes -= bytes;
        self.waiting -= 1;
        self.bytes -= bytes;
        Some((*owner, job))
    }

    /// Any that waits, whoever runs.
    pub fn next_of_all(&mut self) -> Option<(u128, J)> {
        let (owner, line) = self.lines.iter_mut().find(|(_, line)| !line.jobs.is_empty())?;
        let (bytes, job) = line.jobs.pop_front()?;
        line.running += 1;
        line.bytes -= bytes;
        self.waiting -= 1;
        self.bytes -= bytes;
        Some((*owner, job))
    }

    /// A job ended that [`Turns::next`] gave out.
    pub fn ended(&mut self, owner: u128, took: Duration) {
        if let Some(line) = self.lines.get_mut(&owner) {
            line.running = line.running.saturating_sub(1);
            line.used += took;
        }
    }

    fn halve(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.halved_at);
        if passed < HALF {
            return;
        }
        self.halved_at = now;
        let halves = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX).min(31);
        self.lines.retain(|_, line| {
            line.used /= 1 << halves;
            line.used > NOTHING || line.running > 0 || !line.jobs.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_used_most_waits_for_the_others() {
        let now = Instant::now();
        let mut turns = Turns::new(2, now);
        for job in 0..3 {
            turns.push(1, job, 1, |_| false).unwrap();
            turns.push(2, job, 1, |_| false).unwrap();
        }
        assert_eq!(turns.next(now, &[]), Some((1, 0)));
        turns.ended(1, Duration::from_millis(100));
        for job in 0..3 {
            assert_eq!(turns.next(now, &[]), Some((2, job)), "owner 1 has used more");
            turns.ended(2, Duration::from_micros(50));
        }
        assert_eq!(turns.next(now, &[]), Some((1, 1)));
    }

    #[test]
    fn nobody_has_all_threads() {
        let now = Instant::now();
        let mut turns = Turns::new(3, now);
        (0..5).for_each(|job| turns.push(1, job, 1, |_| false).unwrap());
        assert!(turns.next(now, &[]).is_some() && turns.next(now, &[]).is_some());
        assert_eq!(turns.next(now, &[]), None, "the third is for others");
        turns.push(2, 9, 1, |_| false).unwrap();
        assert_eq!(turns.next(now, &[]), Some((2, 9)));
        turns.ended(1, Duration::ZERO);
        assert_eq!(turns.next(now, &[]), Some((1, 2)));
    }

    #[test]
    fn what_waits_is_bounded_and_who_left_is_forgotten() {
        let now = Instant::now();
        let mut turns = Turns::new(2, now);
        let taken = (0..10_000).filter(|job| turns.push(1, *job, 1, |_| false).is_ok()).count();
        assert_eq!(taken, WAITING_OF_ONE);
        let taken = (0..100_000_u128).filter(|job| turns.push(2 + job, 0, 1, |_| false).is_ok()).count();
        assert_eq!(taken, WAITING - WAITING_OF_ONE);
        assert!(turns.lines.len() <= WAITING, "who was refused is not remembered");
        while let Some((owner, _)) = turns.next(now, &[]) {
            turns.ended(owner, Duration::ZERO);
            turns.lines.retain(|_, line| !line.jobs.is_empty());
        }
        assert_eq!(turns.next(now + HALF * 60, &[]), None);
        assert!(turns.lines.is_empty());
    }

    #[test]
    fn who_has_a_slow_one_has_one_thread() {
        let now = Instant::now();
        let mut turns = Turns::new(3, now);
        (0..2).for_each(|job| turns.push(1, job, 1, |_| false).unwrap());
        assert!(turns.next(now, &[]).is_some());
        assert_eq!(turns.next(now, &[1]), None);
        assert!(turns.next(now, &[2]).is_some());
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_what_nobody_waits_for_makes_room() {
        let now = Instant::now();
        let mut turns = Turns::new(2, now);
        let mib = 1 << 20;
        let taken = (0..100).filter(|job| turns.push(1, *job, mib, |_| false).is_ok()).count();
        assert_eq!(taken, BYTES_OF_ONE / mib);
        let taken = (0..100_u128).filter(|owner| turns.push(2 + owner, 200, mib, |_| false).is_ok()).count();
        assert_eq!(taken, (BYTES - BYTES_OF_ONE) / mib);
        assert!(turns.push(1, 300, mib, |job| *job < 2).is_ok() && turns.push(1, 301, mib, |_| false).is_ok());
        assert!(turns.push(1, 302, mib, |_| false).is_err());
        while let Some((owner, job)) = turns.next(now, &[]) {
            assert!(job >= 2, "nobody waits for {job}");
            turns.ended(owner, Duration::ZERO);
        }
        assert_eq!((turns.waiting, turns.bytes), (0, 0));
    }
}
