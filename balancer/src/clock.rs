//! The one place of this crate that reads clocks. The monotonic one is the runtime's, which a simulation can pause.

use std::time::Duration;

use limpet_link::host;
use limpet_shared::Now;
use tokio::time::Instant;

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
        Now { mono: self.start.elapsed(), unix: host::now() }
    }

    /// The moment of a monotonic time, as timers want it.
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}
