//! Whose script runs next. Each owner has a line; who has used least of the threads' time lately goes first, and nobody has all
//! threads at once. So a script that takes all the time it may costs the time of its owner.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Calls that may wait, of all owners and of one.
const WAITING: usize = 4096;
const WAITING_OF_ONE: usize = 512;
/// What was used counts half after each of these.
const HALF: Duration = Duration::from_secs(1);
/// So little is as good as nothing.
const NOTHING: Duration = Duration::from_micros(10);

pub(crate) struct Turns<J> {
    lines: HashMap<u128, Line<J>>,
    waiting: usize,
    /// Threads that one owner may have.
    most: usize,
    halved_at: Instant,
}

struct Line<J> {
    jobs: VecDeque<J>,
    running: usize,
    used: Duration,
}

impl<J> Turns<J> {
    pub fn new(threads: usize, now: Instant) -> Self {
        Self { lines: HashMap::new(), waiting: 0, most: threads.saturating_sub(1).max(1), halved_at: now }
    }

    /// Gives the job back if too many wait.
    pub fn push(&mut self, owner: u128, job: J) -> Result<(), J> {
        if self.waiting >= WAITING || self.lines.get(&owner).is_some_and(|line| line.jobs.len() >= WAITING_OF_ONE) {
            return Err(job);
        }
        let line = self.lines.entry(owner).or_insert(Line { jobs: VecDeque::new(), running: 0, used: Duration::ZERO });
        line.jobs.push_back(job);
        self.waiting += 1;
        Ok(())
    }

    pub fn next(&mut self, now: Instant) -> Option<(u128, J)> {
        self.halve(now);
        let open = self.lines.iter_mut().filter(|(_, line)| !line.jobs.is_empty() && line.running < self.most);
        let (owner, line) = open.min_by_key(|(owner, line)| (line.used, line.running, **owner))?;
        let job = line.jobs.pop_front()?;
        line.running += 1;
        self.waiting -= 1;
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
            turns.push(1, job).unwrap();
            turns.push(2, job).unwrap();
        }
        assert_eq!(turns.next(now), Some((1, 0)));
        turns.ended(1, Duration::from_millis(100));
        for job in 0..3 {
            assert_eq!(turns.next(now), Some((2, job)), "owner 1 has used more");
            turns.ended(2, Duration::from_micros(50));
        }
        assert_eq!(turns.next(now), Some((1, 1)));
    }

    #[test]
    fn nobody_has_all_threads() {
        let now = Instant::now();
        let mut turns = Turns::new(3, now);
        (0..5).for_each(|job| turns.push(1, job).unwrap());
        assert!(turns.next(now).is_some() && turns.next(now).is_some());
        assert_eq!(turns.next(now), None, "the third is for others");
        turns.push(2, 9).unwrap();
        assert_eq!(turns.next(now), Some((2, 9)));
        turns.ended(1, Duration::ZERO);
        assert_eq!(turns.next(now), Some((1, 2)));
    }

    #[test]
    fn what_waits_is_bounded_and_who_left_is_forgotten() {
        let now = Instant::now();
        let mut turns = Turns::new(2, now);
        let taken = (0..10_000).filter(|job| turns.push(1, *job).is_ok()).count();
        assert_eq!(taken, WAITING_OF_ONE);
        let taken = (0..100_000_u128).filter(|job| turns.push(2 + job, 0).is_ok()).count();
        assert_eq!(taken, WAITING - WAITING_OF_ONE);
        assert!(turns.lines.len() <= WAITING, "who was refused is not remembered");
        while let Some((owner, _)) = turns.next(now) {
            turns.ended(owner, Duration::ZERO);
            turns.lines.retain(|_, line| !line.jobs.is_empty());
        }
        assert_eq!(turns.next(now + HALF * 60), None);
        assert!(turns.lines.is_empty());
    }
}
