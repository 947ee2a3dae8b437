//! Time as a value. Nothing in the pure crates reads a clock: whoever drives them says what time it is.

use core::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch (UTC), as the machine's wall clock has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMicros(pub u64);

/// One reading of both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic, since an arbitrary start of the process: for time-outs and intervals.
    pub mono: Duration,
    /// Wall clock: for what other machines or people will read.
    pub unix: UnixMicros,
}

impl UnixMicros {
    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This moment, or else the next one that is a whole number of `grid`s since the epoch.
    pub fn on_grid(self, grid: Duration) -> Self {
        let grid = u64::try_from(grid.as_micros()).unwrap_or(u64::MAX).max(1);
        Self(self.0.div_ceil(grid).saturating_mul(grid))
    }
}
impl Add<Duration> for UnixMicros {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}
impl Sub<Duration> for UnixMicros {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}
impl fmt::Debug for UnixMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_of_whole_multiples_and_never_before() {
        let grid = Duration::from_millis(50);
        let at = |micros| UnixMicros(micros).on_grid(grid).0;
        assert_eq!([at(0), at(1), at(50_000), at(50_001)], [0, 50_000, 50_000, 100_000]);
        assert_eq!(UnixMicros(7).on_grid(Duration::ZERO), UnixMicros(7));
    }
}
