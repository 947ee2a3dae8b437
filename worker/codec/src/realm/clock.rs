//! The time that a script has used: of its thread, not of the world, which goes on while others are at work.

use std::{cell::Cell, time::Duration};

use rustix::time::{ClockId, clock_gettime};

pub(crate) struct Clock {
    limit: Duration,
    ends: Cell<Duration>,
    stopped: Cell<bool>,
}

/// Processor time of this thread.
pub(crate) fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

impl Clock {
    pub fn new(limit: Duration) -> Self {
        Self { limit, ends: Cell::new(used() + limit), stopped: Cell::new(false) }
    }

    pub fn start(&self) {
        self.ends.set(used() + self.limit);
        self.stopped.set(false);
    }

    /// The engine asks now and then, and stops the script if so.
    pub fn is_over(&self) -> bool {
        let over = used() > self.ends.get();
        self.stopped.set(self.stopped.get() || over);
        over
    }

    /// The script was stopped; what it has answered since counts for nothing.
    pub fn has_stopped(&self) -> bool {
        self.stopped.get()
    }
}
