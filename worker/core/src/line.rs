//! Which of the datagrams that a worker was sent it takes up next, and when, if more come than it can do.
//!
//! Gateways do not send again, so nothing that fits into memory is thrown away; but what has a receive window left goes first:
//!
//! 1. An *open* datagram, received within [`OPEN`] ([`JOIN_OPEN`] with a JoinRequest): the newest first. Under more work than can
//!    be done each would otherwise wait until its window is nearly over, and after it the new ones behind the old.
//! 2. Then the *late* ones, the oldest first, and few at a time, so that an open one that comes meanwhile does not wait for them.
//!
//! Of one device an open datagram goes after the open ones that it has sent before, and passes late ones only so far
//! that these can still be told from replays ([`PASSES`]): beyond that its late ones go first. So each device's late uplinks are in order, and its
//! open ones.
//!
//! What may be in work at once is measured in datagrams that there is something to do for: being stored, or being decided. Those
//! that wait for copies, for an integration or for the time of their answer cost nothing and do not count, but for memory. What takes
//! longer than three seconds (`COUNTED`) waits for something too, a part of the store that is away or a row that cannot be read, and counts no
//! more either.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use limpet_shared::{DevAddr, gwmp::Glance};

use crate::seen::REMEMBERED;

/// From the reception to the last moment at which beginning with an uplink still meets RX2 of a device with an RX1 delay of 1 s: the
/// window for copies, the time for an answer and the decision take half a second.
pub const OPEN: Duration = Duration::from_millis(1_500);
/// The same for a JoinRequest (JOIN_ACCEPT_DELAY2 is 6 s).
pub const JOIN_OPEN: Duration = Duration::from_secs(5);
/// An uplink passes late ones of its device that are fewer counters behind. Half of what a session remembers: the rest is for what
/// is in work, which it passes only in part, and at other workers.
pub const PASSES: u32 = REMEMBERED / 2;

/// Datagrams worked on at once, whatever the pace; and of these late ones.
const BUSY: usize = 256;
const BUSY_LATE: usize = 64;
/// What is decided in so long (as a part of a second) may be worked on at once, if that is more.
const BUSY_PART: usize = 4;
const BUSY_LATE_PART: usize = 24;
/// Datagrams taken up and not done, those that cost nothing now included.
const TAKEN_UP: usize = 60_000;
/// In how many seconds, the present one included, that must have begun which counts as worked on.
const COUNTED: u64 = 3;
/// What a datagram costs besides its bytes, roughly, and each of its packets.
const OVERHEAD: usize = 700;
const PACKET: usize = 400;
/// A datagram has as many packets as a gateway likes; of more than this the line does not look at who goes first.
const STEPS: usize = 64;

/// What a datagram is for the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A receive window is left.
    Open,
    /// None is.
    Late,
}

impl Class {
    /// Of a data uplink that was received so long ago.
    pub fn of(age: Duration) -> Self {
        if age < OPEN { Self::Open } else { Self::Late }
    }
}

/// Moments are monotonic, since any fixed one. The number tells those of one moment apart.
type Key = (Duration, u64);

struct Waiting<T> {
    item: T,
    devices: Vec<(DevAddr, u16)>,
    cost: usize,
}

/// The datagrams of all links that were read and not taken up.
pub struct Line<T> {
    limit: usize,
    bytes: usize,
    last: u64,
    waiting: BTreeMap<Key, Waiting<T>>,
    /// Of each device, with their counters.
    devices: BTreeMap<DevAddr, BTreeMap<Key, u16>>,
    joins: BTreeSet<Key>,
}

impl<T> Line<T> {
    /// It has room while fewer bytes than this wait.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, last: 0, waiting: BTreeMap::new(), devices: BTreeMap::new(), joins: BTreeSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// Takes in what was received then: so many bytes, with these packets.
    pub fn push(&mut self, received: Duration, bytes: usize, packets: &[Glance], item: T) {
        self.last += 1;
        let key = (received, self.last);
        let cost = bytes + OVERHEAD + packets.len() * PACKET;
        let mut devices = Vec::new();
        for packet in packets {
            match packet {
                Glance::Data { dev_addr, fcnt } => {
                    self.devices.entry(*dev_addr).or_default().insert(key, *fcnt);
                    devices.push((*dev_addr, *fcnt));
                }
                Glance::JoinRequest => {
                    self.joins.insert(key);
                }
            }
        }
        self.bytes += cost;
        self.waiting.insert(key, Waiting { item, devices, cost });
    }

    /// What goes next, if it is of this class.
    pub fn pop(&mut self, now: Duration, class: Class) -> Option<T> {
        let open = self.newest_open(now);
        let key = match (class, open) {
            (Class::Open, Some(key)) => self.before(now, key),
            (Class::Late, None) => *self.waiting.first_key_value()?.0,
            _ => return None,
        };
        self.take(key)
    }

