//! The console: Limpet in a browser. Pages are made here and need nothing from elsewhere; they work without scripts, and
//! with them they keep themselves fresh.
//!
//! A room is a page and what can be done there (`rooms`). Everything else is shared: who may come in (`visitor`), what
//! every answer carries (`guard`), how answers are written (`page`).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod assets;
mod guard;
mod join_line;
mod page;
mod rooms;
mod visitor;
mod words;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use limpet_api::Api;

pub use join_line::JoinLine;

/// Bytes of a form.
const FORM: usize = 4096;

/// What every room stands on.
pub(crate) struct Console {
    pub api: Arc<Api>,
    pub join: JoinLine,
}

/// The console's routes: `/`, `/login`, `/logout`, `/servers`, `/gateways` and what is below them, `/assets/`.
pub fn router(api: Arc<Api>, join: JoinLine) -> Router {
    rooms::routes()
        .merge(assets::routes())
        .layer(DefaultBodyLimit::max(FORM))
        .route_layer(middleware::from_fn(guard::guard))
        .with_state(Arc::new(Console { api, join }))
}

#[cfg(test)]
mod tests;
