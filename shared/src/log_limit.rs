//! What strangers can cause, or a store that is away, is told in a few lines at a time, however much of it there is; the metrics count all.

use core::time::Duration;

use crate::UnixMicros;

/// Lines in each period.
const LINES: u32 = 5;

/// Limits one kind of line.
#[derive(Clone, Debug)]
pub struct LogLimit {
    /// In microseconds.
    period: u64,
    /// The period that it is now, since 1970.
    number: u64,
    lines: u32,
    unsaid: u64,
}

impl Default for LogLimit {
    /// Of a second.
    fn default() -> Self {
        Self::of(Duration::from_secs(1))
    }
}

impl LogLimit {
    pub fn of(period: Duration) -> Self {
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
        Self { period, number: 0, lines: 0, unsaid: 0 }
    }

    /// Whether a line may be written; if so, how many were not since the last one.
    pub fn admit(&mut self, now: UnixMicros) -> Option<u64> {
        let number = now.0 / self.period;
        if self.number != number {
            (self.number, self.lines) = (number, 0);
        }
        if self.lines >= LINES {
            self.unsaid += 1;
            return None;
        }
        self.lines += 1;
        Some(core::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_few_lines_and_none_is_forgotten() {
        let mut limit = LogLimit::default();
        let said = (0..100).filter(|n| limit.admit(UnixMicros(7_000_000 + n)).is_some()).count();
        assert_eq!(said, LINES as usize);
        assert_eq!(limit.admit(UnixMicros(8_000_000)), Some(95));
        assert_eq!(limit.admit(UnixMicros(8_000_001)), Some(0));
        let mut limit = LogLimit::of(Duration::from_secs(10));
        let said = (0..100).filter(|n| limit.admit(UnixMicros(100_000 * n)).is_some()).count();
        assert_eq!((said, limit.admit(UnixMicros(10_000_000))), (LINES as usize, Some(95)));
    }
}
