//! Files that pages load. They are part of the program; their addresses change with their content, so that a browser
//! may keep them.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    extract::{Path, RawQuery},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use crate::Console;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type, content.
static FILES: [(&str, &str, &str); 4] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
    ("console.js", SCRIPT, include_str!("../assets/console.js")),
    // htmx 2.0.11, unchanged, under the Zero-Clause BSD licence (assets/htmx.LICENSE).
    ("htmx.min.js", SCRIPT, include_str!("../assets/htmx.min.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];

/// What a page says in its head.
pub(crate) struct Addresses {
    pub style: String,
    pub script: String,
    pub htmx: String,
    pub icon: String,
}

pub(crate) static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| {
    let [style, script, htmx, icon] =
        FILES.each_ref().map(|(name, _, text)| format!("/assets/{name}?{}", version(text)));
    Addresses { style, script, htmx, icon }
});

fn version(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..6])
}

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/assets/{name}", get(serve))
}

async fn serve(Path(name): Path<String>, RawQuery(asked): RawQuery) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(own, _, _)| *own == name) else {
        return (StatusCode::NOT_FOUND, "Nothing is served here.\n").into_response();
    };
    // During an upgrade a page of one version may ask a server of another: that must not be kept under this address.
    let keep = if asked == Some(version(text)) { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, keep)], *text).into_response()
}
