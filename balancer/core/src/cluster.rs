//! What the balancer knows of the network, having no store: the snapshot that workers feed it.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
};

use bytes::Bytes;
use limpet_shared::{
    Eui64,
    link::{Cluster, ClusterDelta, KnownGateway, RevokedKey},
    policy::AddressPolicy,
};

/// The highest version of the cluster that was seen.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    version: u64,
    ring_key: Option<[u8; 16]>,
    gateways: BTreeMap<u64, Gateway>,
    /// The sum of theirs.
    digest: u64,
    /// Revoked certificates by their keys. They are only ever added.
    revoked_keys: BTreeMap<String, RevokedKey>,
}

/// A gateway that the network knows.
#[derive(Clone, Debug)]
struct Gateway {
    policy: AddressPolicy,
    /// As it was told, where that is another text: a policy may be one that only a newer version can read.
    told: Option<String>,
    /// Of what was told.
    digest: u64,
}

impl Knowledge {
    /// Takes a snapshot if it is newer than what is here, or meant to replace just that, and has a whole ring key.
    pub fn apply(&mut self, cluster: &Cluster) -> bool {
        let Ok(ring_key) = <[u8; 16]>::try_from(cluster.ring_key.as_ref()) else { return false };
        let replaces = cluster.replace && cluster.version == self.version && self.version > 0;
        if cluster.version <= self.version && !replaces {
            return false;
        }
        self.revoke(cluster.revoked_keys.iter().cloned());
        (self.version, self.ring_key) = (cluster.version, Some(ring_key));
        (self.gateways, self.digest) = (BTreeMap::new(), 0);
        cluster.gateways.iter().for_each(|gateway| self.learn(gateway));
        true
    }

    /// Takes a change if it starts from exactly what is here.
    pub fn apply_delta(&mut self, delta: &ClusterDelta) -> bool {
        if self.version == 0 || delta.from != self.version || delta.to <= delta.from {
            return false;
        }
        self.version = delta.to;
        for eui in &delta.remove {
            let gone = self.gateways.remove(eui).map_or(0, |gateway| gateway.digest);
            self.digest = self.digest.wrapping_sub(gone);
        }
        delta.add.iter().for_each(|gateway| self.learn(gateway));
        true
    }

    /// A policy that this version cannot read is none: the workers have checked it, so it is one of a newer version.
    fn learn(&mut self, gateway: &KnownGateway) {
        let digest = gateway.digest();
        let policy = gateway.policy.parse().unwrap_or_default();
        let told = (text(&policy) != gateway.policy).then(|| gateway.policy.clone());
        let known = Gateway { policy, told, digest };
        let before = self.gateways.insert(gateway.eui, known).map_or(0, |gateway| gateway.digest);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(digest);
    }

    /// The whole of it, to be kept.
    pub fn to_cluster(&self) -> Cluster {
        Cluster {
            version: self.version,
            ring_key: self.ring_key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key)),
            gateways: self
                .gateways
                .iter()
                .map(|(&eui, gateway)| KnownGateway {
                    eui,
                    policy: gateway.told.clone().unwrap_or_else(|| text(&gateway.policy)),
                })
                .collect(),
            revoked_keys: self.revoked_keys.values().cloned().collect(),
            replace: false,
        }
    }

    /// Notes certificates that count no more; false if all of them were known.
    pub fn revoke(&mut self, servers: impl Iterator<Item = RevokedKey>) -> bool {
        let before = self.revoked_keys.len();
        for server in servers.filter(|server| !server.key.is_empty()) {
            self.revoked_keys.entry(server.key.clone()).or_insert(server);
        }
        self.revoked_keys.len() != before
    }

    /// All of them.
    pub fn revoked(&self) -> impl Iterator<Item = &RevokedKey> {
        self.revoked_keys.values()
    }

    /// Whether the certificate with this key is revoked.
    pub fn is_key_revoked(&self, key: &str) -> bool {
        self.revoked_keys.contains_key(key)
    }

    /// 0 before the first snapshot.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What [`limpet_shared::link::ClusterHave`] says of the gateways.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The cluster's key of the ring.
    pub fn ring_key(&self) -> Option<[u8; 16]> {
        self.ring_key
    }

    /// Whether the network knows the gateway.
    pub fn knows(&self, gateway: Eui64) -> bool {
        self.gateways.contains_key(&gateway.0)
    }

    /// What a known gateway may do with its address.
    pub fn policy(&self, gateway: Eui64) -> Option<&AddressPolicy> {
        self.gateways.get(&gateway.0).map(|gateway| &gateway.policy)
    }

    /// How many gateways the network knows.
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }
}

