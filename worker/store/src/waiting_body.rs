//! What a row of the pending table holds besides its key.

use limpet_worker_core::model::Event;
use serde::{Deserialize, Serialize};

use crate::PendingEvent;

/// The event, and beside its fields what was not there in earlier versions.
#[derive(Serialize, Deserialize)]
pub(crate) struct WaitingBody<E> {
    #[serde(flatten)]
    pub event: E,
    #[serde(default, skip_serializing_if = "is_none")]
    pub refusals: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

impl<'a> From<&'a PendingEvent> for WaitingBody<&'a Event> {
    fn from(of: &'a PendingEvent) -> Self {
        Self { event: &of.event, refusals: of.refusals }
    }
}
