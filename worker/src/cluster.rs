//! What this worker tells the balancers about the network, which have no store of their own: the gateways, the ring's key.

use std::{collections::HashMap, sync::Arc, time::Duration};

use limpet_link::token::Fingerprint;
use limpet_shared::{
    Eui64,
    link::{Cluster, KnownGateway},
    policy,
};
use limpet_store::{List, Result, Store, StoreError, moving::NETWORK_BEGAN};
use limpet_worker_core::model::{Gateway, GatewaySeen};
use tokio_util::sync::CancellationToken;

use crate::{links::Links, seams::Surroundings};

/// How often the store is asked whether another worker changed the gateways.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who adds a gateway waits this long for the balancers to know it.
const FEED_LIMIT: Duration = Duration::from_millis(500);
/// Bits of a snapshot's version that count changes; above them stands the second in which the network began, so that
/// the snapshot of a network that was set up anew replaces that of the old one.
const CHANGES_BITS: u32 = 24;

/// What makes a network this one: it came into its store with the first worker, and stays.
#[derive(Clone)]
pub struct Network {
    ring_key: [u8; 16],
    /// Unix, s.
    began: u64,
}

impl Network {
    /// Reads the ring's key, or makes it: the first worker's is the network's.
    pub async fn open(store: &dyn Store, surroundings: &dyn Surroundings) -> Result<Self> {
        let mut proposed = [0; 16];
        getrandom::fill(&mut proposed).map_err(|e| StoreError::Unavailable(format!("no random bytes: {e}")))?;
        let key = store.init_setting("ring_key", &proposed).await?;
        let ring_key =
            key.try_into().map_err(|_| StoreError::Corrupt("the setting ring_key is not 16 bytes".into()))?;
        let began = (surroundings.now().0 / 1_000_000).to_be_bytes();
        let began = store.init_setting(NETWORK_BEGAN, &began).await?;
        let began =
            began.try_into().map_err(|_| StoreError::Corrupt(format!("the setting {NETWORK_BEGAN} is not 8 bytes")))?;
        Ok(Self { ring_key, began: u64::from_be_bytes(began) })
    }

    /// Tells it from others, and says nothing of the key.
    pub fn id(&self) -> String {
        Fingerprint::of(&self.ring_key).to_string()
    }

    /// When it began (Unix, s).
    pub fn began(&self) -> u64 {
        self.began
    }
}

/// The count that goes beyond a balancer's snapshot, if that is one of this network and `ours` does not reach it.
fn beyond(began: u64, theirs: u64, ours: u64) -> Option<u64> {
    let base = began << CHANGES_BITS;
    // Of an older network that was replaced, or so far beyond that counting on would end: nothing to go beyond.
    let count = theirs.checked_sub(base).filter(|count| *count < u64::from(u32::MAX))?;
    (count > ours).then_some(count + 1)
}

/// Feeds balancers from the store.
pub struct Feed {
    store: Arc<dyn Store>,
    links: Arc<Links>,
    network: Network,
}

impl Feed {
    pub fn new(store: Arc<dyn Store>, links: Arc<Links>) -> Self {
        let network = links.introduction().network.clone();
        Self { store, links, network }
    }

    fn version(&self, changes: u64) -> u64 {
        (self.network.began << CHANGES_BITS).saturating_add(changes)
    }

    async fn snapshot(&self) -> Result<Cluster> {
        let (changes, gateways) = self.store.gateway_set().await?;
        let policies = self.policies().await?;
        let policy = |eui| policies.get(&eui).cloned().unwrap_or_default();
        Ok(Cluster {
            version: self.version(changes),
            ring_key: self.network.ring_key.to_vec().into(),
            gateways: gateways.into_iter().map(|eui| KnownGateway { eui: eui.0, policy: policy(eui) }).collect(),
            // Servers are the roll's business, which goes by itself.
            ..Cluster::default()
        })
    }

    /// The address policies of gateways that have one. A change after `gateway_set` was read has its own version.
    async fn policies(&self) -> Result<HashMap<Eui64, String>> {
        let all = self.store.gateways(&List { limit: u32::MAX, ..List::default() }).await?;
        let policy = |(gateway, _): (Gateway, GatewaySeen)| Some((gateway.eui, gateway.tags.get(policy::TAG)?.clone()));
        Ok(all.items.into_iter().filter_map(policy).collect())
    }

    /// A balancer has a snapshot of this network that the store does not know of: the store was put back from a backup, or
    /// counters were imported as they were. It would take nothing older, so the store's count goes beyond it.
    async fn outgrow(&self) {
        let Some(theirs) = self.links.newest_snapshot() else { return };
        let Ok(ours) = self.store.gateway_set_version().await else { return };
        let Some(least) = beyond(self.network.began, theirs, ours) else { return };
        match self.store.raise_gateway_set_version(least).await {
            Ok(()) => tracing::warn!(
                version = least,
                "a balancer knows a later state of the network's gateways than the store, which was put back: what the store has \
                 counts from now on"
            ),
            Err(error) => {
                tracing::warn!(%error, "balancers keep gateways of before the store was put back; trying again")
            }
        }
    }

    /// To one balancer that has just been linked.
    pub async fn greet(&self, address: &str) {
        self.outgrow().await;
        match self.snapshot().await {
            Ok(cluster) => self.links.feed(&cluster, Some(address)),
            Err(error) => tracing::warn!(%address, %error, "a balancer has to wait for the network's gateways"),
        }
    }

    /// The gateways changed here: returns when the connected balancers know, at most after 500 ms.
    pub async fn push(&self) {
        match self.snapshot().await {
            Ok(cluster) => {
                self.links.feed(&cluster, None);
                self.links.until_fed(cluster.version, FEED_LIMIT).await;
            }
            Err(error) => tracing::warn!(%error, "the balancers learn of a change later"),
        }
    }

    /// Looks for changes made at other workers, until told to stop. `changed` is called for each.
    pub async fn run(&self, changed: impl Fn(), stop: CancellationToken) {
        let mut last = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            self.outgrow().await;
            let Ok(version) = self.store.gateway_set_version().await else { continue };
            if version != last {
                last = version;
                changed();
            }
            // Sent only to those that have an older one: a snapshot that was lost on the way is sent again.
            if self.links.anyone_behind(self.version(version))
                && let Ok(cluster) = self.snapshot().await
            {
                self.links.feed(&cluster, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_put_back_goes_beyond_what_balancers_have() {
        let (began, version) = (1_790_000_000_u64, |count: u64| (1_790_000_000 << CHANGES_BITS) + count);
        assert_eq!(beyond(began, version(7), 5), Some(8));
        assert_eq!(beyond(began, version(5), 5), None, "they have what the store has");
        assert_eq!(beyond(began, version(4), 5), None);
        assert_eq!(beyond(began, 0, 5), None, "a balancer that knows nothing yet");
        assert_eq!(beyond(began, ((began - 1) << CHANGES_BITS) + 9, 5), None, "an older network's");
        assert_eq!(beyond(began, u64::MAX, 5), None);
    }
}
