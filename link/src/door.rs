//! Whom to let begin a handshake, when strangers knock faster than they can be served. Pure: time is an argument.
//!
//! An address is **known** once a server behind it has shown a certificate or a token of the cluster, **fresh** when
//! nothing is known of it, and **failed** when a handshake of it came to nothing of late. Each of the three has a rate and
//! a number of places of its own, so that who floods the port competes with others that do, and with nobody else. Who has a
//! network full of addresses, of which many have failed, is no longer fresh with the next one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Introductions that go on at the same time from one address: machines behind one NAT, or pods of one node.
const OF_ONE_ADDRESS: usize = 16;
/// What is known of an address is forgotten after one to two times this.
const MEMORY: Duration = Duration::from_secs(60);
/// Addresses that are remembered in each half of the memory.
const REMEMBERED: usize = 32_768;
/// So many failed addresses of one network, a /24 or a /48, make all of it failed.
const OF_ONE_NETWORK: u32 = 64;
/// An introduction has this long before it makes room for a newcomer: a round trip over a bad line takes as long.
const TIME: Duration = Duration::from_secs(1);
/// Addresses of the cluster's servers that are remembered.
const KNOWN: usize = 4_096;

/// What an address has shown of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reputation {
    Known,
    Fresh,
    Failed,
}

/// What the addresses of one reputation get.
struct Share {
    /// Handshakes per second, and at once.
    rate: f64,
    burst: f64,
    /// Introductions at the same time.
    places: usize,
}

/// A handshake costs some 0.3 ms of a processor.
const fn share(reputation: Reputation) -> Share {
    match reputation {
        Reputation::Known => Share { rate: 500.0, burst: 500.0, places: 128 },
        Reputation::Fresh => Share { rate: 500.0, burst: 250.0, places: 256 },
        Reputation::Failed => Share { rate: 50.0, burst: 25.0, places: 64 },
    }
}

/// What may begin, and what has to end for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Admission {
    pub id: u64,
    /// The introduction that has gone on for longest, and gives its place up.
    pub evicted: Option<u64>,
}

/// Tokens that fill up with time.
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, share: &Share) -> bool {
        let filled = self.level + share.rate * now.saturating_duration_since(self.at).as_secs_f64();
        (self.level, self.at) = (filled.min(share.burst), now);
        let enough = self.level >= 1.0;
        self.level -= if enough { 1.0 } else { 0.0 };
        enough
    }
}

/// The introductions of one reputation.
struct Class {
    reputation: Reputation,
    bucket: Bucket,
    /// In the order in which they began.
    going_on: VecDeque<(u64, IpAddr, Instant)>,
}

impl Class {
    fn new(reputation: Reputation, now: Instant) -> Self {
        let bucket = Bucket { level: share(reputation).burst, at: now };
        Self { reputation, bucket, going_on: VecDeque::new() }
    }
}

/// Addresses that failed within some time.
#[derive(Default)]
struct Failed {
    addresses: HashSet<IpAddr>,
    /// How many of them each network has.
    networks: HashMap<IpAddr, u32>,
}

/// See the module.
pub struct Door {
    classes: [Class; 3],
    known: HashMap<IpAddr, Instant>,
    /// Addresses that failed of late: in this half of the memory, and in the one before.
    failed: [Failed; 2],
    turned: Instant,
    next: u64,
}

