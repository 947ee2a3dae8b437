//! The admin HTTP: metrics, health, the ring. It only shows; changes go through `limpet ctl`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use limpet_shared::{
    Eui64,
    admin::{Reply, Request},
};
use serde_json::json;

use crate::{admin_handle::AdminHandle, metrics::Metrics, registry::Registry, udp::GatewaySocket};

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    pub admin: AdminHandle,
    pub metrics: Metrics,
    pub registry: Arc<Registry>,
    pub ready: Arc<AtomicBool>,
    pub socket: Arc<GatewaySocket>,
}

/// All routes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/servers", get(servers))
        .route("/ring", get(ring))
        .route("/ring/{eui}", get(ring_of))
        .with_state(pages)
}

/// The driver answers, so its loop runs.
async fn healthz(State(pages): State<Pages>) -> Response {
    match pages.admin.stats().await {
        Some(_) => "ok\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "stopped\n").into_response(),
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    if pages.ready.load(Ordering::Relaxed) {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "no worker is ready\n").into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let Some(stats) = pages.admin.stats().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    match pages.metrics.render(&stats, pages.socket.kernel_drops()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn servers(State(pages): State<Pages>) -> Response {
    answer(pages.admin.ask_here(Request::Servers).await)
}

async fn ring(State(pages): State<Pages>) -> Response {
    answer(pages.admin.ask(Request::Ring { eui: None }).await)
}

/// The ring's choice, and the route as it was published when the gateway was heard.
async fn ring_of(State(pages): State<Pages>, Path(eui): Path<String>) -> Response {
    let eui: Eui64 = match eui.parse() {
        Ok(eui) => eui,
        Err(error) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response(),
    };
    let reply = match pages.admin.ask(Request::Ring { eui: Some(eui) }).await {
        Reply::Ring(ring) => ring,
        other => return answer(other),
    };
    let heard = pages.registry.route(eui).map(|route| {
        json!({
            "address": route.address.to_string(),
            "worker": route.worker,
            "epoch": route.epoch,
            "last_seen": route.last_seen,
        })
    });
    Json(json!({ "eui": eui, "ring": reply, "heard": heard })).into_response()
}

fn answer(reply: Reply) -> Response {
    match reply {
        Reply::Servers { servers } => Json(servers).into_response(),
        Reply::Ring(ring) => Json(ring).into_response(),
        Reply::Error { kind, message } => {
            (limpet_http::status(kind), Json(json!({ "error": message }))).into_response()
        }
        other => Json(other).into_response(),
    }
}
