//! What is stored of a device's joins.

use alloc::{collections::BTreeMap, vec::Vec};

use limpet_shared::{Eui64, UnixMicros};
use serde::{Deserialize, Serialize};

use super::{PlannedDownlink, Session, SessionKey};

/// One row a device, changed by compare-and-set on `rev` together with the nonce row that a join adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceState {
    pub dev_eui: Eui64,
    /// 0 before the row exists.
    pub rev: u64,
    /// The JoinNonce that the next JoinAccept will have; never used twice.
    pub next_join_nonce: u32,
    /// The highest DevNonce accepted (LoRaWAN 1.0.4 counts up).
    pub highest_dev_nonce: Option<u16>,
    /// The session of the last join or activation, and when its request was received.
    pub current: Option<CurrentSession>,
    /// The session before it: a device goes on using it until it has heard the JoinAccept.
    pub previous: Option<SessionKey>,
    /// Those that are over, the one that ended first in front ([`crate::former`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerSession>,
    /// How far the keys of earlier sessions have counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down_counters: Vec<DownCounter>,
}

/// A session that is over, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerSession {
    pub key: SessionKey,
    pub at: UnixMicros,
}

/// A session key of the past, and the FCntDown that it would go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownCounter {
    /// A hash of the key.
    pub key: u64,
    pub next: u32,
}

/// The session that a device should be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentSession {
    pub key: SessionKey,
    pub since: UnixMicros,
    /// The DevNonce of its join; `None` for ABP.
    pub dev_nonce: Option<u16>,
}

impl DeviceState {
    /// A device that never joined.
    pub fn new(dev_eui: Eui64) -> Self {
        Self {
            dev_eui,
            rev: 0,
            next_join_nonce: 1,
            highest_dev_nonce: None,
            current: None,
            previous: None,
            former: Vec::new(),
            down_counters: Vec::new(),
        }
    }
}

/// A used DevNonce: holds the whole join, so that any worker can finish it with the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinRow {
    pub dev_eui: Eui64,
    pub dev_nonce: u16,
    /// The session to create, its slot holding the join event and the JoinAccept.
    pub session: Session,
    /// The JoinAccept.
    pub accept: PlannedDownlink,
    /// The session before the one before: nobody can be in it any more, and whoever finishes the join ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<SessionKey>,
    /// Sessions that were over and are kept no more, to be deleted with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<SessionKey>,
}

impl JoinRow {
    /// A newer join came after it: all that is left is which session it made, so that its request is known again.
    pub fn is_over(&self) -> bool {
        self.accept.phy.is_empty()
    }
}

/// Tags or variables, as ChirpStack's clients send them.
pub type Tags = BTreeMap<alloc::string::String, alloc::string::String>;