impl Door {
    /// With the addresses that an earlier run has known.
    pub fn new(now: Instant, known: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            classes: [Reputation::Known, Reputation::Fresh, Reputation::Failed]
                .map(|reputation| Class::new(reputation, now)),
            known: known.into_iter().take(KNOWN).map(|address| (address, now)).collect(),
            failed: Default::default(),
            turned: now,
            next: 0,
        }
    }

    /// Whether a stranger that has shown that it owns its address may begin; `None`: it is ignored, and may knock again.
    pub fn knock(&mut self, now: Instant, address: SocketAddr) -> Option<Admission> {
        self.forget(now);
        let who = whom(address);
        let going_on =
            self.classes.iter().flat_map(|class| &class.going_on).filter(|(_, other, _)| *other == who).count();
        if going_on >= OF_ONE_ADDRESS {
            return None;
        }
        let reputation = self.reputation(who);
        let class = self.classes.iter_mut().find(|class| class.reputation == reputation)?;
        let share = share(reputation);
        let full = class.going_on.len() >= share.places;
        // Only among those of whom nothing is known is the newest as good as the oldest, once that has had its time.
        let makes_room = reputation == Reputation::Fresh
            && class.going_on.front().is_some_and(|(_, _, began)| now.saturating_duration_since(*began) >= TIME);
        if (full && !makes_room) || !class.bucket.take(now, &share) {
            return None;
        }
        let evicted = if full { class.going_on.pop_front() } else { None };
        self.next += 1;
        class.going_on.push_back((self.next, who, now));
        if let Some((_, address, _)) = evicted {
            self.fail(address);
        }
        Some(Admission { id: self.next, evicted: evicted.map(|(id, ..)| id) })
    }

    /// An introduction has ended: it was a server of the cluster, or it came to nothing. Whether an address is known now that was
    /// not before.
    pub fn ended(&mut self, now: Instant, id: u64, good: bool) -> bool {
        let classes = self.classes.iter_mut();
        let found = classes.filter_map(|class| {
            let at = class.going_on.iter().position(|(other, ..)| *other == id)?;
            class.going_on.remove(at)
        });
        // An evicted one is not there any more, and has failed already.
        let Some((_, address, _)) = found.last() else { return false };
        let known = self.known.contains_key(&address);
        if good {
            for half in &mut self.failed {
                half.addresses.remove(&address);
            }
            self.learn(now, address);
        } else if !known {
            self.fail(address);
        }
        good && !known
    }

    /// The addresses of the cluster's servers.
    pub fn known(&self) -> Vec<IpAddr> {
        self.known.keys().copied().collect()
    }

    fn reputation(&self, address: IpAddr) -> Reputation {
        match address {
            _ if self.known.contains_key(&address) => Reputation::Known,
            _ if self.failed.iter().any(|half| half.addresses.contains(&address)) => Reputation::Failed,
            _ if self.failures_of(network(address)) >= OF_ONE_NETWORK => Reputation::Failed,
            _ => Reputation::Fresh,
        }
    }

    fn failures_of(&self, network: IpAddr) -> u32 {
        self.failed.iter().filter_map(|half| half.networks.get(&network)).sum()
    }

    fn learn(&mut self, now: Instant, address: IpAddr) {
        if self.known.len() >= KNOWN && !self.known.contains_key(&address) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(address, now);
    }

    fn fail(&mut self, address: IpAddr) {
        if self.failed[0].addresses.len() >= REMEMBERED {
            self.turn();
        }
        if self.failed[0].addresses.insert(address) {
            *self.failed[0].networks.entry(network(address)).or_default() += 1;
        }
    }

    fn forget(&mut self, now: Instant) {
        if now.saturating_duration_since(self.turned) >= MEMORY {
            self.turned = now;
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.failed.swap(0, 1);
        self.failed[0] = Failed::default();
    }
}

/// Who stands behind an address: of IPv6, whoever has one address has 2^64 of them.
fn whom(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
    }
}

