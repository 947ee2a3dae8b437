//! The network's gateways as this worker knows them: what a balancer gets is made of this, and reads nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use limpet_shared::{
    Eui64,
    link::{Cluster, ClusterDelta, KnownGateway, to_balancer},
};

/// Changes that are kept: a balancer that is further behind gets everything.
const KEPT: usize = 10_000;

/// See the module. Versions are those of the store.
#[derive(Debug, Default)]
pub struct Known {
    version: u64,
    /// With their address policies; empty for the default.
    gateways: BTreeMap<Eui64, String>,
    /// The sum of theirs.
    digest: u64,
    /// What changed at which version, in order, none missing after `whole_since`.
    changes: VecDeque<(u64, Eui64)>,
    whole_since: u64,
}

impl Known {
    /// All gateways there are at this version.
    pub fn new(version: u64, gateways: impl IntoIterator<Item = (Eui64, String)>) -> Self {
        let gateways: BTreeMap<_, _> = gateways.into_iter().collect();
        let digest = gateways.iter().fold(0, |sum: u64, gateway| sum.wrapping_add(known(gateway).digest()));
        Self { version, gateways, digest, changes: VecDeque::new(), whole_since: version }
    }

    /// What a balancer says ([`limpet_shared::link::ClusterHave::digest`]) that has just these gateways.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// 0 before anything is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Lets everything be read anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// What changed after the version that is here; `now` says what became of each: its policy, or that it is gone.
    pub fn change(&mut self, version: u64, changes: Vec<(u64, Eui64)>, now: Vec<(Eui64, Option<String>)>) {
        for (eui, policy) in now {
            let before = self.gateways.remove_entry(&eui);
            self.digest =
                before.map_or(self.digest, |(eui, was)| self.digest.wrapping_sub(known((&eui, &was)).digest()));
            if let Some(policy) = policy {
                self.digest = self.digest.wrapping_add(known((&eui, &policy)).digest());
                self.gateways.insert(eui, policy);
            }
        }
        self.version = version;
        self.changes.extend(changes);
        while self.changes.len() > KEPT {
            self.whole_since = self.changes.pop_front().map_or(self.whole_since, |(n, _)| n);
        }
    }

    /// What brings a balancer that has `have` to this version: the changes if they are known, else everything. Balancers count
    /// from `base`.
    pub fn message(&self, have: u64, ring_key: &[u8; 16], base: u64) -> to_balancer::Kind {
        let since = have.checked_sub(base).filter(|count| (self.whole_since..=self.version).contains(count));
        match since {
            Some(since) => to_balancer::Kind::ClusterDelta(self.delta(since, base)),
            None => to_balancer::Kind::Cluster(self.whole(ring_key, base, false)),
        }
    }

    /// Everything. With `replace` also for a balancer that has something else under the same number.
    pub fn whole(&self, ring_key: &[u8; 16], base: u64, replace: bool) -> Cluster {
        Cluster {
            version: base.saturating_add(self.version),
            ring_key: ring_key.to_vec().into(),
            gateways: self.gateways.iter().map(known).collect(),
            replace,
            // Servers are the roll's business, which goes by itself.
            ..Cluster::default()
        }
    }

    fn delta(&self, since: u64, base: u64) -> ClusterDelta {
        let changed: BTreeSet<Eui64> = self.changes.iter().filter(|(n, _)| *n > since).map(|(_, eui)| *eui).collect();
        let (there, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(|eui| self.gateways.contains_key(eui));
        ClusterDelta {
            from: base.saturating_add(since),
            to: base.saturating_add(self.version),
            add: there.iter().filter_map(|eui| self.gateways.get_key_value(eui)).map(known).collect(),
            remove: gone.into_iter().map(|eui| eui.0).collect(),
        }
    }
}

fn known((eui, policy): (&Eui64, &String)) -> KnownGateway {
    KnownGateway { eui: eui.0, policy: policy.clone() }
}

#[cfg(test)]
mod tests {
    use limpet_shared::link::to_balancer::Kind::{Cluster as Whole, ClusterDelta as Delta};

    use super::*;

    const KEY: [u8; 16] = [7; 16];

    fn message(known: &Known, have: u64) -> to_balancer::Kind {
        known.message(have, &KEY, 1_000)
    }

    fn gateways(message: to_balancer::Kind) -> (u64, Vec<u64>) {
        match message {
            Whole(cluster) => (cluster.version, cluster.gateways.iter().map(|g| g.eui).collect()),
            other => panic!("not everything: {other:?}"),
        }
    }

    #[test]
    fn a_balancer_that_is_a_little_behind_gets_the_changes_and_others_everything() {
        let mut known = Known::new(5, [(Eui64(1), String::new()), (Eui64(2), String::new())]);
        assert_eq!(gateways(message(&known, 0)), (1_005, vec![1, 2]));
        let changes = vec![(6, Eui64(3)), (7, Eui64(1)), (8, Eui64(2))];
        let now = vec![(Eui64(3), Some("lock".into())), (Eui64(1), None), (Eui64(2), Some("warn".into()))];
        known.change(8, changes, now);
        let same = Known::new(8, [(Eui64(2), "warn".into()), (Eui64(3), "lock".into())]);
        assert_eq!(known.digest(), same.digest());
        assert_ne!(known.digest(), Known::new(8, [(Eui64(2), "warn".into()), (Eui64(3), String::new())]).digest());
        let add = |eui, policy: &str| KnownGateway { eui, policy: policy.into() };
        let delta = |from, add, remove| Delta(ClusterDelta { from, to: 1_008, add, remove });
        assert_eq!(message(&known, 1_005), delta(1_005, vec![add(2, "warn"), add(3, "lock")], vec![1]));
        assert_eq!(message(&known, 1_007), delta(1_007, vec![add(2, "warn")], vec![]));
        for unknown in [0, 1_004, 1_009, u64::MAX] {
            assert_eq!(gateways(message(&known, unknown)), (1_008, vec![2, 3]), "{unknown}");
        }
    }

    #[test]
    fn changes_are_forgotten_when_there_are_many() {
        let mut known = Known::new(1, []);
        for n in 2..=KEPT as u64 + 11 {
            known.change(n, vec![(n, Eui64(n))], vec![(Eui64(n), Some(String::new()))]);
        }
        assert!(matches!(message(&known, 1_010), Whole(_)), "the first ten are forgotten");
        let Delta(delta) = message(&known, 1_011) else { panic!("not the changes") };
        assert_eq!(delta.add.len(), KEPT);
    }

    #[test]
    fn changes_that_were_told_twice_or_under_a_later_number_bring_the_same() {
        let mut known = Known::new(5, []);
        let there = |eui| (Eui64(eui), Some(String::new()));
        known.change(9, vec![(8, Eui64(1)), (9, Eui64(2)), (9, Eui64(1))], vec![there(1), there(2)]);
        let Delta(delta) = message(&known, 1_005) else { panic!("not the changes") };
        assert_eq!(delta.add.iter().map(|g| g.eui).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((delta.from, delta.to), (1_005, 1_009));
    }
}
