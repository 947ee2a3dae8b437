//! The ring and gateways, as operators see and add them.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{Eui64, UnixMicros};

/// A gateway to add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayAdd {
    pub eui: Eui64,
    /// Default: the EUI.
    pub name: Option<String>,
    /// Name or id of its tenant. Default: the first one.
    pub tenant: Option<String>,
    /// [`crate::policy::AddressPolicy`] as text. Default: as that type has it.
    pub address: Option<String>,
}

/// The ring, and the choice for one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RingReport {
    /// Counted up with each change of the ring.
    pub epoch: u64,
    pub workers: Vec<RingWorker>,
    /// The worker of the EUI that was asked for.
    pub worker: Option<String>,
    /// Why that worker: a sentence.
    pub why: Option<String>,
    /// The workers that would follow, in order.
    #[serde(default)]
    pub next: Vec<String>,
}
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RingWorker {
    pub name: String,
    pub weight: u32,
    pub share: f64,
}

/// A gateway, known or heard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    pub eui: Eui64,
    #[serde(default)]
    pub name: String,
    pub known: bool,
    pub address: Option<String>,
    pub last_seen: Option<UnixMicros>,
    /// Of a known gateway that was heard at some time: whether it is there now.
    #[serde(default)]
    pub online: Option<bool>,
    pub worker: Option<String>,
    /// The ring's epoch of that choice.
    pub epoch: Option<u64>,
    /// What it may do with its address, an [`crate::policy::AddressPolicy`] as text; `None` if nobody has said so.
    #[serde(default)]
    pub policy: Option<String>,
}
