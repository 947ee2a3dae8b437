//! What happened, as anybody could see it: what was sent, acknowledged, told, on air.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use limpet_shared::Eui64;
use limpet_store_testing::fault::Asked;
use parking_lot::Mutex;
use uuid::Uuid;

/// The number of an uplink, which is also its payload: so an event says which one it is of, whatever else is wrong.
pub type Serial = u32;

/// An uplink that left a device.
#[derive(Clone, Debug)]
pub struct Sent {
    pub device: usize,
    pub dev_addr: u32,
    pub fcnt: u32,
    pub at: Duration,
    pub confirmed: bool,
    /// Gateways that heard it, however often.
    pub heard: BTreeSet<usize>,
    /// Of these the ones that kept it for a while, or whose balancer did not read it at once.
    pub late: BTreeSet<usize>,
    /// The device has lost its counters before, and has not come beyond them.
    pub is_again: bool,
    /// A gateway that asks for downlinks and transmits some has heard it, and could tell of it at once.
    pub can_be_answered: bool,
}

/// A JoinRequest that left a device.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub device: usize,
    pub dev_nonce: u16,
    pub at: Duration,
    pub can_be_answered: bool,
    /// A gateway has a PUSH_ACK for it.
    pub acked: bool,
    pub accepted: bool,
}

/// A JoinAccept on the air.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accept {
    pub device: usize,
    pub join_nonce: u32,
    pub phy: Vec<u8>,
}

/// What gateways and devices saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub sent: BTreeMap<Serial, Sent>,
    /// Gateways that have a PUSH_ACK for it.
    pub acked: BTreeMap<Serial, BTreeSet<usize>>,
    /// Confirmed uplinks whose ACK the device has heard.
    pub answered: BTreeSet<Serial>,
    /// What the device heard in the windows of an uplink: FCntDowns, and payloads.
    pub heard: BTreeMap<Serial, (BTreeSet<u32>, BTreeSet<Vec<u8>>)>,
    /// Uplinks that the device has listened after.
    pub listened: BTreeSet<Serial>,
    pub joins: Vec<Asking>,
    /// Sessions that devices have: device, DevAddr.
    pub sessions: BTreeSet<(usize, u32)>,
    pub accepts: Vec<Accept>,
    /// Data downlinks on the air: DevAddr and FCnt, and the different bytes.
    pub downlinks: BTreeMap<(u32, u16), BTreeSet<Vec<u8>>>,
    /// Devices that have heard two different downlinks under one FCntDown.
    pub reused: BTreeSet<usize>,
    /// Gateways that were asked twice for one window of one downlink, by a balancer that had not died meanwhile.
    pub asked_twice: BTreeSet<usize>,
    /// Queue items that a gateway has transmitted.
    pub items_on_air: BTreeSet<usize>,
    pub refused: u64,
}

/// What an endpoint was told.
#[derive(Clone, Debug)]
pub struct Told {
    pub at: Duration,
    pub device: usize,
    pub id: Uuid,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An uplink, with the gateways that are named.
    Up {
        serial: Serial,
        dev_addr: u32,
        fcnt: u32,
        gateways: BTreeSet<Eui64>,
    },
    Join {
        dev_addr: u32,
    },
    /// Something of a queue item that is its end: transmitted, acknowledged or not, given up.
    Item(usize),
    Other,
}

/// What an application says to an uplink.
pub fn reply(serial: Serial) -> Vec<u8> {
    format!("reply {serial}").into_bytes()
}

/// What a balancer says of the ring.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Duration,
    pub balancer: usize,
    /// How often it was started before.
    pub run: usize,
    /// Workers on the ring, with their weights.
    pub workers: BTreeMap<String, u32>,
    /// For each gateway its worker.
    pub choices: Vec<Option<String>>,
}

/// What a worker had asked of the store by some moment, since it started.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub at: Duration,
    pub worker: usize,
    pub asked: Asked,
}

/// What happened, for people, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub fn say(&self, now: Duration, what: impl AsRef<str>) {
        self.0.lock().push(format!("{:>9.3} s  {}", now.as_secs_f64(), what.as_ref()));
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}
