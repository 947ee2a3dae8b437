//! Where a gateway is: GWMP proves nothing, so that an address is believed for having been there before.

use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};

use limpet_shared::{gwmp::UpKind, policy::AddressPolicy};

use crate::action::{DropReason, Source};

/// A downlink needs a PULL_DATA not older than this: three keep-alives of 30 s missed. For so long an address is believed.
pub const EXPIRES: Duration = Duration::from_secs(90);
/// Downlinks of one gateway go to so many addresses at most: where it has been all along, where it has moved to, and one more
/// for who only says so.
pub const MOST_PULLERS: usize = 3;

/// A source that asks for a gateway's downlinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Puller {
    pub source: Source,
    /// The GWMP version of its PULL_DATA: what it reads. Another one that asks in the gateway's name does not change it.
    pub version: u8,
}

/// Where a datagram in a gateway's name comes from. Each has limits and memory of its own: whoever takes one of them while the
/// gateway is away from it takes nothing from the gateway at the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Where it pulls from, and mostly pushes from as well.
    Pull,
    /// Where it pushes from, if that is another address.
    Push,
    Elsewhere,
}

/// The addresses of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Where it pulls and where it pushes from, for as long as it is heard there, and when that was last. Nobody else can
    /// take that place by speaking in its name.
    pulls_from: Option<(IpAddr, Duration)>,
    pushes_from: Option<(IpAddr, Duration)>,
    /// Sources of its PULL_DATA, the last one first, and when each came.
    asked: Vec<(Puller, Duration)>,
    /// The address that is held for it, and when it was heard from there.
    held: Option<(IpAddr, Duration)>,
}

impl Addresses {
    /// One whose address is held, as it was told by an earlier run of the balancer.
    pub fn held_at(address: IpAddr, now: Duration) -> Self {
        Self { held: Some((address, now)), ..Self::default() }
    }

    /// Whether it may be at that address.
    pub fn permit(&self, policy: &AddressPolicy, address: IpAddr, now: Duration) -> Result<(), DropReason> {
        if !policy.permits(address) {
            return Err(DropReason::AddressLocked);
        }
        match (policy, self.held) {
            (AddressPolicy::Hold(time), Some((held, at))) if held != address && now < at + *time => {
                Err(DropReason::AddressHeld)
            }
            _ => Ok(()),
        }
    }

    /// It was let in at that address; what is held now, if that is new.
    pub fn hold(&mut self, policy: Option<&AddressPolicy>, address: IpAddr, now: Duration) -> Option<Option<IpAddr>> {
        let before = self.held.map(|(held, _)| held);
        self.held = matches!(policy, Some(AddressPolicy::Hold(_))).then_some((address, now));
        let after = self.held.map(|(held, _)| held);
        (before != after).then_some(after)
    }

    /// Which of the gateway's places that address is, for a datagram of that kind: a place that is nobody's is taken by who
    /// does there what it is for.
    pub fn place(&self, address: IpAddr, kind: UpKind, now: Duration) -> Place {
        let live =
            |place: Option<(IpAddr, Duration)>| place.filter(|(_, at)| now < *at + EXPIRES).map(|(home, _)| home);
        match (live(self.pulls_from), live(self.pushes_from)) {
            (Some(home), _) if home == address => Place::Pull,
            (_, Some(home)) if home == address => Place::Push,
            (None, _) if kind == UpKind::PullData => Place::Pull,
            (_, None) if kind == UpKind::PushData => Place::Push,
            _ => Place::Elsewhere,
        }
    }

    /// A PUSH_DATA came.
    pub fn pushed(&mut self, address: IpAddr, now: Duration) {
        settle(&mut self.pushes_from, address, now);
    }

    /// A PULL_DATA came; whether it is from another source than the one before.
    pub fn pulled(&mut self, source: Source, version: u8, now: Duration) -> bool {
        let address = source.address.ip();
        settle(&mut self.pulls_from, address, now);
        let rerouted = self.last_asked().is_none_or(|before| before != source);
        self.asked.retain(|(other, at)| other.source.address != source.address && now < *at + EXPIRES);
        if self.asked.len() >= MOST_PULLERS {
            self.asked.remove(self.leaves_for(address));
        }
        self.asked.insert(0, (Puller { source, version }, now));
        rerouted
    }

