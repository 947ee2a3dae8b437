//! What this worker tells the balancers about the network, which have no store of their own: the gateways, the ring's key.

mod known;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use limpet_link::{
    host::{self, Rule},
    token::Fingerprint,
};
use limpet_shared::{Eui64, policy};
use limpet_store::{GatewayChanges, Result, Store, StoreError, moving::NETWORK_BEGAN};
use limpet_worker_core::model::Gateway;
use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

use self::known::Known;
use crate::{links::Links, pipeline::Pipeline, seams::Surroundings};

/// How often the store is asked whether another worker changed the gateways.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who adds a gateway waits this long for the balancers to know it.
const FEED_LIMIT: Duration = Duration::from_millis(500);
const FEED_TRIES: u32 = 10;
/// Changed gateways that are read at one moment.
const AT_ONCE: usize = 32;
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
        host::fill(&mut proposed).map_err(|e| StoreError::Unavailable(format!("no random bytes: {e}")))?;
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
    pipeline: Arc<Pipeline>,
    network: Network,
    known: tokio::sync::Mutex<Known>,
}

impl Feed {
    pub fn new(store: Arc<dyn Store>, links: Arc<Links>, pipeline: Arc<Pipeline>) -> Self {
        let network = links.introduction().network.clone();
        Self { store, links, pipeline, network, known: tokio::sync::Mutex::default() }
    }

    /// What balancers count the store's changes from.
    fn base(&self) -> u64 {
        self.network.began << CHANGES_BITS
    }

    /// Learns what has changed in the store: one small read if nothing has.
    async fn follow(&self) -> Result<MutexGuard<'_, Known>> {
        let mut known = self.known.lock().await;
        let before = known.version();
        let GatewayChanges { version, changed } = match before {
            0 => GatewayChanges { version: 0, changed: None },
            before => self.store.gateway_changes(before).await?,
        };
        if version == before && changed.is_some() {
            return Ok(known);
        }
        let Some(changed) = changed else {
            let (version, gateways) = self.store.gateway_tags(policy::TAG).await?;
            *known = Known::new(version, gateways.into_iter().map(|(eui, tag)| (eui, tag.unwrap_or_default())));
            self.pipeline.regions.forget_all();
            return Ok(known);
        };
        let changed = if host::keeps(Rule::TellOfGateways) { changed } else { Vec::new() };
        let euis: BTreeSet<Eui64> = changed.iter().map(|(_, eui)| *eui).collect();
        let reads = euis.clone().into_iter().map(|eui| async move {
            let gateway = self.store.gateway(eui).await?;
            let policy = |(gateway, _): (Gateway, _)| gateway.tags.get(policy::TAG).cloned().unwrap_or_default();
            Ok::<_, StoreError>((eui, gateway.map(policy)))
        });
        let now = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        known.change(version, changed, now);
        self.pipeline.regions.forget(&euis);
        Ok(known)
    }

    /// Sends every balancer, or one, what it lacks. Returns the version that it has then.
    fn feed(&self, known: &Known, only: Option<&str>) -> u64 {
        let (base, version) = (self.base(), self.base().saturating_add(known.version()));
        self.links.feed(version, only, |have| known.message(have, &self.network.ring_key, base));
        version
    }

    /// A balancer has a snapshot of this network that the store does not know of: the store was put back from a backup, or
    /// counters were imported as they were. It would take nothing older, so the store's count goes beyond it.
    /// Returns whether it does now.
    async fn outgrow(&self, ours: u64) -> bool {
        let theirs = self.links.newest_snapshot();
        let Some(least) = theirs.and_then(|theirs| beyond(self.network.began, theirs, ours)) else { return false };
        let raised = self.store.raise_gateway_set_version(least).await;
        match &raised {
            Ok(()) => tracing::warn!(
                version = least,
                "a balancer knows a later state of the network's gateways than the store, which was put back: what the store has \
                 counts from now on"
            ),
            Err(error) => {
                tracing::warn!(%error, "balancers keep gateways of before the store was put back; trying again")
            }
        }
        raised.is_ok()
    }

    /// To one balancer that has just been linked.
    pub async fn greet(&self, address: &str) {
        if let Err(error) = self.look(Some(address)).await {
            tracing::warn!(%address, %error, "a balancer has to wait for the network's gateways");
        }
    }

    async fn look(&self, only: Option<&str>) -> Result<()> {
        let ours = self.follow().await?.version();
        if self.outgrow(ours).await {
            drop(self.follow().await?);
        }
        let known = self.known.lock().await;
        let version = self.feed(&known, only);
        let digest = known.digest();
        drop(known);
        if self.links.differs(version, digest) {
            self.mend().await?;
        }
        Ok(())
    }

    /// A balancer has other gateways under the number of this worker's. One of both knows something that the store does not say, or
    /// not any more: it was put back while they ran.
    async fn mend(&self) -> Result<()> {
        self.known.lock().await.forget();
        let known = self.follow().await?;
        let version = self.feed(&known, None);
        self.links.replace(version, known.digest(), || known.whole(&self.network.ring_key, self.base(), true));
        Ok(())
    }

    /// The gateways changed here: returns when the connected balancers know, at most after 500 ms.
    pub async fn push(&self) {
        let version = match self.follow().await {
            Ok(known) => self.feed(&known, None),
            Err(error) => {
                self.pipeline.regions.forget_all();
                return tracing::warn!(%error, "the balancers learn of a change later");
            }
        };
        for _ in 0..FEED_TRIES {
            if self.links.until_fed(version, FEED_LIMIT / FEED_TRIES).await {
                return;
            }
            // Another worker may have told it of another change meanwhile, so that ours did not fit: it has said what it has.
            self.feed(&*self.known.lock().await, None);
        }
        tracing::warn!("a balancer has not said in time that it knows the gateways; it will");
    }

    /// Looks for changes made at other workers, until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.links.beat.every(LOOK_EVERY)).await.is_some() {
            // Sent only to those that have an older one: what was lost on the way is sent again.
            if let Err(error) = self.look(None).await {
                tracing::debug!(%error, "the store does not tell of the gateways now");
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
