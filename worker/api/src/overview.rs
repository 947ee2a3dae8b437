//! What is running, in names and counts: for the console, which asks often, so it must be cheap; it holds no secret.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use limpet_shared::admin::{self, Reply, Request};
use limpet_store::{List, Store};
use tokio::{sync::Mutex, time::timeout};

use crate::{About, Api, error::Result};

/// An overview is given to everyone who asks within this time: many who look on ask the store once a second.
const FRESH: Duration = Duration::from_secs(1);
/// How long the console waits for a balancer.
const ASK_LIMIT: Duration = Duration::from_millis(400);
/// How long it waits for the store.
const STORE_LIMIT: Duration = Duration::from_secs(2);

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
    /// Gateways heard that the network does not know.
    pub unknown: Vec<admin::Gateway>,
    /// None if the store does not answer.
    pub counts: Option<Counts>,
    /// Integrations for which something waits, the failing ones first.
    pub waiting: Vec<admin::Integration>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub gateways: u32,
    /// Known gateways that were ever heard.
    pub heard: u32,
    /// Of these, the ones that are there now.
    pub online: u32,
    pub applications: u32,
    pub devices: u32,
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
        let (servers, unknown, counts, waiting) = tokio::join!(
            ask(Request::Servers),
            ask(Request::GatewaysHeard { unknown: true }),
            timeout(STORE_LIMIT, count(self.store.as_ref())),
            timeout(STORE_LIMIT, self.integrations()),
        );
        let mut waiting = waiting.ok().and_then(Result::ok);
        if let Some(waiting) = &mut waiting {
            waiting.retain(|integration| integration.waiting > 0);
        }
        Overview {
            about: self.about.clone(),
            store: self.store.describe(),
            regions: self.regions.all().iter().map(|region| region.name()).collect(),
            servers: match servers {
                Some(Reply::Servers { servers }) => Some(servers),
                _ => None,
            },
            unknown: match unknown {
                Some(Reply::Gateways { gateways }) => gateways,
                _ => Vec::new(),
            },
            // Without the one the other is not known either: the store is away.
            counts: counts.ok().and_then(Result::ok).filter(|_| waiting.is_some()),
            waiting: waiting.unwrap_or_default(),
        }
    }
}

async fn count(store: &dyn Store) -> Result<Counts> {
    let totals = List::default();
    let gateways = store.gateways(&List { limit: crate::lists::MOST, ..List::default() }).await?;
    let heard = gateways.items.iter().filter(|(_, seen)| seen.last_seen_at.is_some()).count();
    let now = crate::clock::now();
    let online =
        gateways.items.iter().filter(|(gateway, seen)| gateway.is_online(seen.last_seen_at, now) == Some(true));
    let online = u32::try_from(online.count()).unwrap_or(u32::MAX);
    Ok(Counts {
        online,
        gateways: gateways.total,
        heard: u32::try_from(heard).unwrap_or(u32::MAX),
        applications: store.applications(&totals).await?.total,
        devices: store.devices(&totals).await?.total,
    })
}
