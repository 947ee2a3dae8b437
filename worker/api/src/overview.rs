//! What is running, in names and counts: for the console, which asks often, so it must be cheap; it holds no secret.

use std::{sync::Arc, time::Duration};

use limpet_shared::admin::{self, Reply, Request};
use limpet_store::Store;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};

use crate::{About, Api, error::Result, integrations::not_well};

/// An overview is given to everyone who asks within this time: many who look on ask the store once a second.
const FRESH: Duration = Duration::from_secs(1);
/// How long the console waits for a balancer.
const ASK_LIMIT: Duration = Duration::from_millis(400);
/// How long it waits for the store.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// How long it waits for new counts when it has old ones.
const COUNT_LIMIT: Duration = Duration::from_millis(400);
/// Counting walks through everything: it rests so many times as long as it took.
const REST: u32 = 20;

/// What is running, as one worker sees it.
#[derive(Clone, Debug)]
pub struct Overview {
    pub about: About,
    /// What the store is, in words and without secrets.
    pub store: String,
    /// Names of the network's regions.
    pub regions: Vec<&'static str>,
    /// As a balancer sees them; none if no balancer answers.
    pub servers: Option<Vec<admin::Server>>,
    /// Gateways heard that the network does not know; none if no balancer answers.
    pub unknown: Option<Vec<admin::Gateway>>,
    /// Whether the store answers at this moment.
    pub store_answers: bool,
    /// What was counted last: in a large network that may be minutes ago. `None` until it was counted once.
    pub counts: Option<Counts>,
    /// Integrations for which something waits, or that refuse events, the failing ones first, then those for which most waits; behind
    /// the first [`admin::PAGE`] they have no names. As they were looked at last; `None` until they were once.
    pub waiting: Option<Arc<[admin::Integration]>>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub gateways: u64,
    /// Known gateways that were ever heard.
    pub heard: u64,
    /// Of these, the ones that are there now.
    pub online: u64,
    pub applications: u64,
    pub devices: u64,
}

/// The last overview, and when it was made.
#[derive(Default)]
pub(crate) struct Last(Mutex<Option<(Instant, Arc<Overview>)>>);

impl Api {
    /// What is running now, or was a moment ago.
    pub async fn overview(&self) -> Arc<Overview> {
        let mut last = self.last_overview.0.lock().await;
        match &*last {
            Some((at, overview)) if at.elapsed() < FRESH => overview.clone(),
            _ => {
                let overview = Arc::new(self.look().await);
                *last = Some((Instant::now(), overview.clone()));
                overview
            }
        }
    }

    async fn look(&self) -> Overview {
        let ask = async |request| timeout(ASK_LIMIT, self.cluster.ask(request)).await.ok();
        let (store, also_store, cluster) = (self.store.clone(), self.store.clone(), self.cluster.clone());
        let not_well = async move { not_well(also_store.as_ref(), cluster.as_ref()).await.map(Arc::from) };
        let (servers, unknown, pinged, counts, waiting) = tokio::join!(
            ask(Request::Servers),
            ask(Request::heard(true)),
            timeout(STORE_LIMIT, self.store.ping()),
            self.counting.look(async move { count(store.as_ref()).await }),
            self.looking_at_waiting.look(not_well),
        );
        Overview {
            about: self.about.clone(),
            store: self.store.describe(),
            regions: self.regions.all().iter().map(|region| region.name()).collect(),
            servers: match servers {
                Some(Reply::Servers { servers }) => Some(servers),
                _ => None,
            },
            unknown: match unknown {
                Some(Reply::Gateways { gateways, .. }) => Some(gateways),
                _ => None,
            },
            store_answers: matches!(pinged, Ok(Ok(()))),
            counts,
            waiting,
        }
    }
}

/// What was found last by looks that may take long. Each goes on when nobody waits for it any more.
pub(crate) struct Counting<T>(watch::Sender<Counted<T>>);

struct Counted<T> {
    found: Option<T>,
    under_way: bool,
    /// Not before.
    next: Option<Instant>,
}

impl<T> Default for Counting<T> {
    fn default() -> Self {
        Self(watch::Sender::new(Counted { found: None, under_way: false, next: None }))
    }
}

impl<T: Clone + Send + Sync + 'static> Counting<T> {
    /// What is known, after `count` if that is due and over soon.
    async fn look(&self, count: impl Future<Output = Result<T>> + Send + 'static) -> Option<T> {
        let begins = self.0.send_if_modified(|known| {
            let due = !known.under_way && known.next.is_none_or(|next| Instant::now() >= next);
            known.under_way |= due;
            due
        });
        if begins {
            tokio::spawn(run(self.0.clone(), count));
        }
        let mut known = self.0.subscribe();
        let limit = if known.borrow().found.is_some() { COUNT_LIMIT } else { STORE_LIMIT };
        // The sender lives in `self`. Who waits too long takes what there is.
        let _ = timeout(limit, known.wait_for(|known| !known.under_way)).await;
        known.borrow().found.clone()
    }
}

async fn run<T>(known: watch::Sender<Counted<T>>, count: impl Future<Output = Result<T>>) {
    let began = Instant::now();
    let counted = count.await;
    if let Err(error) = &counted {
        tracing::debug!(%error, "the overview was not counted");
    }
    known.send_modify(|known| {
        if let Ok(counted) = counted {
            known.found = Some(counted);
        }
        known.under_way = false;
        known.next = Some(Instant::now() + FRESH.max(began.elapsed() * REST));
    });
}

async fn count(store: &dyn Store) -> Result<Counts> {
    let totals = store.totals(crate::clock::now()).await?;
    Ok(Counts {
        gateways: totals.gateways,
        heard: totals.heard,
        online: totals.online,
        applications: totals.applications,
        devices: totals.devices,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts that take so long; each has another number.
    async fn slow(begun: Arc<AtomicU64>, takes: Duration) -> Result<Counts> {
        let devices = begun.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(takes).await;
        Ok(Counts { devices, ..Counts::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_does_not_wait_for_long_counting_and_does_not_repeat_it() {
        let (counting, begun) = (Counting::default(), Arc::new(AtomicU64::new(0)));
        let look = async || counting.look(slow(begun.clone(), Duration::from_secs(20))).await.map(|c| c.devices);
        for _ in 0..3 {
            assert_eq!(look().await, None);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        for _ in 0..70 {
            assert_eq!((look().await, begun.load(Ordering::Relaxed)), (Some(1), 1));
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((look().await, begun.load(Ordering::Relaxed)), (Some(1), 2), "and shows what it has meanwhile");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(look().await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_quickly_is_new_each_second_and_stays_when_counting_fails() {
        let (counting, begun) = (Counting::default(), Arc::new(AtomicU64::new(0)));
        for n in 1..5 {
            let counts = counting.look(slow(begun.clone(), Duration::from_millis(5))).await;
            assert_eq!(counts.map(|c| c.devices), Some(n));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let failed = async { Err(crate::ApiError::Unavailable("it is away".into())) };
        assert_eq!(counting.look(failed).await.map(|c| c.devices), Some(4));
    }
}