    /// Which of the sources goes when there is one too many: its own before, or else one where the gateway has been neither
    /// pulling nor pushing from, or else the older one.
    fn leaves_for(&self, address: IpAddr) -> usize {
        let places = [self.pulls_from, self.pushes_from];
        let is_place = |other: &Puller| places.iter().flatten().any(|(place, _)| *place == other.source.address.ip());
        let own = self.asked.iter().rposition(|(other, _)| other.source.address.ip() == address);
        let stranger = || self.asked.iter().rposition(|(other, _)| !is_place(other));
        own.or_else(stranger).unwrap_or(MOST_PULLERS - 1)
    }

    /// The last source that asked for downlinks.
    pub fn last_asked(&self) -> Option<Source> {
        self.asked.first().map(|(puller, _)| puller.source)
    }

    /// When downlinks were asked for last.
    pub fn asked_at(&self) -> Option<Duration> {
        self.asked.first().map(|(_, at)| *at)
    }

    /// Where downlinks go: all sources that have asked lately. The first is the gateway as far as anybody can know: it is where
    /// it has been pulling all along, or else who asked last. The others follow, the last one first.
    pub fn pullers(&self, now: Duration) -> impl Iterator<Item = Puller> {
        let live = move |(_, at): &&(Puller, Duration)| now < *at + EXPIRES;
        let home = self.pulls_from.map(|(home, _)| home);
        let first = self
            .asked
            .iter()
            .filter(live)
            .position(|(puller, _)| Some(puller.source.address.ip()) == home)
            .unwrap_or(0);
        let lately = move || self.asked.iter().filter(live).map(|(puller, _)| *puller);
        let others = lately().enumerate().filter(move |(index, _)| *index != first).map(|(_, puller)| puller);
        lately().nth(first).into_iter().chain(others)
    }

    /// Whether it pulls from there, as far as anybody can know.
    pub fn pulls_from(&self, address: IpAddr, now: Duration) -> bool {
        self.pullers(now).next().is_some_and(|puller| puller.source.address.ip() == address)
    }

    /// Whether an answer may come from there: it asks for downlinks at that address, or pushes from it.
    pub fn answers_from(&self, address: IpAddr, now: Duration) -> bool {
        let pushes = self.pushes_from.is_some_and(|(home, at)| home == address && now < at + EXPIRES);
        pushes || self.pullers(now).any(|puller| puller.source.address.ip() == address)
    }
}

