//! What strangers can cause, or a store that is away, is told in a few lines per second, however much of it there is; the metrics count all.

use limpet_shared::UnixMicros;
use parking_lot::Mutex;

/// Lines per second.
const LINES: u32 = 5;

/// Limits one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    /// Since 1970.
    number: u64,
    lines: u32,
    unsaid: u64,
}

impl LogLimit {
    /// Whether a line may be written; if so, how many were not since the last one.
    pub fn admit(&self, now: UnixMicros) -> Option<u64> {
        let mut second = self.0.lock();
        let number = now.0 / 1_000_000;
        if second.number != number {
            (second.number, second.lines) = (number, 0);
        }
        if second.lines >= LINES {
            second.unsaid += 1;
            return None;
        }
        second.lines += 1;
        Some(std::mem::take(&mut second.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_few_lines_and_none_is_forgotten() {
        let limit = LogLimit::default();
        let said = (0..100).filter(|n| limit.admit(UnixMicros(7_000_000 + n)).is_some()).count();
        assert_eq!(said, LINES as usize);
        assert_eq!(limit.admit(UnixMicros(8_000_000)), Some(95));
        assert_eq!(limit.admit(UnixMicros(8_000_001)), Some(0));
    }
}