fn text(policy: &AddressPolicy) -> String {
    if *policy == AddressPolicy::default() { String::new() } else { policy.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(version: u64, euis: &[u64]) -> Cluster {
        Cluster {
            version,
            ring_key: Bytes::from_static(&[1; 16]),
            gateways: euis.iter().map(|&eui| KnownGateway { eui, policy: "hold:60".into() }).collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn a_revocation_outlives_snapshots_that_know_nothing_of_it() {
        let mut known = Knowledge::default();
        let revoked = |name: &str, key: &str| RevokedKey { name: name.into(), key: key.into(), balancer: true };
        assert!(known.revoke([revoked("w", "00ff"), revoked("none", "")].into_iter()));
        assert!(!known.revoke([revoked("w", "00ff")].into_iter()));
        assert_eq!(known.revoked().collect::<alloc::vec::Vec<_>>(), [&revoked("w", "00ff")]);
        assert!(known.apply(&snapshot(5, &[1])));
        assert!(known.is_key_revoked("00ff") && !known.is_key_revoked(""));
        let mut copy = Knowledge::default();
        assert!(copy.apply(&known.to_cluster()));
        assert!(copy.is_key_revoked("00ff"));
    }

    #[test]
    fn another_set_under_the_same_number_is_told_apart_and_replaced() {
        let (mut known, mut other) = (Knowledge::default(), Knowledge::default());
        let digest = |euis: &[u64]| {
            snapshot(0, euis).gateways.iter().fold(0_u64, |sum, gateway| sum.wrapping_add(gateway.digest()))
        };
        assert!(known.apply(&snapshot(5, &[1, 2])) && other.apply(&snapshot(5, &[2, 3])));
        assert_eq!((known.digest(), other.digest()), (digest(&[1, 2]), digest(&[2, 3])));
        assert!(!other.apply(&snapshot(5, &[1, 2])), "the same number is no news");
        assert!(!other.apply(&Cluster { replace: true, ..snapshot(4, &[1, 2]) }), "nor is an older one");
        assert!(other.apply(&Cluster { replace: true, ..snapshot(5, &[1, 2]) }));
        assert_eq!(other.digest(), known.digest());
        let add = |eui, policy: &str| KnownGateway { eui, policy: policy.into() };
        let add = alloc::vec![add(1, "of a newer version"), add(3, "hold:60")];
        assert!(known.apply_delta(&ClusterDelta { from: 5, to: 6, add: add.clone(), remove: alloc::vec![2, 9] }));
        assert_eq!(known.digest(), add[0].digest().wrapping_add(add[1].digest()));
        let mut restarted = Knowledge::default();
        assert!(restarted.apply(&known.to_cluster()));
        assert_eq!(restarted.digest(), known.digest());
    }

    #[test]
    fn the_highest_version_wins_and_a_delta_needs_its_base() {
        let mut known = Knowledge::default();
        let delta = |from, to| ClusterDelta {
            from,
            to,
            add: alloc::vec![KnownGateway { eui: 9, ..KnownGateway::default() }],
            remove: alloc::vec![1],
        };
        assert!(!known.apply_delta(&delta(0, 1)), "nothing to start from");
        assert!(!known.apply(&Cluster { ring_key: Bytes::from_static(&[1; 15]), ..snapshot(5, &[]) }));
        assert!(known.apply(&snapshot(5, &[1, 2])));
        assert!(!known.apply(&snapshot(5, &[3])));
        assert!(!known.apply_delta(&delta(4, 6)));
        assert!(!known.apply_delta(&delta(5, 5)));
        assert!(known.apply_delta(&delta(5, 6)));
        assert_eq!((known.version(), known.gateways()), (6, 2));
        assert!(known.knows(Eui64(9)) && !known.knows(Eui64(1)));
        let mut copy = Knowledge::default();
        assert!(copy.apply(&known.to_cluster()));
        assert_eq!(copy.to_cluster(), known.to_cluster());
    }
}
