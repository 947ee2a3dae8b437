//! Who is sent what waits for it next. Each integration has its own share of what goes on at one moment, and each tenant: so
//! that many of one's integrations, working or dead, hold up no other's.

use alloc::collections::btree_map::{BTreeMap, Entry};

use uuid::Uuid;

/// Turns at one moment: of all, of one tenant, of one integration.
struct Most {
    all: usize,
    of_tenant: usize,
    of_integration: usize,
}

/// Some are left whatever one tenant has.
const WORKING: Most = Most { all: 64, of_tenant: 48, of_integration: 16 };
/// They may take as long as a turn may last, so they share these among themselves, and each is tried with one.
const FAILING: Most = Most { all: 16, of_tenant: 12, of_integration: 1 };
/// Whose integration has taken nothing yet is tried with one too.
const UNPROVEN: Most = Most { of_integration: 1, ..WORKING };

/// What is known of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Working,
    /// Nothing is known yet.
    Unproven,
    Failing,
}

impl Health {
    fn most(self) -> Most {
        match self {
            Self::Working => WORKING,
            Self::Unproven => UNPROVEN,
            Self::Failing => FAILING,
        }
    }
}

/// For whom a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    pub tenant: Uuid,
    pub integration: Uuid,
    /// As it was when the turn began.
    pub health: Health,
}

impl Asking {
    fn is_failing(&self) -> bool {
        self.health == Health::Failing
    }
}

/// The turns that are under way, counted. Those of integrations that fail are counted apart.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    all: BTreeMap<bool, usize>,
    of_tenant: BTreeMap<(bool, Uuid), usize>,
    of_integration: BTreeMap<Uuid, usize>,
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Shares {
    pub fn begin(&mut self, asking: Asking) {
        *self.all.entry(asking.is_failing()).or_default() += 1;
        *self.of_tenant.entry((asking.is_failing(), asking.tenant)).or_default() += 1;
        *self.of_integration.entry(asking.integration).or_default() += 1;
    }

    /// One of these has ended.
    pub fn end(&mut self, asking: &Asking) {
        one_less(&mut self.all, asking.is_failing());
        one_less(&mut self.of_tenant, (asking.is_failing(), asking.tenant));
        one_less(&mut self.of_integration, asking.integration);
    }

    /// How many turns its tenant has, and its integration.
    fn has(&self, asking: &Asking) -> (usize, usize) {
        let of_tenant = self.of_tenant.get(&(asking.is_failing(), asking.tenant)).copied();
        (of_tenant.unwrap_or_default(), self.of_integration.get(&asking.integration).copied().unwrap_or_default())
    }

    pub fn has_room(&self, asking: &Asking) -> bool {
        let most = asking.health.most();
        let all = self.all.get(&asking.is_failing()).copied().unwrap_or_default();
        let (of_tenant, of_integration) = self.has(asking);
        all < most.all && of_tenant < most.of_tenant && of_integration < most.of_integration
    }

    /// Which of these begins: of the tenant that has the fewest turns, then of the integration that has; of equals the first.
    pub fn next(&self, waiting: impl IntoIterator<Item = Asking>) -> Option<usize> {
        let open = waiting.into_iter().enumerate().filter(|(_, asking)| self.has_room(asking));
        open.min_by_key(|(at, asking)| (self.has(asking), *at)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn asking(tenant: u128, integration: u128, health: Health) -> Asking {
        Asking { tenant: Uuid::from_u128(tenant), integration: Uuid::from_u128(integration), health }
    }

    /// Begins as many as may, and gives them.
    fn fill(shares: &mut Shares, mut waiting: Vec<Asking>) -> Vec<Asking> {
        let mut begun = Vec::new();
        while let Some(at) = shares.next(waiting.iter().copied()) {
            let next = waiting.remove(at);
            shares.begin(next);
            begun.push(next);
        }
        begun
    }

    #[test]
    fn five_hundred_dead_integrations_of_one_tenant_leave_room_for_anothers_that_fails() {
        let mut shares = Shares::default();
        let dead: Vec<_> = (0..500).map(|n| asking(1, 100 + n, Health::Failing)).collect();
        assert_eq!(fill(&mut shares, dead.clone()).len(), 12);
        let other = asking(2, 1, Health::Failing);
        assert_eq!(shares.next(dead.iter().copied().chain([other])), Some(500), "without waiting for anybody's end");
        shares.begin(other);
        assert!(!shares.has_room(&other), "it is tried with one");
        assert!(shares.has_room(&asking(1, 700, Health::Working)), "what works waits for none of them");
    }

    #[test]
    fn two_hundred_busy_integrations_of_one_tenant_leave_room_for_anothers() {
        let mut shares = Shares::default();
        let busy: Vec<_> = (0..1_000).map(|n| asking(1, 100 + n % 200, Health::Working)).collect();
        let begun = fill(&mut shares, busy);
        assert_eq!(begun.len(), 48);
        let mut integrations: Vec<_> = begun.iter().map(|one| one.integration).collect();
        integrations.dedup();
        assert_eq!(integrations.len(), 48, "each of them before any has two");
        assert_eq!(fill(&mut shares, alloc::vec![asking(2, 1, Health::Working); 20]).len(), 16);
    }

    #[test]
    fn tenants_that_fail_together_come_to_equal_shares() {
        let mut shares = Shares::default();
        let of = |tenant, n| (0..n).map(move |i| asking(tenant, 1_000 * tenant + i, Health::Failing));
        let waiting: Vec<_> = of(1, 500).chain(of(2, 3)).chain(of(3, 100)).collect();
        let begun = fill(&mut shares, waiting);
        let count = |tenant| begun.iter().filter(|one| one.tenant == Uuid::from_u128(tenant)).count();
        assert_eq!((count(1), count(2), count(3)), (7, 3, 6));
        shares.end(&begun[0]);
        assert!(shares.has_room(&begun[0]), "an end makes room");
    }

    #[test]
    fn who_has_taken_nothing_yet_is_tried_with_one() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, alloc::vec![asking(1, 1, Health::Unproven); 5]).len(), 1);
        assert_eq!(fill(&mut shares, alloc::vec![asking(1, 2, Health::Working); 50]).len(), 16);
    }
}
