//! A timer that is set again far more often than it fires.
//!
//! Setting one of tokio's to an earlier moment than all others interrupts the thread's wait for I/O: a system call, and one more
//! turn of its loop. Where each message sets a deadline that the answer takes away, that comes once a message. So a timer that
//! is set to a later moment stays what it is for half of its time: mostly it is set back before.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at the moment it was set to last.
#[derive(Debug, Default)]
pub struct Alarm {
    due: Option<Instant>,
    armed: Option<Armed>,
}

/// Fires no later than is due; since when it would.
#[derive(Debug)]
struct Armed(Pin<Box<Sleep>>, Instant);

impl Armed {
    fn reset(&mut self, due: Instant, now: Instant) {
        self.0.as_mut().reset(due);
        self.1 = now;
    }

    /// Whether it had better fire at another moment than it does.
    fn is_wrong(&self, due: Instant, now: Instant) -> bool {
        let fires = self.0.deadline();
        due < fires || due > fires && now.saturating_duration_since(self.1) >= fires.saturating_duration_since(now)
    }
}

impl Alarm {
    /// Sets the moment; `None` for never.
    pub fn set(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    /// Waits for the moment it is set to. Dropping the wait changes nothing.
    pub async fn fires(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Ready when the moment has come, and from then on until it is set again.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let now = Instant::now();
        if due <= now {
            return Poll::Ready(());
        }
        let armed = self.armed.get_or_insert_with(|| Armed(Box::pin(sleep_until(due)), now));
        if armed.is_wrong(due, now) {
            armed.reset(due, now);
        }
        // Where it fires early it is set to what is due.
        while armed.0.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if due <= now {
                return Poll::Ready(());
            }
            armed.reset(due, now);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn it_fires_when_it_was_set_to_last_however_often_that_was() {
        let (begin, mut alarm) = (Instant::now(), Alarm::default());
        let fired = async |alarm: &mut Alarm| {
            alarm.fires().await;
            begin.elapsed()
        };
        for after in [50, 100, 10, 30] {
            alarm.set(Some(begin + MS * after));
            assert!(poll_fn(|context| Poll::Ready(alarm.poll(context).is_pending())).await);
        }
        assert_eq!(fired(&mut alarm).await, MS * 30);
        assert_eq!(fired(&mut alarm).await, MS * 30, "until it is set again");
        alarm.set(Some(begin + MS * 40));
        assert_eq!(fired(&mut alarm).await, MS * 40);
        alarm.set(None);
        assert!(tokio::time::timeout(MS * 1_000, alarm.fires()).await.is_err());
    }
}
