//! A rate limit in one number.

use core::time::Duration;

/// Generic cell rate algorithm: the time at which the next one would be due at the exact rate. A burst of one second's
/// worth is let through, and what is let through last may be larger than what is left of it: the next one waits longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    due: Duration,
}

const BURST: Duration = Duration::from_secs(1);

impl Bucket {
    /// When there is room for one more at `rate` per second (0 for no limit); `None` if there is now.
    pub fn full_until(&self, now: Duration, rate: u32) -> Option<Duration> {
        if rate == 0 {
            return None;
        }
        let room_at = (self.due.max(now) + BURST / rate).saturating_sub(BURST);
        (room_at > now).then_some(room_at)
    }

    /// Counts so many.
    pub fn add(&mut self, now: Duration, rate: u32, count: u32) {
        if rate > 0 {
            self.due = self.due.max(now) + BURST * count / rate;
        }
    }

    /// Whether `count` more are within the rate; if so they are counted.
    pub fn take(&mut self, now: Duration, rate: u32, count: u32) -> bool {
        let within = self.full_until(now, rate).is_none();
        if within {
            self.add(now, rate, count);
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn a_second_of_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        let burst = (0..100).filter(|_| bucket.take(START, 10, 1)).count();
        assert_eq!(burst, 10);
        assert_eq!(bucket.full_until(START, 10), Some(START + Duration::from_millis(100)));
        assert!(!bucket.take(START + Duration::from_millis(99), 10, 1));
        assert!(bucket.take(START + Duration::from_millis(100), 10, 1));
        assert!(bucket.take(START, 0, 1));
    }

    #[test]
    fn one_that_is_larger_than_the_burst_passes_and_is_paid_for_later() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(START, 100, 255));
        assert_eq!(bucket.full_until(START, 100), Some(START + Duration::from_millis(1_560)));
        let passed = (0..10_000).filter(|ms| bucket.take(START + Duration::from_millis(*ms), 100, 255)).count();
        assert_eq!(passed, 4, "2.55 s each, less the burst");
    }
}
