//! Where a gateway is: GWMP proves nothing, so that an address is believed for having been there before.

use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};

use limpet_shared::policy::AddressPolicy;

use crate::action::{DropReason, Source};

/// A downlink needs a PULL_DATA not older than this: three keep-alives of 30 s missed. For so long an address is believed.
pub const EXPIRES: Duration = Duration::from_secs(90);
/// Downlinks of one gateway go to so many addresses at most.
const MOST: usize = 2;

/// The addresses of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Where it pulls and where it pushes from, for as long as it is heard there, and when that was last. Nobody else can
    /// take that place by speaking in its name.
    pulls_from: Option<(IpAddr, Duration)>,
    pushes_from: Option<(IpAddr, Duration)>,
    /// Sources of its PULL_DATA, the last one first, and when each came.
    asked: Vec<(Source, Duration)>,
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

    /// Whether this is where the gateway has been all along, or could be.
    pub fn is_home(&self, address: IpAddr, now: Duration) -> bool {
        let places = [self.pulls_from, self.pushes_from].into_iter().flatten();
        let mut live = places.filter(|(_, at)| now < *at + EXPIRES).peekable();
        live.peek().is_none() || live.any(|(home, _)| home == address)
    }

    /// A PUSH_DATA came.
    pub fn pushed(&mut self, address: IpAddr, now: Duration) {
        settle(&mut self.pushes_from, address, now);
    }

    /// A PULL_DATA came; whether it is from another source than the one before.
    pub fn pulled(&mut self, source: Source, now: Duration) -> bool {
        let address = source.address.ip();
        settle(&mut self.pulls_from, address, now);
        let rerouted = self.last_asked().is_none_or(|before| before != source);
        self.asked.retain(|(other, at)| other.address != source.address && now < *at + EXPIRES);
        if self.asked.len() >= MOST {
            self.asked.remove(self.leaves_for(address));
        }
        self.asked.insert(0, (source, now));
        rerouted
    }

    /// Which of the sources goes when there is one too many: its own before, or else one that is not where the gateway
    /// pulls from, or else the older one.
    fn leaves_for(&self, address: IpAddr) -> usize {
        let home = self.pulls_from.map(|(home, _)| home);
        let own = self.asked.iter().rposition(|(other, _)| other.address.ip() == address);
        let stranger = || self.asked.iter().rposition(|(other, _)| Some(other.address.ip()) != home);
        own.or_else(stranger).unwrap_or(MOST - 1)
    }

    /// The last source that asked for downlinks.
    pub fn last_asked(&self) -> Option<Source> {
        self.asked.first().map(|(source, _)| *source)
    }

    /// When downlinks were asked for last.
    pub fn asked_at(&self) -> Option<Duration> {
        self.asked.first().map(|(_, at)| *at)
    }

    /// Where downlinks go: all sources that have asked lately, the last one first.
    pub fn ways(&self, now: Duration) -> impl Iterator<Item = Source> {
        self.asked.iter().filter(move |(_, at)| now < *at + EXPIRES).map(|(source, _)| *source)
    }

    /// Whether an answer may come from there: it asks for downlinks at that address, or pushes from it.
    pub fn answers_from(&self, address: IpAddr, now: Duration) -> bool {
        let pushes = self.pushes_from.is_some_and(|(home, at)| home == address && now < at + EXPIRES);
        pushes || self.ways(now).any(|way| way.address.ip() == address)
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

    fn ways(addresses: &Addresses, now: Duration) -> Vec<Source> {
        addresses.ways(now).collect()
    }

    #[test]
    fn a_stranger_gets_a_copy_and_takes_nothing_away() {
        let mut addresses = Addresses::default();
        assert!(addresses.pulled(at(1, 1), SEC));
        for (n, host) in (2..50).enumerate() {
            let now = SEC * (2 + n as u32);
            assert!(addresses.pulled(at(host, 9), now));
            assert_eq!(ways(&addresses, now), [at(host, 9), at(1, 1)]);
        }
        addresses.pulled(at(1, 1), SEC * 60);
        assert_eq!(ways(&addresses, SEC * 60), [at(1, 1), at(49, 9)]);
        assert_eq!(ways(&addresses, SEC * 145), [at(1, 1)]);
        assert!(addresses.is_home(at(1, 7).address.ip(), SEC * 60));
        assert!(!addresses.is_home(at(49, 9).address.ip(), SEC * 60));
    }

    #[test]
    fn who_moves_is_followed_at_once_and_believed_after_a_while() {
        let mut addresses = Addresses::default();
        addresses.pulled(at(1, 1), SEC);
        for second in [10, 40, 70, 100] {
            addresses.pulled(at(2, 1), SEC * second);
        }
        assert_eq!(ways(&addresses, SEC * 100), [at(2, 1)]);
        addresses.pulled(at(3, 1), SEC * 101);
        addresses.pulled(at(4, 1), SEC * 102);
        assert_eq!(ways(&addresses, SEC * 102), [at(4, 1), at(2, 1)]);
        // Its router gives it another port.
        addresses.pulled(at(2, 2), SEC * 103);
        assert_eq!(ways(&addresses, SEC * 103), [at(2, 2), at(4, 1)]);
    }

    #[test]
    fn an_answer_comes_from_where_it_pulls_or_has_pushed_from_all_along() {
        let mut addresses = Addresses::default();
        let from = |addresses: &Addresses, host| addresses.answers_from(at(host, 5).address.ip(), SEC * 5);
        assert!(!from(&addresses, 1));
        addresses.pulled(at(1, 1), SEC);
        addresses.pushed(at(2, 1).address.ip(), SEC);
        addresses.pushed(at(3, 1).address.ip(), SEC * 2);
        assert_eq!([1, 2, 3].map(|host| from(&addresses, host)), [true, true, false]);
    }
}
