//! Whom to dial: every address that the balancers' names have, found out again and again, for balancers come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use limpet_link::{
    DialError, dial_unless,
    host::{self, Rule},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{LinkError, Links, session};
use crate::pipeline::{Pipeline, Sweep};

/// Pauses between two dials: doubled from the first up to the second.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A name that is taken is asked for this often before the worker gives up.
const NAME_TRIES: u32 = 20;
/// New addresses are dialled one after the other with such pauses: who finds two ways to one balancer should have one
/// of them before it tries the second.
const TURN: Duration = Duration::from_millis(50);
/// How often names are looked up, and how long that may take.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);
const LOOK_UP_LIMIT: Duration = Duration::from_secs(4);
/// Addresses of one name, and of all.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 64;
/// How often an address that leads to a balancer with another link looks whether that link is still there.
const STAND_BY: Duration = Duration::from_secs(1);
/// A balancer whose link has ended may take so long to come back before that is worth a warning.
const RETURN: Duration = Duration::from_secs(5);

/// What a link's task works with.
#[derive(Clone)]
pub(super) struct Dialler {
    pub links: Arc<Links>,
    pub pipeline: Arc<Pipeline>,
    pub sweep: Sweep,
    pub stop: CancellationToken,
}

impl Dialler {
    /// Keeps a link to each address of each of these names (`host:port`) until told to stop. Ends early only when a
    /// balancer says that trying again cannot help.
    pub async fn run(self, names: Vec<String>) -> Result<(), LinkError> {
        let mut addresses = Addresses::new(names);
        let (wanted, _) = watch::channel(BTreeSet::new());
        let (mut dialled, mut tasks) = (BTreeSet::new(), JoinSet::new());
        while !self.stop.is_cancelled() {
            let Some(found) = self.stop.run_until_cancelled(addresses.look_up()).await else { break };
            for (turn, &address) in found.difference(&dialled).enumerate() {
                let (dialler, wanted) = (self.clone(), wanted.subscribe());
                let wait = TURN * u32::try_from(turn).unwrap_or_default();
                tasks.spawn(async move {
                    tokio::time::sleep(wait).await;
                    dialler.keep(address, wanted).await
                });
            }
            dialled.extend(&found);
            wanted.send_replace(found);
            tokio::select! {
                biased;
                () = tokio::time::sleep(LOOK_UP_EVERY) => {}
                () = self.stop.cancelled() => {}
                Some(Ok(ended)) = tasks.join_next() => { dialled.remove(&ended?); }
            }
        }
        while let Some(ended) = tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps a link to one address for as long as a name has it; a link that is up is left alone.
    async fn keep(
        self,
        address: SocketAddr,
        wanted: watch::Receiver<BTreeSet<SocketAddr>>,
    ) -> Result<SocketAddr, LinkError> {
        let (mut pause, mut refused, mut failed) = (REDIAL.0, 0, false);
        let mut lost_at: Option<Instant> = None;
        while !self.stop.is_cancelled() && wanted.borrow().contains(&address) {
            let identity = self.links.identity();
            let hello = self.links.hello();
            let text = address.to_string();
            let dialling = dial_unless(&text, &identity, hello, |balancer| self.links.is_revoked(&balancer.key));
            let Some(dialled) = self.stop.run_until_cancelled(dialling).await else { break };
            match dialled {
                Ok(link) => {
                    (pause, refused, failed) = (REDIAL.0, 0, false);
                    tracing::info!(balancer = link.welcome.name, %address, "linked");
                    let ended = session::run(&self.links, &text, link, &self.pipeline, &self.stop).await;
                    tracing::info!(%address, %ended, "the link ended");
                    lost_at = Some(Instant::now());
                    // It may have been the balancer that died, with frames that it retained.
                    if host::keeps(Rule::SweepWhenBalancerGone) {
                        self.sweep.ask();
                    }
                }
                Err(DialError::Linked { balancer, .. }) => {
                    tracing::debug!(%address, "leads to a balancer that is linked already");
                    self.stand_by(balancer).await;
                    continue;
                }
                Err(error @ DialError::Removed { .. }) => return Err(LinkError::Removed(error.to_string())),
                Err(error) if self.has_the_wrong_store(&error) => return Err(error.into()),
                Err(error) => {
                    if let DialError::Refused { retry, .. } = &error {
                        refused += 1;
                        if !retry || refused >= NAME_TRIES {
                            return Err(error.into());
                        }
                    }
                    // A balancer that has just ended may be on its way back, or this worker on its way after it.
                    let expected = lost_at.is_some_and(|at| at.elapsed() < RETURN);
                    // Of a name's addresses some may never answer; that is worth a line, not one every two seconds.
                    if expected {
                        tracing::debug!(%address, %error, "no link; trying again");
                    } else if !std::mem::replace(&mut failed, true) || !self.links.is_linked() {
                        tracing::warn!(%address, %error, "no link; trying again");
                    }
                }
            }
            let _ = self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(REDIAL.1);
        }
        Ok(address)
    }

    /// Of two networks in one cluster the younger one is the mistake: a store that was made because nobody named the
    /// right one.
    fn has_the_wrong_store(&self, error: &DialError) -> bool {
        matches!(error, DialError::OtherStore { began, .. } if *began <= self.links.introduction().network.began())
    }

    async fn stand_by(&self, balancer: u64) {
        loop {
            let slept = self.stop.run_until_cancelled(tokio::time::sleep(STAND_BY)).await;
            if slept.is_none() || !self.links.is_linked_to(balancer) {
                return;
            }
        }
    }
}

/// Names with the addresses that each had when it was last looked up with success.
struct Addresses {
    names: BTreeMap<String, BTreeSet<SocketAddr>>,
}

impl Addresses {
    fn new(names: Vec<String>) -> Self {
        Self { names: names.into_iter().map(|name| (name, BTreeSet::new())).collect() }
    }

    /// All addresses. A name that cannot be looked up keeps those it had.
    async fn look_up(&mut self) -> BTreeSet<SocketAddr> {
        for (name, had) in &mut self.names {
            match tokio::time::timeout(LOOK_UP_LIMIT, tokio::net::lookup_host(name.as_str())).await {
                Ok(Ok(found)) => *had = found.take(MOST_OF_ONE).collect(),
                Ok(Err(error)) => tracing::warn!(balancer = name, %error, "cannot look up a balancer's name"),
                Err(_) => tracing::warn!(balancer = name, "looking up a balancer's name takes too long"),
            }
        }
        self.names.values().flatten().copied().take(MOST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_addresses_are_dialled_each_once_and_a_name_that_is_lost_keeps_its_own() {
        let names = ["127.0.0.1:1701", "[::1]:1701", "127.0.0.1:1701"];
        let mut addresses = Addresses::new(names.map(str::to_owned).to_vec());
        let two = BTreeSet::from(["127.0.0.1:1701".parse().unwrap(), "[::1]:1701".parse().unwrap()]);
        assert_eq!(addresses.look_up().await, two);
        let before = BTreeSet::from(["192.0.2.1:1701".parse().unwrap()]);
        // No port: it can never be looked up.
        addresses.names.insert("nowhere".into(), before.clone());
        assert_eq!(addresses.look_up().await, two.union(&before).copied().collect());
    }
}
