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
    gateways: BTreeMap<u64, AddressPolicy>,
    /// Keys of revoked certificates, with the names in them. They are only ever added.
    revoked_keys: BTreeMap<String, String>,
}

impl Knowledge {
    /// Takes a snapshot if it is newer than what is here and has a whole ring key.
    pub fn apply(&mut self, cluster: &Cluster) -> bool {
        let Ok(ring_key) = <[u8; 16]>::try_from(cluster.ring_key.as_ref()) else { return false };
        if cluster.version <= self.version {
            return false;
        }
        let mut revoked_keys = core::mem::take(&mut self.revoked_keys);
        revoked_keys.extend(cluster.revoked_keys.iter().map(|r| (r.key.clone(), r.name.clone())));
        *self = Self {
            revoked_keys,
            version: cluster.version,
            ring_key: Some(ring_key),
            gateways: cluster.gateways.iter().map(known).collect(),
        };
        true
    }

    /// Takes a change if it starts from exactly what is here.
    pub fn apply_delta(&mut self, delta: &ClusterDelta) -> bool {
        if self.version == 0 || delta.from != self.version || delta.to <= delta.from {
            return false;
        }
        self.version = delta.to;
        for eui in &delta.remove {
            self.gateways.remove(eui);
        }
        self.gateways.extend(delta.add.iter().map(known));
        true
    }

    /// The whole of it, to be kept.
    pub fn to_cluster(&self) -> Cluster {
        Cluster {
            version: self.version,
            ring_key: self.ring_key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key)),
            gateways: self.gateways.iter().map(|(&eui, policy)| KnownGateway { eui, policy: text(policy) }).collect(),
            revoked_keys: self
                .revoked_keys
                .iter()
                .map(|(key, name)| RevokedKey { name: name.clone(), key: key.clone() })
                .collect(),
        }
    }

    /// Notes certificates that count no more; false if all of them were known.
    pub fn revoke<'a>(&mut self, servers: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        let before = self.revoked_keys.len();
        for (name, key) in servers.filter(|(_, key)| !key.is_empty()) {
            self.revoked_keys.entry(key.into()).or_insert_with(|| name.into());
        }
        self.revoked_keys.len() != before
    }

    /// Whether the certificate with this key is revoked.
    pub fn is_key_revoked(&self, key: &str) -> bool {
        self.revoked_keys.contains_key(key)
    }

    /// 0 before the first snapshot.
    pub fn version(&self) -> u64 {
        self.version
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
        self.gateways.get(&gateway.0)
    }

    /// How many gateways the network knows.
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }
}

/// A policy that this version cannot read is none: the workers have checked it, so it is one of a newer version.
fn known(gateway: &KnownGateway) -> (u64, AddressPolicy) {
    (gateway.eui, gateway.policy.parse().unwrap_or_default())
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
        assert!(known.revoke([("w", "00ff"), ("none", "")].into_iter()));
        assert!(!known.revoke([("w", "00ff")].into_iter()));
        assert!(known.apply(&snapshot(5, &[1])));
        assert!(known.is_key_revoked("00ff") && !known.is_key_revoked(""));
        let mut copy = Knowledge::default();
        assert!(copy.apply(&known.to_cluster()));
        assert!(copy.is_key_revoked("00ff"));
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