/// What one who has many addresses is likely to have: a /24, or of IPv6 a /48.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => std::net::Ipv4Addr::from(u32::from(v4) >> 8 << 8).into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from(u128::from(v6) >> 80 << 80).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(number: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(0x7f00_0000 + number).into(), 4)
    }

    #[test]
    fn whoever_has_failed_keeps_nobody_else_out() {
        let began = Instant::now();
        let mut door = Door::new(began, []);
        // 2,000 addresses that introduce themselves badly, 10,000 times in a second.
        let mut let_in = 0;
        for knock in 0..10_000_u32 {
            let now = began + Duration::from_micros(u64::from(knock) * 100);
            if let Some(admission) = door.knock(now, from(knock % 2_000)) {
                door.ended(now, admission.id, false);
                let_in += 1;
            }
        }
        assert!((550..=850).contains(&let_in), "{let_in} handshakes were begun");
        // The flood goes on for the rest of the memory; then a newcomer, and a server that was there before.
        let mut now = began + Duration::from_secs(1);
        for knock in 0..100_000_u32 {
            now += Duration::from_micros(100);
            if let Some(admission) = door.knock(now, from(knock % 2_000)) {
                door.ended(now, admission.id, false);
            }
        }
        for _ in 0..3 {
            let newcomer = door.knock(now, from(9_999)).expect("a newcomer is let in");
            door.ended(now, newcomer.id, true);
        }
    }

    #[test]
    fn who_says_nothing_loses_its_place_to_a_newcomer_but_not_the_place_of_a_known_server() {
        let now = Instant::now();
        let mut door = Door::new(now, []);
        let known = door.knock(now, from(1)).unwrap();
        door.ended(now, known.id, true);
        let known = door.knock(now, from(1)).unwrap();
        let fresh = share(Reputation::Fresh);
        let first = door.knock(now, from(100)).unwrap();
        let mut later = now;
        for number in 1..fresh.places as u32 {
            later += TIME / 200;
            assert_eq!(door.knock(later, from(100 + number)).unwrap().evicted, None);
        }
        later += TIME / 200;
        assert_eq!(door.knock(later, from(9_999)).unwrap().evicted, Some(first.id));
        // Its place is gone already; that it ends now changes nothing, and the known one is still there.
        door.ended(later, first.id, true);
        assert_eq!(door.reputation(whom(from(100))), Reputation::Failed);
        assert_eq!(door.classes[0].going_on, [(known.id, whom(from(1)), now)]);
    }

    #[test]
    fn one_address_has_some_places_and_a_network_of_ipv6_is_one_address() {
        let now = Instant::now();
        let mut door = Door::new(now, []);
        let from = |host: u16| SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into(), host);
        let admitted = (0..100).filter(|host| door.knock(now, from(*host)).is_some()).count();
        assert_eq!(admitted, OF_ONE_ADDRESS);
        door.ended(now, 1, true);
        assert!(door.knock(now, from(7)).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_fresh_no_longer_than_an_address() {
        let began = Instant::now();
        let server: SocketAddr = "[2001:db8:1::7]:4".parse().unwrap();
        let mut door = Door::new(began, [whom(server)]);
        // 10,000 knocks a second from the 65,536 networks of a /48, none of them twice.
        let (mut now, mut let_in) = (began, 0);
        for knock in 0..50_000_u16 {
            now += Duration::from_micros(100);
            let from = SocketAddr::new([0x2001, 0xdb8, 9, knock, 0, 0, 0, 1].into(), 4);
            if let Some(admission) = door.knock(now, from) {
                assert!(!door.ended(now, admission.id, false));
                let_in += 1;
            }
        }
        assert!(let_in < 450, "{let_in} handshakes in five seconds");
        let newcomer = door.knock(now, "[2001:db8:2::7]:4".parse().unwrap()).expect("a newcomer is let in");
        assert!(door.ended(now, newcomer.id, true));
        assert_eq!(door.reputation(whom(server)), Reputation::Known, "as an earlier run has known it");
        assert_eq!(door.known().len(), 2);
    }

    #[test]
    fn an_introduction_over_a_bad_line_has_its_time() {
        let now = Instant::now();
        let mut door = Door::new(now, []);
        let places = share(Reputation::Fresh).places as u32;
        let slow = door.knock(now, from(1)).unwrap();
        let later = |n: u32| now + n * Duration::from_millis(2);
        let admitted: Vec<_> = (1..450).filter_map(|n| door.knock(later(n), from(n * 256))).collect();
        assert_eq!(admitted.len() as u32, places - 1);
        assert!(admitted.iter().all(|admission| admission.evicted.is_none()));
        assert_eq!(door.knock(now + TIME, from(7 << 20)).unwrap().evicted, Some(slow.id));
    }

    #[test]
    fn a_failure_is_forgotten_and_the_memory_is_bounded() {
        let now = Instant::now();
        let mut door = Door::new(now, []);
        (0..200_000).for_each(|number| door.fail(whom(from(number))));
        assert!(door.failed.iter().map(|half| half.addresses.len()).sum::<usize>() <= 2 * REMEMBERED);
        (0..10_000).for_each(|number| door.learn(now, whom(from(number))));
        assert_eq!(door.known.len(), KNOWN);
        let who = whom(from(199_999));
        assert_eq!(door.reputation(who), Reputation::Failed);
        door.forget(now + MEMORY);
        door.forget(now + 2 * MEMORY);
        assert_eq!(door.reputation(who), Reputation::Fresh);
    }
}
