//! How often a log-in may be tried.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Attempts that an account has at once.
const BURST: u8 = 20;
/// Time after which it has one more.
const REFILL: Duration = Duration::from_secs(6);
/// Accounts share this many counters, by a hash that callers cannot foresee: made-up names use no memory, and all of
/// them cannot be used up in the time that password hashing leaves.
const COUNTERS: usize = 4096;

/// Attempts left per account. Each worker counts for itself.
pub(super) struct Attempts {
    hasher: RandomState,
    counters: Mutex<Vec<Counter>>,
}

#[derive(Clone, Copy)]
struct Counter {
    left: u8,
    /// When an attempt was last given back.
    since: Instant,
}

impl Attempts {
    pub fn new(now: Instant) -> Self {
        Self { hasher: RandomState::new(), counters: Mutex::new(vec![Counter { left: BURST, since: now }; COUNTERS]) }
    }

    /// Takes an attempt; false if there is none left.
    pub fn take(&self, account: &str, now: Instant) -> bool {
        self.with(account, |counter| {
            let refills = now.saturating_duration_since(counter.since).as_secs() / REFILL.as_secs();
            if refills > 0 {
                counter.left = BURST.min(counter.left.saturating_add(u8::try_from(refills).unwrap_or(u8::MAX)));
                counter.since = now;
            }
            let taken = counter.left > 0;
            counter.left = counter.left.saturating_sub(1);
            taken
        })
    }

    /// The password was right.
    pub fn forgive(&self, account: &str) {
        self.with(account, |counter| counter.left = BURST);
    }

    fn with<T>(&self, account: &str, change: impl FnOnce(&mut Counter) -> T) -> T {
        let at = self.hasher.hash_one(account.trim().to_lowercase()) as usize % COUNTERS;
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counters[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_slowed_down_until_the_right_password_comes() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        let tries = (0..100).filter(|_| attempts.take("admin", start)).count();
        assert_eq!(tries, usize::from(BURST));
        assert!(!attempts.take(" ADMIN", start), "one account, however it is written");

        let later = start + REFILL * 3;
        assert_eq!((0..10).filter(|_| attempts.take("admin", later)).count(), 3);
        attempts.forgive("admin");
        assert!(attempts.take("admin", later));
    }
}
