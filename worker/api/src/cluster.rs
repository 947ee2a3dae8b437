//! What the API needs to know of the rest of the cluster.

use std::time::Duration;

use async_trait::async_trait;
use limpet_shared::admin::{ErrorKind, IntegrationBacklog, Reply, Request};
use limpet_worker_core::model::SessionKey;

/// How long a change of gateways waits for the balancers before it is answered anyway.
pub(crate) const GATEWAYS_WAIT: Duration = Duration::from_millis(500);

/// The balancers, as this worker reaches them.
#[async_trait]
pub trait ClusterView: Send + Sync + 'static {
    /// Gateways were created, changed or deleted in the store: tells the connected balancers, and returns once they
    /// have it. The API waits at most 500 ms.
    async fn gateways_changed(&self);
    /// The network's settings were changed in the store: this worker takes them up at once, others follow.
    async fn settings_changed(&self) {}
    /// An item is in the queue of the device that is in this session: it goes out at once if an answer is open. Returns once that
    /// is done, or there is nothing to do.
    async fn item_enqueued(&self, _session: SessionKey) {}
    /// Asks the roll of servers that this worker keeps, or a balancer.
    async fn ask(&self, request: Request) -> Reply;
    /// What waits, as another worker, which sends it, has counted it; `None` if what this worker's store says is at least as good.
    fn backlog(&self) -> Option<Vec<IntegrationBacklog>> {
        None
    }
}

/// No balancer at all: for tests, and for a worker before its first link.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCluster;

#[async_trait]
impl ClusterView for NoCluster {
    async fn gateways_changed(&self) {}
    async fn ask(&self, _: Request) -> Reply {
        Reply::Error { kind: ErrorKind::Unavailable, message: "no balancer is connected".into() }
    }
}