/// Stays where it is for as long as it is heard there.
fn settle(place: &mut Option<(IpAddr, Duration)>, address: IpAddr, now: Duration) {
    match place {
        Some((home, at)) if *home != address && now < *at + EXPIRES => {}
        _ => *place = Some((address, now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn at(host: u8, port: u16) -> Source {
        Source { socket: 0, address: ([192, 0, 2, host], port).into(), local: None }
    }

    fn pull(addresses: &mut Addresses, host: u8, port: u16, second: u32) -> bool {
        addresses.pulled(at(host, port), 2, SEC * second)
    }

    fn pullers(addresses: &Addresses, now: Duration) -> Vec<Source> {
        addresses.pullers(now).map(|puller| puller.source).collect()
    }

    #[test]
    fn a_stranger_gets_a_copy_and_takes_nothing_away() {
        let mut addresses = Addresses::default();
        assert!(pull(&mut addresses, 1, 1, 1));
        for (second, host) in (2..50).zip(2..50) {
            assert!(addresses.pulled(at(host, 9), 1, SEC * second));
            assert_eq!(addresses.pullers(SEC * second).next(), Some(Puller { source: at(1, 1), version: 2 }));
        }
        pull(&mut addresses, 1, 1, 60);
        assert_eq!(pullers(&addresses, SEC * 60), [at(1, 1), at(49, 9), at(48, 9)]);
        assert_eq!(pullers(&addresses, SEC * 145), [at(1, 1)]);
        assert_eq!(addresses.place(at(1, 7).address.ip(), UpKind::PushData, SEC * 60), Place::Pull);
        assert_eq!(addresses.place(at(49, 9).address.ip(), UpKind::PullData, SEC * 60), Place::Elsewhere);
    }

    #[test]
    fn a_place_is_its_holders_for_as_long_as_it_is_heard_there_and_then_goes_to_who_uses_it() {
        use UpKind::*;
        let mut addresses = Addresses::default();
        let place =
            |addresses: &Addresses, host, kind, second| addresses.place(at(host, 1).address.ip(), kind, SEC * second);
        let kinds = [PushData, PullData, TxAck];
        let nobodys = kinds.map(|kind| place(&addresses, 1, kind, 1));
        assert_eq!(nobodys, [Place::Push, Place::Pull, Place::Elsewhere]);
        addresses.pushed(at(2, 1).address.ip(), SEC);
        assert_eq!(kinds.map(|kind| place(&addresses, 2, kind, 2)), [Place::Push; 3]);
        let others = kinds.map(|kind| place(&addresses, 1, kind, 2));
        assert_eq!(
            others,
            [Place::Elsewhere, Place::Pull, Place::Elsewhere],
            "what the gateway is not at can be taken"
        );
        pull(&mut addresses, 1, 1, 3);
        assert_eq!(kinds.map(|kind| place(&addresses, 1, kind, 4)), [Place::Pull; 3]);
        assert_eq!(kinds.map(|kind| place(&addresses, 2, kind, 4)), [Place::Push; 3]);
        assert_eq!(kinds.map(|kind| place(&addresses, 3, kind, 4)), [Place::Elsewhere; 3]);
        assert_eq!(place(&addresses, 3, PushData, 91), Place::Push, "pushed at 1 s, and not since");
    }

    #[test]
    fn who_moves_is_followed_at_once_and_believed_after_a_while() {
        let mut addresses = Addresses::default();
        pull(&mut addresses, 1, 1, 1);
        for second in [10, 40, 70] {
            pull(&mut addresses, 2, 1, second);
        }
        assert_eq!(pullers(&addresses, SEC * 70), [at(1, 1), at(2, 1)]);
        pull(&mut addresses, 2, 1, 100);
        assert_eq!(pullers(&addresses, SEC * 100), [at(2, 1)]);
        for (host, second) in [(3, 101), (4, 102), (5, 103)] {
            pull(&mut addresses, host, 1, second);
        }
        assert_eq!(pullers(&addresses, SEC * 103), [at(2, 1), at(5, 1), at(4, 1)]);
        // Its router gives it another port.
        pull(&mut addresses, 2, 2, 104);
        assert_eq!(pullers(&addresses, SEC * 104), [at(2, 2), at(5, 1), at(4, 1)]);
    }

    #[test]
    fn who_has_taken_a_gateways_place_does_not_drive_it_out_by_asking_from_many_addresses() {
        let mut addresses = Addresses::default();
        // The gateway, at 1, was away; somebody at 7 pulls in its name, and has more addresses.
        pull(&mut addresses, 7, 1, 1);
        addresses.pushed(at(1, 2).address.ip(), SEC * 2);
        pull(&mut addresses, 1, 1, 3);
        for (host, second) in (8..30).zip(4..) {
            pull(&mut addresses, host, 1, second);
            pull(&mut addresses, 7, 1, second);
        }
        assert!(pullers(&addresses, SEC * 30).contains(&at(1, 1)));
    }

    #[test]
    fn an_answer_comes_from_where_it_pulls_or_has_pushed_from_all_along() {
        let mut addresses = Addresses::default();
        let from = |addresses: &Addresses, host| addresses.answers_from(at(host, 5).address.ip(), SEC * 5);
        assert!(!from(&addresses, 1));
        pull(&mut addresses, 1, 1, 1);
        addresses.pushed(at(2, 1).address.ip(), SEC);
        addresses.pushed(at(3, 1).address.ip(), SEC * 2);
        assert_eq!([1, 2, 3].map(|host| from(&addresses, host)), [true, true, false]);
    }
}
