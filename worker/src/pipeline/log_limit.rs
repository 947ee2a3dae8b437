//! A [`LogLimit`] that many tasks write under.

use std::time::Duration;

use limpet_shared::{LogLimit, UnixMicros};
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<LogLimit>);

impl LineLimit {
    pub fn of(period: Duration) -> Self {
        Self(Mutex::new(LogLimit::of(period)))
    }

    /// As [`LogLimit::admit`].
    pub fn admit(&self, now: UnixMicros) -> Option<u64> {
        self.0.lock().admit(now)
    }
}
