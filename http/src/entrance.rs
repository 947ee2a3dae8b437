//! How many connections there may be, and who has them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{IntCounterVec, IntGauge};

use crate::client::{network, site};

/// Between two lines about refused connections.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub all: usize,
    /// Connections of one address, or of one IPv6 /64.
    pub per_address: usize,
    /// Connections of one IPv4 /24, or of one IPv6 /48.
    pub per_site: usize,
    /// From the beginning of a connection to its first whole header, and on HTTP/1 also from one request to the header
    /// of the next.
    pub header: Duration,
    /// A connection with no request in work is closed after this. A stream of events is one in work.
    pub idle: Duration,
    /// And one with answers of which nothing was taken for this long (a quarter more at most).
    pub unread: Duration,
}

impl Default for Limits {
    /// Fewer in all where the system grants the process too few files: what else it opens needs some too.
    fn default() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = files.map_or(usize::MAX, |files| usize::try_from(files / 4).unwrap_or(usize::MAX));
        let all = quarter.min(4_096);
        Self {
            all,
            per_address: (all / 2).min(256),
            per_site: (all / 2).min(1_024),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            unread: Duration::from_secs(60),
        }
    }
}

/// What is counted of connections.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Connections that there are.
    pub open: IntGauge,
    /// Connections that were refused, with the label `reason`, one of [`Self::REASONS`].
    pub refused: IntCounterVec,
}

impl Counters {
    /// Why a connection is refused: there are too many in all, of its address, or of its site.
    pub const REASONS: [&str; 3] = ["all", "address", "site"];
}

/// Counts connections, and refuses those that are too many.
pub(crate) struct Entrance {
    limits: Limits,
    counters: Counters,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
    by_site: HashMap<IpAddr, usize>,
    told: Option<Instant>,
    untold: u64,
}

/// A connection's place, given back when it is dropped.
pub(crate) struct Place {
    entrance: Arc<Entrance>,
    network: IpAddr,
    /// `None` where it does not count.
    site: Option<IpAddr>,
}

fn give_back(places: &mut HashMap<IpAddr, usize>, of: &IpAddr) {
    match places.get_mut(of) {
        Some(connections) if *connections > 1 => *connections -= 1,
        _ => drop(places.remove(of)),
    }
}

impl Entrance {
    pub fn new(limits: Limits, counters: Counters) -> Arc<Self> {
        Counters::REASONS.iter().for_each(|reason| counters.refused.with_label_values(&[reason]).inc_by(0));
        Arc::new(Self { limits, counters, inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address; none if there are too many. `trusted`: a proxy, which speaks for any
    /// number of clients, so that only the number of all counts.
    pub fn enter(self: &Arc<Self>, address: IpAddr, trusted: bool) -> Option<Place> {
        let (network, site) = (network(address), site(address));
        let mut inside = self.inside();
        let Limits { all, per_address, per_site, .. } = self.limits;
        let of_one = inside.by_network.get(&network).copied().unwrap_or(0);
        let of_site = inside.by_site.get(&site).copied().unwrap_or(0);
        let refused = match () {
            () if inside.all >= all => Some(("all", all)),
            () if !trusted && of_one >= per_address => Some(("address", per_address)),
            () if !trusted && of_site >= per_site => Some(("site", per_site)),
            () => None,
        };
        if let Some((reason, limit)) = refused {
            self.refuse(&mut inside, address, reason, limit);
            return None;
        }
        inside.all += 1;
        inside.by_network.insert(network, of_one + 1);
        // A proxy's clients take no room of its neighbours'.
        if !trusted {
            inside.by_site.insert(site, of_site + 1);
        }
        self.counters.open.inc();
        Some(Place { entrance: self.clone(), network, site: (!trusted).then_some(site) })
    }

    fn refuse(&self, inside: &mut Inside, from: IpAddr, reason: &str, limit: usize) {
        self.counters.refused.with_label_values(&[reason]).inc();
        // Strangers decide how often.
        if inside.told.is_some_and(|told| told.elapsed() < LINE_EVERY) {
            inside.untold += 1;
            return;
        }
        inside.told = Some(Instant::now());
        let unsaid = std::mem::take(&mut inside.untold);
        tracing::warn!(%from, reason, limit, unsaid, "refused an HTTP connection: there are too many");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entrance.counters.open.dec();
        let mut inside = self.entrance.inside();
        inside.all -= 1;
        give_back(&mut inside.by_network, &self.network);
        if let Some(site) = &self.site {
            give_back(&mut inside.by_site, site);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    pub(crate) fn counters() -> Counters {
        let refused = IntCounterVec::new(Opts::new("refused", "Refused."), &["reason"]).unwrap();
        Counters { open: IntGauge::new("open", "Open.").unwrap(), refused }
    }

    #[test]
    fn places_are_bounded_in_all_and_per_network_and_come_back() {
        let limits = Limits { all: 5, per_address: 2, ..Limits::default() };
        let counters = counters();
        let entrance = Entrance::new(limits, counters.clone());
        let enter = |address: &str, trusted| entrance.enter(address.parse().unwrap(), trusted);
        let mut held = vec![enter("2001:db8::1", false).unwrap(), enter("2001:db8::2", false).unwrap()];
        assert!(enter("2001:db8::3", false).is_none(), "of one /64");
        held.push(enter("2001:db8:0:1::3", false).expect("of another"));
        held.push(enter("192.0.2.1", true).unwrap());
        held.push(enter("192.0.2.1", true).unwrap());
        assert!(enter("192.0.2.1", true).is_none(), "there are five");
        assert_eq!(counters.open.get(), 5);
        let refused = Counters::REASONS.map(|reason| counters.refused.with_label_values(&[reason]).get());
        assert_eq!(refused, [1, 1, 0]);
        held.remove(0);
        assert!(enter("192.0.2.1", false).is_none(), "who is no proxy has its own limit");
        held.push(enter("2001:db8::3", false).expect("a place has come back"));
        held.clear();
        assert_eq!(counters.open.get(), 0);
        assert!(entrance.inside().by_network.is_empty());
    }

    #[test]
    fn whoever_has_all_addresses_of_a_site_has_no_more_than_the_site_may() {
        let limits = Limits { all: 100, per_address: 2, per_site: 3, ..Limits::default() };
        let entrance = Entrance::new(limits, counters());
        let enter = |address: &str, trusted| entrance.enter(address.parse().unwrap(), trusted);
        for [mine, also_mine, others] in
            [["192.0.2", "192.0.2", "192.0.3.1"], ["2001:db8:7:", "2001:db8:7:ffff:", "2001:db8:8::1"]]
        {
            let address = |network: &str, n| match network.contains(':') {
                true => format!("{network}{n}::1"),
                false => format!("{network}.{n}"),
            };
            let mut held: Vec<_> = (1..4).map(|n| enter(&address(mine, n), false).unwrap()).collect();
            assert!(enter(&address(also_mine, 9), false).is_none());
            held.push(enter(others, false).unwrap());
            held.push(enter(&address(mine, 9), true).expect("a proxy"));
            held.remove(0);
            held.push(enter(&address(mine, 9), false).expect("a place has come back"));
        }
        assert!(entrance.inside().by_site.is_empty());
    }

    #[test]
    fn a_proxy_has_as_many_as_there_are() {
        let entrance = Entrance::new(Limits { all: 10, per_address: 2, ..Limits::default() }, counters());
        let held: Vec<_> = (0..11).map_while(|_| entrance.enter([192, 0, 2, 1].into(), true)).collect();
        assert_eq!(held.len(), 10);
    }
}
