//! The promises of the design's first section, from what is seen outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use uuid::Uuid;

use crate::field::{Seen, UplinkKey};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Promise 1: a gateway has a PUSH_ACK for it, and no event was told.
    Lost(UplinkKey),
    /// Promise 2: one uplink under two event ids.
    TwoEvents(UplinkKey, Uuid, Uuid),
    /// Promise 3: two different payloads under one FCntDown.
    CounterReused(usize, u32),
    /// An event of an uplink that no device has sent.
    Invented(UplinkKey),
    /// Promise 2: one uplink was answered under several FCntDowns.
    TwoAnswers(UplinkKey),
    /// Promise 9: what an application enqueued in time did not leave in the windows of that uplink though nothing went wrong.
    Late(UplinkKey),
    /// A confirmed uplink got no ACK though nothing went wrong.
    Unanswered(UplinkKey),
    /// First deliveries of one device are not in the order of acceptance.
    OutOfOrder(UplinkKey, UplinkKey),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uplink = |(device, fcnt): &UplinkKey| format!("uplink {fcnt} of device {device}");
        match self {
            Self::Lost(key) => write!(f, "promise 1: {} was acknowledged and never told", uplink(key)),
            Self::TwoEvents(key, one, other) => {
                write!(f, "promise 2: {} was told as {one} and as {other}", uplink(key))
            }
            Self::CounterReused(device, fcnt) => {
                write!(f, "promise 3: device {device} was sent two payloads under FCntDown {fcnt}")
            }
            Self::TwoAnswers(key) => write!(f, "promise 2: {} was answered twice", uplink(key)),
            Self::Late(key) => write!(f, "promise 9: the answer to {} was not in its windows", uplink(key)),
            Self::Invented(key) => write!(f, "{} was told and never sent", uplink(key)),
            Self::Unanswered(key) => write!(f, "{} had no ACK though nothing went wrong", uplink(key)),
            Self::OutOfOrder(one, other) => write!(f, "{} was told before {}", uplink(one), uplink(other)),
        }
    }
}

/// What an application says to an uplink.
pub fn reply((device, fcnt): UplinkKey) -> Vec<u8> {
    format!("reply {device} {fcnt}").into_bytes()
}

/// What was told: device, FCntUp, id; in the order of arrival.
pub type Told = Vec<(UplinkKey, Uuid)>;

/// Everything that was broken. `calm`: nothing went wrong in this run.
/// `replied`: uplinks whose answers were enqueued in time.
pub fn check(seen: &Seen, told: &Told, replied: &BTreeSet<UplinkKey>, calm: bool) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut ids = BTreeMap::<UplinkKey, Uuid>::new();
    for (key, id) in told {
        if !seen.sent.contains_key(key) {
            found.push(Violation::Invented(*key));
        }
        match ids.get(key) {
            Some(known) if known != id => found.push(Violation::TwoEvents(*key, *known, *id)),
            Some(_) => {}
            None => drop(ids.insert(*key, *id)),
        }
    }
    found.extend(seen.acked.iter().filter(|key| !ids.contains_key(key)).map(|key| Violation::Lost(*key)));
    let mut downs = BTreeMap::<(usize, u32), &[u8]>::new();
    let mut reused: BTreeSet<(usize, u32)> = seen.reused.iter().map(|device| (*device, u32::MAX)).collect();
    for (device, fcnt, bytes) in &seen.on_air {
        let known = downs.entry((*device, *fcnt)).or_insert(bytes);
        if known != bytes {
            reused.insert((*device, *fcnt));
        }
    }
    found.extend(reused.into_iter().map(|(device, fcnt)| Violation::CounterReused(device, fcnt)));
    let twice = seen.answers.iter().filter(|(_, (counters, _))| counters.len() > 1);
    found.extend(twice.map(|(key, _)| Violation::TwoAnswers(*key)));
    if calm {
        let carries = |key: &&UplinkKey| seen.answers.get(*key).is_some_and(|(_, said)| said.contains(&reply(**key)));
        found.extend(replied.iter().filter(|key| !carries(key)).map(|key| Violation::Late(*key)));
        let missed = seen.asked.difference(&seen.confirmed).filter(|key| seen.acked.contains(key));
        found.extend(missed.map(|key| Violation::Unanswered(*key)));
        found.extend(out_of_order(told));
    }
    found
}

fn out_of_order(told: &Told) -> Vec<Violation> {
    let mut last = BTreeMap::<usize, u32>::new();
    let mut first = BTreeSet::new();
    let mut found = Vec::new();
    for (key @ (device, fcnt), _) in told.iter().filter(|(key, _)| first.insert(*key)) {
        let before = last.entry(*device).or_insert(*fcnt);
        if *before > *fcnt {
            found.push(Violation::OutOfOrder((*device, *before), *key));
        }
        *before = (*before).max(*fcnt);
    }
    found
}
