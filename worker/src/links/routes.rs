//! Which balancer a gateway's downlinks leave by: the one that it asked for them last. Every balancer tells every worker
//! of each PULL_DATA, so that a worker knows the way to gateways whose frames it never gets.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use limpet_shared::{Eui64, link};
use tokio::time::Instant;

/// Gateways whose way is remembered. When more are heard, those go whose balancer would send nothing any more.
const MOST: usize = 1_000_000;
/// A balancer sends nothing to a gateway that has not asked for so long.
const EXPIRES: Duration = Duration::from_secs(90);
/// Downlinks that several balancers were asked for at one time.
const MOST_SPREAD: usize = 10_000;

/// A gateway asked this balancer (its instance) for downlinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    balancer: u64,
    at: Instant,
}

/// The ways to gateways. Bounded.
#[derive(Debug, Default)]
pub struct Routes {
    /// The last two balancers that each gateway asked, the last one first.
    asked: HashMap<Eui64, [Option<Sighting>; 2]>,
    /// The balancer of the last frame: better than nothing, if none says that it was asked.
    frames: HashMap<Eui64, u64>,
}

impl Routes {
    /// A balancer tells who has asked it, and how long ago. By the steady clock, which nobody sets.
    pub fn sightings(&mut self, balancer: u64, told: &link::Sightings, now: Instant) {
        for (gateway, age) in told.gateways.iter().zip(&told.ages) {
            // Longer ago than this machine can tell: nothing is sent to it any more.
            let Some(at) = now.checked_sub(Duration::from_millis(u64::from(*age))) else { continue };
            self.asked(Eui64(*gateway), Sighting { balancer, at }, now);
        }
    }

    fn asked(&mut self, gateway: Eui64, new: Sighting, now: Instant) {
        if self.asked.len() >= MOST && !self.asked.contains_key(&gateway) {
            self.asked.retain(|_, [last, _]| last.is_some_and(|last| now.duration_since(last.at) < EXPIRES));
            if self.asked.len() >= MOST {
                self.asked.clear();
            }
        }
        let both = self.asked.entry(gateway).or_default();
        let other = both.iter().flatten().find(|known| known.balancer != new.balancer).copied();
        let same = both.iter().flatten().find(|known| known.balancer == new.balancer && known.at > new.at).copied();
        let new = same.unwrap_or(new);
        *both = match other {
            Some(other) if other.at > new.at => [Some(other), Some(new)],
            other => [Some(new), other],
        };
    }

    /// A frame came from this balancer.
    pub fn frame(&mut self, balancer: u64, gateway: Eui64) {
        if self.frames.len() >= MOST && !self.frames.contains_key(&gateway) {
            self.frames.clear();
        }
        self.frames.insert(gateway, balancer);
    }

    /// Balancers that may send to the gateway, the best first. Which of them are connected, the caller knows.
    pub fn to(&self, gateway: Eui64) -> impl Iterator<Item = u64> {
        let asked = self.asked.get(&gateway).copied().unwrap_or_default();
        let frame = self.frames.get(&gateway).copied().filter(|_| asked == [None, None]);
        asked.into_iter().flatten().map(|sighting| sighting.balancer).chain(frame)
    }
}

impl Routes {
    /// Whether the gateway has asked one of the balancers that are linked for downlinks.
    pub fn asks(&self, gateway: Eui64, now: Instant, is_linked: impl Fn(u64) -> bool) -> bool {
        let asked = self.asked.get(&gateway).copied().unwrap_or_default();
        asked.iter().flatten().any(|known| now.duration_since(known.at) < EXPIRES && is_linked(known.balancer))
    }
}

/// Downlinks that all balancers were asked for, as nobody knew which one the gateway listens to. All but one of them say
/// NO_ROUTE, and that is no answer before the last one has said it.
#[derive(Debug, Default)]
pub struct Spread(HashMap<(u64, u64), Asked>);

#[derive(Debug)]
struct Asked {
    /// Balancers that have not answered.
    open: usize,
    /// One of them had a way.
    had_way: bool,
}

impl Spread {
    /// So many balancers were asked.
    pub fn asked(&mut self, downlink: &link::Downlink, balancers: usize) {
        if self.0.len() >= MOST_SPREAD {
            self.0.clear();
        }
        self.0.insert((downlink.gateway, downlink.key), Asked { open: balancers, had_way: false });
    }

