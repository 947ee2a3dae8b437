//! HTTP of a worker: API and console, metrics and health, on one port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    routing::get,
    serve::{ListenerExt, TapIo},
};
use limpet_store::Store;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{links::Links, metrics::Metrics, notices::Around};

/// A probe waits at most this long for the store.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Serves until `end` is cancelled.
pub fn serve(listener: TcpListener, around: &Around, end: CancellationToken) -> JoinHandle<()> {
    let Around { store, links, pipeline, api, join, .. } = around.clone();
    let console = limpet_console::router(api.clone(), join);
    let router = api.router().merge(console).merge(health(store, links, pipeline.metrics.clone()));
    tokio::spawn(async move {
        let served = axum::serve(prompt(listener), router.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(end.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "HTTP ended");
        }
    })
}

/// Each connection sends what it has at once: an answer of several pieces would wait for the client's delayed
/// acknowledgement otherwise, some 40 ms.
fn prompt(listener: TcpListener) -> TapIo<TcpListener, impl FnMut(&mut TcpStream) + Send + 'static> {
    listener.tap_io(|connection| {
        // A connection that is gone already needs it no more.
        let _ = connection.set_nodelay(true);
    })
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

#[cfg(test)]
mod tests {
    use axum::serve::Listener;

    use super::*;

    #[tokio::test]
    async fn answers_are_sent_without_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = prompt(listener);
        let (client, (served, _)) = tokio::join!(TcpStream::connect(address), listener.accept());
        assert!(served.nodelay().unwrap());
        drop(client);
    }
}
