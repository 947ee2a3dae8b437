//! The one place of this crate that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use limpet_shared::{Now, UnixMicros};

/// Both clocks; monotonic time counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts monotonic time.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = UnixMicros(u64::try_from(unix.as_micros()).unwrap_or(u64::MAX));
        Now { mono: self.start.elapsed(), unix }
    }

    /// The moment of a monotonic time, as timers want it.
    pub fn instant(&self, mono: Duration) -> tokio::time::Instant {
        (self.start + mono).into()
    }
}