    fn newest_open(&self, now: Duration) -> Option<Key> {
        let newest = self.waiting.last_key_value().map(|(key, _)| *key);
        let is_open = |key: &Key, limit| now.saturating_sub(key.0) < limit;
        newest
            .filter(|key| is_open(key, OPEN))
            .or_else(|| self.joins.last().copied().filter(|key| is_open(key, JOIN_OPEN)))
    }

    /// What must go before this one does, or itself.
    fn before(&self, now: Duration, mut key: Key) -> Key {
        for _ in 0..STEPS {
            let devices = self.waiting.get(&key).map(|waiting| &waiting.devices[..]).unwrap_or_default();
            let first = devices.iter().filter_map(|(device, fcnt)| self.first_of(now, *device, *fcnt, key)).min();
            match first {
                Some(first) => key = first,
                None => break,
            }
        }
        key
    }

    /// Of that device's, what goes before.
    fn first_of(&self, now: Duration, device: DevAddr, fcnt: u16, key: Key) -> Option<Key> {
        let lane = self.devices.get(&device)?;
        let (oldest, counter) = lane.first_key_value()?;
        // One that counts below those that wait has begun anew, or somebody repeats it: in the order received.
        if u32::from(fcnt.wrapping_sub(*counter)) >= PASSES {
            return Some(*oldest).filter(|oldest| *oldest < key);
        }
        let opened = now.saturating_sub(OPEN);
        let first_open = lane.range((opened, 0)..).find(|(at, _)| now.saturating_sub(at.0) < OPEN);
        first_open.map(|(at, _)| *at).filter(|at| *at < key)
    }

    fn take(&mut self, key: Key) -> Option<T> {
        let Waiting { item, devices, cost } = self.waiting.remove(&key)?;
        self.bytes -= cost;
        self.joins.remove(&key);
        for (device, _) in devices {
            if let Some(lane) = self.devices.get_mut(&device) {
                lane.remove(&key);
                if lane.is_empty() {
                    self.devices.remove(&device);
                }
            }
        }
        Some(item)
    }
}

/// How much is in work, and so whether more is taken up.
#[derive(Clone, Debug, Default)]
pub struct Busy {
    /// What is worked on, by the second in which that began.
    begun: [Second; COUNTED as usize],
    taken_up: usize,
    decided: usize,
    /// How many were decided in the second before the one that began then.
    pace: usize,
    second: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    open: usize,
    late: usize,
}

impl Second {
    fn of(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Open => &mut self.open,
            Class::Late => &mut self.late,
        }
    }
}

/// Something that was begun with, and is over when it is given back to [`Busy::end`].
#[derive(Debug)]
pub struct Begun {
    class: Class,
    second: u64,
}

impl Begun {
    pub fn class(&self) -> Class {
        self.class
    }
}

impl Busy {
    /// Whether a datagram of this class may be taken up.
    pub fn has_room(&mut self, now: Duration, class: Class) -> bool {
        self.look(now);
        let all = BUSY.max(self.pace / BUSY_PART);
        let late = BUSY_LATE.max(self.pace / BUSY_LATE_PART);
        let counted = self.begun.iter().filter(|second| second.number + COUNTED > now.as_secs());
        let (open_now, late_now) = counted.fold((0, 0), |(open, late), of| (open + of.open, late + of.late));
        self.taken_up < TAKEN_UP && open_now + late_now < all && (class == Class::Open || late_now < late)
    }

    fn look(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.second);
        if elapsed >= Duration::from_secs(1) {
            let per_second = self.decided as f64 / elapsed.as_secs_f64();
            // Down slowly: a moment without work says nothing about how much could be done.
            self.pace = (per_second as usize).max(self.pace / 2);
            (self.decided, self.second) = (0, now);
        }
    }

    fn second(&mut self, number: u64) -> &mut Second {
        &mut self.begun[(number % COUNTED) as usize]
    }

    /// A datagram is taken up.
    pub fn take_up(&mut self) {
        self.taken_up += 1;
    }

    /// Nothing is left to do for it.
    pub fn done(&mut self) {
        self.taken_up = self.taken_up.saturating_sub(1);
    }

    /// There is something to do.
    pub fn begin(&mut self, now: Duration, class: Class) -> Begun {
        let number = now.as_secs();
        let second = self.second(number);
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        *second.of(class) += 1;
        Begun { class, second: number }
    }

    /// That is done. `decided`: and with it the uplink is.
    pub fn end(&mut self, begun: &Begun, decided: bool) {
        let second = self.second(begun.second);
        if second.number == begun.second {
            let of = second.of(begun.class);
            *of = of.saturating_sub(1);
        }
        self.decided += usize::from(decided);
    }
}

#[cfg(test)]
mod tests;