    /// Whether this answer says what became of the downlink.
    pub fn counts(&mut self, ack: &link::TxAck) -> bool {
        let Entry::Occupied(mut entry) = self.0.entry((ack.gateway, ack.key)) else { return true };
        let asked = entry.get_mut();
        asked.open = asked.open.saturating_sub(1);
        let counts = if ack.error == "NO_ROUTE" { asked.open == 0 && !asked.had_way } else { true };
        asked.had_way |= counts;
        if asked.open == 0 {
            entry.remove();
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Eui64 = Eui64(7);

    fn told(age: u32) -> link::Sightings {
        link::Sightings { gateways: vec![GATEWAY.0], ages: vec![age] }
    }

    fn to(routes: &Routes) -> Vec<u64> {
        routes.to(GATEWAY).collect()
    }

    #[test]
    fn the_balancer_that_was_asked_last_comes_first_however_late_it_says_so() {
        let now = Instant::now();
        let mut routes = Routes::default();
        assert!(to(&routes).is_empty());
        routes.frame(3, GATEWAY);
        assert_eq!(to(&routes), [3], "a frame is a hint");
        routes.sightings(1, &told(0), now);
        assert_eq!(to(&routes), [1], "a PULL_DATA is more than a hint");
        routes.sightings(2, &told(5_000), now);
        assert_eq!(to(&routes), [1, 2], "an older sighting that comes later does not win");
        routes.sightings(2, &told(0), now + Duration::from_secs(1));
        assert_eq!(to(&routes), [2, 1]);
        routes.sightings(3, &told(0), now + Duration::from_secs(2));
        assert_eq!(to(&routes), [3, 2], "two are remembered");
        routes.sightings(3, &told(60_000), now + Duration::from_secs(3));
        assert_eq!(to(&routes), [3, 2], "what is known of a balancer does not get older");
        routes.frame(1, GATEWAY);
        assert_eq!(to(&routes), [3, 2], "frames may come by another way than PULL_DATA");
    }

    #[test]
    fn a_gateway_asks_for_downlinks_while_its_pull_data_is_fresh_and_its_balancer_linked() {
        let now = Instant::now();
        let mut routes = Routes::default();
        routes.frame(1, GATEWAY);
        assert!(!routes.asks(GATEWAY, now, |_| true), "one that only pushes cannot be sent anything");
        routes.sightings(1, &told(30_000), now);
        assert!(routes.asks(GATEWAY, now + Duration::from_secs(59), |balancer| balancer == 1));
        assert!(!routes.asks(GATEWAY, now, |balancer| balancer == 2));
        assert!(!routes.asks(GATEWAY, now + Duration::from_secs(60), |_| true));
    }

    #[test]
    fn no_flood_of_gateways_makes_it_grow() {
        let now = Instant::now();
        let mut routes = Routes::default();
        let flood = |from: u64| link::Sightings { gateways: (from..from + 600_000).collect(), ages: vec![0; 600_000] };
        routes.sightings(1, &flood(0), now);
        routes.sightings(1, &flood(600_000), now + EXPIRES);
        assert!(routes.asked.len() <= MOST);
        assert_eq!(routes.to(Eui64(1_100_000)).collect::<Vec<_>>(), [1], "the newest are there");
    }

    #[test]
    fn of_several_balancers_only_the_last_to_have_no_way_is_believed() {
        let downlink = link::Downlink { key: 5, gateway: 9, ..Default::default() };
        let ack = |error: &str| link::TxAck { key: 5, gateway: 9, error: error.into(), ..Default::default() };
        let mut spread = Spread::default();
        assert!(spread.counts(&ack("NO_ROUTE")), "only one was asked");
        spread.asked(&downlink, 3);
        let answers = ["NO_ROUTE", "NO_ROUTE", "NO_ROUTE"].map(|error| spread.counts(&ack(error)));
        assert_eq!(answers, [false, false, true]);
        spread.asked(&downlink, 3);
        let answers = ["NO_ROUTE", "", "NO_ROUTE"].map(|error| spread.counts(&ack(error)));
        assert_eq!(answers, [false, true, false]);
        spread.asked(&downlink, 2);
        let answers = ["TOO_LATE", "NO_ROUTE"].map(|error| spread.counts(&ack(error)));
        assert_eq!(answers, [true, false]);
        assert!(spread.0.is_empty());
    }
}
