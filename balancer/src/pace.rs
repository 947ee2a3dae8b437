//! How often datagrams are looked for. At a few thousand a second most of the processor time is waking up, so then those
//! of a millisecond are taken together. Nobody waits longer for it, and at lower rates nobody waits at all.

use std::{os::fd::OwnedFd, time::Duration};

use limpet_link::watched::watched;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// What one look gathers: no PUSH_ACK is late by more than this for it.
const REST: Duration = Duration::from_micros(900);
/// Over what time the rate is an average, ms.
const MEMORY: f64 = 8.0;
/// From so many datagrams in a millisecond on it is worth it.
const WORTH_IT: f64 = 1.5;

/// The rate of the last milliseconds.
#[derive(Debug, Default)]
pub struct Pace {
    at: Duration,
    /// Datagrams in a millisecond.
    rate: f64,
}

impl Pace {
    /// So many were read now (monotonic); whether the next look had better wait.
    pub fn rests(&mut self, now: Duration, datagrams: usize) -> bool {
        let gone = now.saturating_sub(self.at).as_secs_f64() * 1e3;
        self.at = now;
        self.rate = self.rate * (-gone / MEMORY).exp() + datagrams as f64 / MEMORY;
        self.rate > WORTH_IT
    }
}

/// Waits for the next look.
#[derive(Debug)]
pub enum Rest {
    /// The system's timer: tokio's counts in milliseconds.
    Exact(AsyncFd<OwnedFd>),
    /// To the next millisecond.
    Rough,
}

impl Rest {
    /// `exact` as well as this system can.
    pub fn new(exact: bool) -> Self {
        let timer = || {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC).ok()?;
            watched(timer).ok()
        };
        exact.then(timer).flatten().map_or(Self::Rough, Self::Exact)
    }

    pub async fn wait(&mut self) {
        if let Self::Exact(timer) = self
            && exactly(timer).await.is_some()
        {
            return;
        }
        tokio::time::sleep(Duration::from_micros(1)).await;
    }
}

/// `None` if the system did not do it.
async fn exactly(timer: &AsyncFd<OwnedFd>) -> Option<()> {
    const ONCE: Itimerspec = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: 0, tv_nsec: REST.subsec_nanos() as _ },
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &ONCE).ok()?;
    // It is not read: setting it makes it new.
    timer.readable().await.ok()?.clear_ready();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many of so many looks it rested, with datagrams that come so far apart.
    fn rests(apart: Duration) -> usize {
        let mut pace = Pace::default();
        (1..=100).filter(|look| pace.rests(apart * *look, 1)).count()
    }

    #[test]
    fn it_rests_when_there_is_something_to_gather() {
        assert_eq!(rests(Duration::from_millis(1)), 0, "1,000 a second");
        assert!(rests(Duration::from_micros(250)) > 50, "4,000 a second");
        let mut pace = Pace::default();
        assert!(!pace.rests(Duration::from_secs(1), 3), "three gateways have heard one frame");
        assert!(pace.rests(Duration::from_secs(1), 60), "a burst");
        assert!(!pace.rests(Duration::from_secs(2), 1), "which is over");
    }
}
