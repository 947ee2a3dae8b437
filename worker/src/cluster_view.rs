//! The cluster as the API of this worker sees it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use limpet_shared::admin::{ErrorKind, IntegrationBacklog, Reply, Request};
use limpet_worker_core::model::SessionKey;
use uuid::Uuid;

use crate::{cluster::Feed, links::Links, pipeline::Pipeline, roll::Roll};

/// An enqueuer is answered by then, whether its item is decided or not.
const ENQUEUER_WAITS: Duration = Duration::from_millis(200);

/// The balancers behind the links, and what they must be told.
pub struct LinkedCluster {
    pub links: Arc<Links>,
    pub feed: Arc<Feed>,
    pub pipeline: Arc<Pipeline>,
    pub roll: Arc<Roll>,
}

#[async_trait]
impl limpet_api::ClusterView for LinkedCluster {
    async fn gateways_changed(&self) {
        self.feed.push().await;
    }
    async fn settings_changed(&self) {
        if let Err(error) = self.pipeline.read_settings().await {
            tracing::debug!(%error, "what was set is taken up with the next call of the roll");
        }
    }
    async fn item_enqueued(&self, session: SessionKey) {
        let pipeline = self.pipeline.clone();
        // Decided bytes go out, also if the caller has gone; and who enqueues need not wait for a store that is slow.
        let decided = tokio::spawn(async move { pipeline.item_enqueued(&session).await });
        let _ = tokio::time::timeout(ENQUEUER_WAITS, decided).await;
    }
    async fn ask(&self, request: Request) -> Reply {
        match request {
            Request::Servers => Reply::Servers { servers: self.roll.servers().await },
            Request::Remove { name, by, .. } => self.roll.remove(&name, &by).await,
            Request::Tokens => self.roll.tokens().await,
            Request::TokenRevoke { id } => self.roll.revoke_token(&id).await,
            Request::Drain { .. } => self.roll.drain(&request).await,
            Request::IntegrationRetry { id } => match Uuid::parse_str(&id) {
                Ok(id) => self.pipeline.retry_waiting(id).await,
                Err(_) => no_id(&id),
            },
            Request::IntegrationDrop { id, by, .. } => match Uuid::parse_str(&id) {
                Ok(id) => self.pipeline.drop_waiting(id, &by).await,
                Err(_) => no_id(&id),
            },
            request => self.links.ask(request).await,
        }
    }
    fn backlog(&self) -> Option<Vec<IntegrationBacklog>> {
        let here = self.pipeline.store.counts_pending_for_all() || self.pipeline.counted.is_ours();
        if here { None } else { self.roll.backlog() }
    }
}

fn no_id(id: &str) -> Reply {
    Reply::Error { kind: ErrorKind::Invalid, message: format!("{id} is no integration's id, which is a UUID") }
}
