//! How often a log-in may be tried: guessing is slowed down, and nobody can lock another one out.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use limpet_http::network;

/// Counters share this many places, by a hash that callers cannot foresee: made-up names use no memory, and all of
/// them cannot be used up in the time that password hashing leaves.
const PLACES: usize = 4096;

/// Of one address for one account: 20 at once, and one more every 6 s.
const PAIR: Allowance = Allowance { burst: 20, refill: Duration::from_secs(6) };
/// Of one address for all accounts; colleagues may share it.
const ADDRESS: Allowance = Allowance { burst: 60, refill: Duration::from_secs(2) };
/// Of one IPv6 site, a /48, for all accounts: it has 65,536 networks.
const SITE: Allowance = Allowance { burst: 240, refill: Duration::from_millis(500) };
/// For one account from all addresses that it has not logged in from. No ten addresses use this up, for each is held to
/// its own allowance.
const ACCOUNT: Allowance = Allowance { burst: 200, refill: Duration::from_millis(200) };

struct Allowance {
    burst: u16,
    /// Time after which there is one more.
    refill: Duration,
}

/// Attempts left. Each worker counts for itself.
pub(super) struct Attempts {
    hasher: RandomState,
    pairs: Counters,
    addresses: Counters,
    sites: Counters,
    accounts: Counters,
    /// Of those who are known already, each for itself: nobody else has anything to do with these.
    own: Counters,
    /// Accounts with an address that they have logged in from, as hashes: what others do to the account is not held
    /// against them.
    familiar: Mutex<Vec<u64>>,
}

impl Attempts {
    pub fn new(now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            pairs: Counters::new(PAIR, now),
            addresses: Counters::new(ADDRESS, now),
            sites: Counters::new(SITE, now),
            accounts: Counters::new(ACCOUNT, now),
            own: Counters::new(PAIR, now),
            familiar: Mutex::new(vec![0; PLACES]),
        }
    }

    /// Takes an attempt; false if there is none left, and then nothing is taken from anybody: a refusal costs no time, so that any
    /// number of them would use up what made-up names share with real ones.
    pub fn take(&self, account: &str, from: Option<IpAddr>, now: Instant) -> bool {
        let (account, site, from) = (name(account), from.and_then(site), from.map(network));
        let pair = self.hash(&(&account, from));
        let account = Some(self.hash(&account)).filter(|_| !self.is_familiar(pair));
        let asked = [
            (&self.addresses, Some(self.hash(&from))),
            (&self.sites, site.map(|site| self.hash(&site))),
            (&self.pairs, Some(pair)),
            (&self.accounts, account),
        ];
        let all = || asked.iter().filter_map(|(counters, hash)| Some((counters, (*hash)?)));
        let free = all().all(|(counters, hash)| counters.has(hash, now));
        free && all().all(|(counters, hash)| counters.take(hash, now))
    }

    /// Takes an attempt of somebody who is known already.
    pub fn take_own(&self, id: &str, now: Instant) -> bool {
        self.own.take(self.hash(&id), now)
    }

    /// Whether the account has logged in from there before.
    pub fn knows(&self, account: &str, from: Option<IpAddr>) -> bool {
        self.is_familiar(self.hash(&(&name(account), from.map(network))))
    }

    /// The password was right: that was no guess.
    pub fn forgive(&self, account: &str, from: Option<IpAddr>) {
        let (account, site, from) = (name(account), from.and_then(site), from.map(network));
        let pair = self.hash(&(&account, from));
        if let Some(site) = site {
            self.sites.give_back(self.hash(&site), 1);
        }
        self.pairs.give_back(pair, PAIR.burst);
        self.addresses.give_back(self.hash(&from), 1);
        self.accounts.give_back(self.hash(&account), 1);
        let mut familiar = self.familiar.lock().unwrap_or_else(PoisonError::into_inner);
        familiar[place(pair)] = pair;
    }

    fn is_familiar(&self, pair: u64) -> bool {
        self.familiar.lock().unwrap_or_else(PoisonError::into_inner)[place(pair)] == pair
    }

    fn hash(&self, of: &impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }
}

/// One account, however it is written.
fn name(account: &str) -> String {
    account.trim().to_lowercase()
}

/// The site of an IPv6 address.
fn site(address: IpAddr) -> Option<u128> {
    match address.to_canonical() {
        IpAddr::V6(v6) => Some(v6.to_bits() >> 80),
        IpAddr::V4(_) => None,
    }
}

