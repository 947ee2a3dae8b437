//! Integrations: where events go, what waits for them, and why. Nothing here holds what devices have sent: a balancer may pass
//! it on.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::{Eui64, UnixMicros};

/// Where events of an application go: a URL of its HTTP integration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Integration {
    /// A UUID: the application's, unless that has several URLs. What waits under an application's for several of them, waits for
    /// each.
    pub id: String,
    pub application_id: String,
    /// Names of what it belongs to; empty if the application is gone.
    pub application: String,
    pub tenant: String,
    /// `http`; empty if it was removed.
    pub kind: String,
    /// Where events go, without path and query: these may hold secrets.
    pub endpoint: String,
    /// Which of the application's URLs it is, from 1 on; 0 if it has only this one.
    pub number: u32,
    /// `ok`, `waiting` (something waits) or `failing` (within a minute an event was offered in vain and waits, or was refused).
    pub state: String,
    /// Events that wait, and their size in bytes.
    pub waiting: u64,
    pub bytes: u64,
    /// When the event that waits longest was set aside to wait.
    pub oldest: Option<UnixMicros>,
    /// The last failure, while something waits or events are refused.
    pub trouble: Option<IntegrationTrouble>,
}

/// An integration that takes no events, or refuses them, as one worker has found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrationTrouble {
    /// [`Integration::id`].
    pub integration: String,
    /// [`Integration::application_id`].
    pub application: String,
    /// `connection_refused`, `dns`, `tls`, `unreachable`, `timed_out`, `not_now` (an HTTP status), `url` or `header`; of an
    /// event itself `refused` (an HTTP status) or `render` (it cannot be written as the integration wants it).
    pub reason: String,
    /// The same in words.
    pub error: String,
    /// Trying again is unlikely to help before someone changes the integration or its endpoint.
    pub needs_operator: bool,
    /// Since when it fails, when it failed last, and how often.
    pub since: UnixMicros,
    pub last: UnixMicros,
    pub failures: u64,
}

/// What waits for an integration, as the worker that sends it has counted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrationBacklog {
    /// [`Integration::id`].
    pub integration: String,
    pub events: u64,
    pub bytes: u64,
    /// When the event that waits longest was set aside to wait.
    pub oldest: UnixMicros,
}

impl IntegrationBacklog {
    /// Told of at most, those for which most waits: it is written down every few seconds.
    pub const TOLD: usize = 100;
}

impl IntegrationTrouble {
    /// Whether events are given up for it, after three tries, instead of waiting.
    pub fn refuses(&self) -> bool {
        matches!(self.reason.as_str(), "refused" | "render")
    }
}

/// An event that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingEvent {
    /// What receivers know it by (`deduplicationId`).
    pub id: String,
    /// `up`, `join`, `ack`, `txack` or `log`.
    pub event: String,
    pub dev_eui: Eui64,
    pub device: String,
    /// When it happened.
    pub at: UnixMicros,
}
