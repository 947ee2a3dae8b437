//! What an uplink is answered. It stands beside the slot, for it is the highest uplink's: one that was overtaken takes the slot
//! and leaves the answer.
//!
//! The stored form has the decided answer of the slot's own uplink in the slot, where all was decided at once in earlier
//! versions: so their rows and exports are read, and they read what they can know of.

use alloc::{boxed::Box, string::String, vec::Vec};

use limpet_shared::UnixMicros;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{PlannedDownlink, PlannedGateway, Session};

/// What is said to a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing, and that stays so.
    #[default]
    Closed,
    /// It can still be decided, while a window is left.
    Open(Box<OpenAnswer>),
    /// Those bytes, and never others.
    Decided(Box<DecidedAnswer>),
}

/// What deciding an answer needs, for any worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenAnswer {
    /// Number of the slot that it was opened with.
    pub slot: u64,
    /// When it was opened, on the clock that the slot's `received_at` is on.
    pub opened_at: UnixMicros,
    /// The device wants an ACK.
    pub ack: bool,
    /// The ADR bit, as the device has it.
    pub adr: bool,
    /// Something must be said: the device asks whether it is heard (ADRACKReq), it repeats an answer until it hears something, or
    /// it is time for a request.
    pub asked: bool,
    /// Answers to the device's MAC commands; at most what FOpts hold.
    pub fopts: Vec<u8>,
    /// MAC commands that ask the device for something, in the order of their urgency; those that fit go along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<u8>,
    /// The gateways that can answer, the best first, with all windows, also those that are over.
    pub gateways: Vec<PlannedGateway>,
    /// The region that the windows are of.
    pub region: String,
}

/// An answer that was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecidedAnswer {
    /// Number of the slot of its uplink.
    pub slot: u64,
    pub downlink: PlannedDownlink,
}

impl OpenAnswer {
    /// Whether there is something to say without a queue item too.
    pub fn owes(&self) -> bool {
        self.ack || self.asked || !self.fopts.is_empty()
    }
}

impl Answer {
    pub fn decided(slot: u64, downlink: PlannedDownlink) -> Self {
        Self::Decided(Box::new(DecidedAnswer { slot, downlink }))
    }

    pub fn is_closed(&self) -> bool {
        *self == Self::Closed
    }

    pub fn as_open(&self) -> Option<&OpenAnswer> {
        if let Self::Open(open) = self { Some(open) } else { None }
    }

    pub fn as_decided(&self) -> Option<&DecidedAnswer> {
        if let Self::Decided(decided) = self { Some(decided) } else { None }
    }
}

impl Session {
    /// What the slot's own uplink (or join) was answered.
    pub fn slot_answer(&self) -> Option<&DecidedAnswer> {
        self.answer.as_decided().filter(|decided| decided.slot == self.slot.number)
    }
}

impl Serialize for Session {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(own) = self.slot_answer() else { return Self::serialize(self, serializer) };
        let mut stored = self.clone();
        stored.slot.stored = Some(Box::new(own.downlink.clone()));
        stored.answer = Answer::Closed;
        Self::serialize(&stored, serializer)
    }
}

impl<'de> Deserialize<'de> for Session {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut session = Self::deserialize(deserializer)?;
        if let Some(own) = session.slot.stored.take() {
            session.answer = Answer::decided(session.slot.number, *own);
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::{AesKey, DevAddr, Eui64, region::Region};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        model::{SessionId, SessionKey, SessionKeys},
        session,
    };

    fn session(slot: u64, answer: Answer) -> Session {
        let key = SessionKey { dev_addr: DevAddr(1), dev_eui: Eui64(2), id: SessionId(3) };
        let keys = SessionKeys { nwk_s_key: AesKey([1; 16]), app_s_key: AesKey([2; 16]) };
        let mut session = session::begin(key, UnixMicros(4), true, Region::by_name("eu868").unwrap(), keys);
        (session.slot.number, session.answer) = (slot, answer);
        session
    }

    fn downlink() -> PlannedDownlink {
        PlannedDownlink {
            key: 1,
            gateway: Eui64(2),
            fcnt_down: 3,
            phy: alloc::vec![4],
            windows: Vec::new(),
            balancer: 0,
            item: None,
            others: Vec::new(),
        }
    }

    fn open(slot: u64) -> Answer {
        Answer::Open(Box::new(OpenAnswer {
            slot,
            opened_at: UnixMicros(1),
            ack: true,
            adr: false,
            asked: false,
            fopts: Vec::new(),
            requests: Vec::new(),
            gateways: Vec::new(),
            region: "eu868".into(),
        }))
    }

    #[test]
    fn a_row_of_an_earlier_version_has_the_answer_in_its_slot() {
        let stored = serde_json::to_value(session(7, Answer::decided(7, downlink()))).unwrap();
        assert_eq!(stored["slot"]["downlink"]["fcnt_down"], 3);
        assert_eq!(stored.get("answer"), None);
        let read: Session = serde_json::from_value(stored.clone()).unwrap();
        let answer = read.slot_answer().map(|decided| &decided.downlink);
        assert_eq!((answer, &read.slot.stored), (Some(&downlink()), &None));
        assert_eq!(serde_json::to_value(read).unwrap(), stored, "an export of it comes back as it was");
        let silent = serde_json::to_value(session(7, Answer::Closed)).unwrap();
        assert_eq!((&silent["slot"]["downlink"], silent.get("answer")), (&Value::Null, None));
    }

    #[test]
    fn every_answer_comes_back_as_it_was_stored() {
        for answer in [Answer::Closed, open(7), open(6), Answer::decided(7, downlink()), Answer::decided(6, downlink())]
        {
            let session = session(7, answer);
            let stored = serde_json::to_string(&session).unwrap();
            assert_eq!(serde_json::from_str::<Session>(&stored).unwrap(), session, "{stored}");
        }
        let empty = json!({ "open": {} });
        assert!(serde_json::from_value::<Answer>(empty).is_err());
    }
}
