//! HTTP of a worker: API and console, metrics and health, on one port.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use limpet_http::{Limits, Proxies, Service};
use limpet_store::Store;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{links::Links, metrics::Metrics, notices::Around};

/// A probe waits at most this long for the store.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Serves until `end` is cancelled.
pub fn serve(listener: TcpListener, around: &Around, proxies: Proxies, end: CancellationToken) -> JoinHandle<()> {
    let Around { store, links, pipeline, api, join, .. } = around.clone();
    let console = limpet_console::router(api.clone(), join);
    let router = api.router().merge(console).merge(health(store, links, pipeline.metrics.clone()));
    let counters = pipeline.metrics.connections();
    tokio::spawn(limpet_http::serve(listener, Service { router, proxies, limits: Limits::default(), counters }, end))
}

fn health(store: Arc<dyn Store>, links: Arc<Links>, metrics: Metrics) -> Router {
    let ready = move || async move {
        match tokio::time::timeout(PROBE_LIMIT, store.ping()).await {
            Ok(Ok(())) => may_receive(&links),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store does not answer\n".into()),
        }
    };
    let text = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { (text, metrics.text()) }))
}

fn may_receive(links: &Links) -> (StatusCode, String) {
    if links.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n".into())
    } else if !links.is_linked() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: no balancer is connected\n".into())
    } else {
        (StatusCode::OK, "ready\n".into())
    }
}