fn place(hash: u64) -> usize {
    hash as usize % PLACES
}

struct Counters {
    allowance: Allowance,
    counters: Mutex<Vec<Counter>>,
}

#[derive(Clone, Copy)]
struct Counter {
    left: u16,
    /// When an attempt was last given back.
    since: Instant,
}

impl Counters {
    fn new(allowance: Allowance, now: Instant) -> Self {
        let counters = Mutex::new(vec![Counter { left: allowance.burst, since: now }; PLACES]);
        Self { allowance, counters }
    }

    fn has(&self, hash: u64, now: Instant) -> bool {
        self.with(hash, now, |counter| counter.left > 0)
    }

    fn take(&self, hash: u64, now: Instant) -> bool {
        self.with(hash, now, |counter| {
            let taken = counter.left > 0;
            counter.left = counter.left.saturating_sub(1);
            taken
        })
    }

    fn give_back(&self, hash: u64, how_many: u16) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let left = &mut counters[place(hash)].left;
        *left = left.saturating_add(how_many).min(self.allowance.burst);
    }

    /// Does that to a counter that has been filled up with time.
    fn with<T>(&self, hash: u64, now: Instant, change: impl FnOnce(&mut Counter) -> T) -> T {
        let Allowance { burst, refill } = self.allowance;
        let counter = &mut self.counters.lock().unwrap_or_else(PoisonError::into_inner)[place(hash)];
        let refills = now.saturating_duration_since(counter.since).as_millis() / refill.as_millis();
        if refills > 0 {
            let more = u16::try_from(refills).unwrap_or(u16::MAX);
            counter.left = burst.min(counter.left.saturating_add(more));
            counter.since = now;
        }
        change(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    /// How many of so many attempts are let through.
    fn let_through(attempts: &Attempts, account: &str, address: Option<IpAddr>, tries: u32, now: Instant) -> usize {
        (0..tries).filter(|_| attempts.take(account, address, now)).count()
    }

    #[test]
    fn guesses_are_slowed_down_until_the_right_password_comes() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        assert_eq!(let_through(&attempts, "admin", from(1), 100, start), 20);
        assert!(!attempts.take(" ADMIN", from(1), start), "one account, however it is written");
        let later = start + PAIR.refill * 3;
        assert_eq!(let_through(&attempts, "admin", from(1), 10, later), 3);
        attempts.forgive("admin", from(1));
        assert!(attempts.take("admin", from(1), later));
    }

    #[test]
    fn one_address_has_a_limit_for_all_accounts_together() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        let tries = (0..500).filter(|n| attempts.take(&format!("user {n}"), from(1), start)).count();
        assert!(tries <= usize::from(ADDRESS.burst), "{tries}");
        // Of many that were counted one may share its place with these by chance.
        let attempts = Attempts::new(start);
        let neighbours = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().ok());
        assert_eq!(let_through(&attempts, "b", neighbours[0], 100, start), 20);
        assert_eq!(let_through(&attempts, "b", neighbours[1], 100, start), 0, "of one network");
    }

    #[test]
    fn no_number_of_refused_attempts_takes_anything_from_others() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        let site = "2001:db8::".parse::<std::net::Ipv6Addr>().unwrap().to_bits();
        for n in 0..100_000_u32 {
            // From one address, and from every network of a site.
            attempts.take(&format!("made up {n}"), from(1), start);
            attempts.take(&format!("made up {n}"), Some(IpAddr::V6((site + (u128::from(n) << 64)).into())), start);
        }
        let others =
            (0..1_000).filter(|n| attempts.take(&format!("user {n}"), Some(IpAddr::from([10, 0, *n as u8, 1])), start));
        assert!(others.count() > 950);
        assert!((0..1_000).all(|n| attempts.take_own(&format!("key {n}"), start)));
    }

    #[test]
    fn who_is_known_gets_in_whatever_others_do_to_the_account() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        assert_eq!(let_through(&attempts, "admin", from(1), 1_000, start), 20);
        assert!(attempts.take("admin", from(2), start), "one address locks nobody out");
        attempts.forgive("admin", from(2));
        for address in 3..100 {
            let_through(&attempts, "admin", from(address), 100, start);
        }
        assert!(attempts.knows("Admin", from(2)) && !attempts.knows("admin", from(3)));
        assert!(!attempts.take("admin", from(100), start), "so many addresses are one attacker");
        assert!(attempts.take("admin", from(2), start), "it has logged in before");
    }
}
