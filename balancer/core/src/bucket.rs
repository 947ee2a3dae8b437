//! A rate limit in one number.

use core::time::Duration;

/// Generic cell rate algorithm: the time at which the next datagram would be due at the exact rate. A burst of one
/// second's worth is let through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    due: Duration,
}

const BURST: Duration = Duration::from_secs(1);

impl Bucket {
    /// Whether one more is within `rate` per second (0 for no limit); if so it is counted.
    pub fn take(&mut self, now: Duration, rate: u32) -> bool {
        if rate == 0 {
            return true;
        }
        let due = self.due.max(now) + BURST / rate;
        let within = due.saturating_sub(now) <= BURST;
        if within {
            self.due = due;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        let start = Duration::from_secs(100);
        let burst = (0..100).filter(|_| bucket.take(start, 10)).count();
        assert_eq!(burst, 10);
        assert!(!bucket.take(start + Duration::from_millis(99), 10));
        assert!(bucket.take(start + Duration::from_millis(100), 10));
        assert!(bucket.take(start, 0));
    }
}
