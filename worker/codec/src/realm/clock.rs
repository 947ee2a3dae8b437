//! The time that a script has used: of its thread, not of the world, which goes on while others are at work.

use std::{cell::Cell, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The niceness of those that may wait for everybody.
const LEAST_PRIORITY: i32 = 19;

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

/// A thread as others see it; `None` where /proc is not to be had.
#[derive(Clone, Copy)]
pub(crate) struct Thread(i32);

impl Thread {
    pub fn this() -> Option<Self> {
        let path = std::fs::read_link("/proc/thread-self").ok()?;
        path.file_name()?.to_str()?.parse().ok().map(Self)
    }

    /// Its processor time.
    pub fn used(self) -> Option<Duration> {
        let seen = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.0)).ok()?;
        seen.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }

    /// All others go before it from now on.
    pub fn yields(self) {
        let done = rustix::process::Pid::from_raw(self.0)
            .map(|thread| rustix::process::setpriority_process(Some(thread), LEAST_PRIORITY));
        if let Some(Err(error)) = done {
            tracing::debug!(%error, "a thread that was given up keeps its priority");
        }
    }
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
