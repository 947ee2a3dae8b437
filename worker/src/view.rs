//! The cluster as the API of this worker sees it.

use std::sync::Arc;

use async_trait::async_trait;
use limpet_shared::admin::{Reply, Request};
use limpet_store::Store;

use crate::{cluster::Feed, links::Links, pipeline::Pipeline};

/// What the API and balancers' questions are answered from.
pub struct View {
    pub store: Arc<dyn Store>,
    pub links: Arc<Links>,
    pub feed: Arc<Feed>,
    pub pipeline: Arc<Pipeline>,
}

impl View {
    pub fn new(store: Arc<dyn Store>, links: Arc<Links>, feed: Arc<Feed>, pipeline: Arc<Pipeline>) -> Self {
        Self { store, links, feed, pipeline }
    }
}

#[async_trait]
impl limpet_api::ClusterView for View {
    async fn gateways_changed(&self) {
        self.pipeline.regions.forget();
        self.feed.push().await;
    }
    async fn ask(&self, request: Request) -> Reply {
        self.answer(request).await
    }
}
