//! What waits, as it was counted last by the worker that sends it: the others tell of that, for what they know of themselves is
//! what was put, and not what was sent.

use std::cmp::Reverse;

use limpet_shared::admin::IntegrationBacklog;
use limpet_store::Backlog;
use parking_lot::Mutex;

/// `None` at a worker that does not send.
#[derive(Debug, Default)]
pub(crate) struct Counted(Mutex<Option<Vec<Backlog>>>);

impl Counted {
    pub(super) fn set(&self, mut backlog: Vec<Backlog>) {
        backlog.sort_by_key(|of| (Reverse(of.events), of.integration));
        *self.0.lock() = Some(backlog);
    }

    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }

    /// Whether this worker sends.
    pub fn is_ours(&self) -> bool {
        self.0.lock().is_some()
    }

    /// For the others.
    pub fn told(&self) -> Option<Vec<IntegrationBacklog>> {
        let counted = self.0.lock();
        let told = |of: &Backlog| IntegrationBacklog {
            integration: of.integration.0.to_string(),
            events: of.events,
            bytes: of.bytes,
            oldest: of.oldest,
        };
        Some(counted.as_ref()?.iter().take(IntegrationBacklog::TOLD).map(told).collect())
    }
}
