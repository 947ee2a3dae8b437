//! Limpet's API: ChirpStack v4's gRPC, so that its clients work unchanged; the cluster's own questions over HTTP; and
//! what the console stands on.
//!
//! ChirpStack's generated types stay in this crate. A field is honoured or refused by name, never stored and ignored;
//! `docs/api.md` says which.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod activation;
mod admin_worker;
mod auth;
mod bootstrap;
mod clock;
mod cluster;
mod codecs;
mod error;
mod fields;
mod grpc;
mod http;
mod integrations;
mod lists;
mod overview;
mod people;
mod queue;
mod quota;
mod regions;
mod session;

use std::{sync::Arc, time::Duration};

use limpet_codec::Codecs;
use limpet_store::Store;

pub use admin_worker::{DeviceKeys, regions_of};
pub use auth::{Client, SHORTEST_PASSWORD};
pub use bootstrap::{ADMIN, Bootstrap, FIRST_TENANT, FirstStart, bootstrap};
pub use clock::now;
pub use cluster::{ClusterView, NoCluster};
pub use error::{ApiError, Result};
pub use http::note_change;
pub use overview::{Counts, Overview};
pub use session::Session;

use auth::Auth;
use regions::Regions;

/// The API's routes. For who also wants [`Api::answer`] there is [`Api::new`].
pub fn router(state: ApiState) -> axum::Router {
    Api::new(state).router()
}

/// What the API stands on.
#[derive(Clone)]
pub struct ApiState {
    pub store: Arc<dyn Store>,
    /// Read and write payloads.
    pub codecs: Codecs,
    pub cluster: Arc<dyn ClusterView>,
    /// Names of the network's regions, such as `eu868`, `us915_1`.
    pub regions: Vec<String>,
    /// The region that a device gets when nothing says which.
    pub default_region: String,
    /// Version of this program.
    pub version: String,
    /// Name of this server.
    pub server: String,
    /// Where gateways send to, such as `192.0.2.1:1700`, if this process knows.
    pub gwmp: Option<String>,
}

/// One worker's API, ready to serve ([`Api::router`]) and to answer the cluster's questions ([`Api::answer`]).
pub struct Api {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) codecs: Codecs,
    pub(crate) cluster: Arc<dyn ClusterView>,
    pub(crate) regions: Regions,
    pub(crate) auth: Auth,
    pub(crate) about: About,
    pub(crate) last_overview: overview::Last,
    pub(crate) counting: overview::Counting<overview::Counts>,
    pub(crate) looking_at_waiting: overview::Counting<Arc<[limpet_shared::admin::Integration]>>,
}

/// What this server says about itself.
#[derive(Clone, Debug)]
pub struct About {
    pub version: String,
    /// The server's name.
    pub server: String,
    /// Where gateways send to, if this process knows.
    pub gwmp: Option<String>,
}

impl Api {
    /// Keeps nothing but caches: what lasts is in the store.
    pub fn new(state: ApiState) -> Arc<Self> {
        Arc::new(Self {
            auth: Auth::new(state.store.clone()),
            regions: Regions::new(&state.regions, &state.default_region),
            store: state.store,
            codecs: state.codecs,
            cluster: state.cluster,
            last_overview: overview::Last::default(),
            counting: overview::Counting::default(),
            looking_at_waiting: overview::Counting::default(),
            about: About { version: state.version, server: state.server, gwmp: state.gwmp },
        })
    }

    /// What this server says about itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Gateways changed in the store: waits until the balancers have it, but not for long.
    pub(crate) async fn tell_balancers(&self) {
        let told = tokio::time::timeout(cluster::GATEWAYS_WAIT, self.cluster.gateways_changed()).await;
        if told.is_err() {
            tracing::warn!(limit = ?cluster::GATEWAYS_WAIT as Duration, "the balancers have not confirmed a change of gateways yet");
        }
    }
}
