//! What a row of the pending table holds besides its key.

use limpet_worker_core::model::Event;
use serde::{Deserialize, Serialize};

use crate::PendingEvent;

/// The event, and beside its fields what was not there in earlier versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WaitingBody {
    #[serde(flatten)]
    pub event: Event,
    #[serde(default, skip_serializing_if = "is_none")]
    pub refusals: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

impl From<&PendingEvent> for WaitingBody {
    fn from(of: &PendingEvent) -> Self {
        Self { event: of.event.clone(), refusals: of.refusals }
    }
}
