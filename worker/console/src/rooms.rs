//! The rooms.

mod devices;
mod gateways;
mod integrations;
mod log_in;
mod overview;
mod people;
mod servers;

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    routing::{get, post},
};
use limpet_shared::{
    Eui64,
    admin::{Reply, Request},
};
use serde::Deserialize;

use crate::{
    Console,
    page::{Said, Tone},
    visitor::Visitor,
};

pub(crate) fn routes() -> Router<Arc<Console>> {
    people::routes()
        .route("/", get(overview::show))
        .route("/login", get(log_in::show).post(log_in::log_in))
        .route("/logout", post(log_in::log_out))
        .route("/servers", get(servers::show))
        .route("/servers/add", get(servers::ask_add).post(servers::add))
        .route("/servers/drain", post(servers::drain))
        .route("/servers/remove", get(servers::ask_remove).post(servers::remove))
        .route("/servers/tokens", get(servers::tokens))
        .route("/servers/tokens/revoke", post(servers::revoke))
        .route("/integrations", get(integrations::show))
        .route("/integrations/events", get(integrations::events))
        .route("/integrations/retry", post(integrations::retry))
        .route("/integrations/drop", get(integrations::ask_drop).post(integrations::drop))
        .route("/gateways", get(gateways::show))
        .route("/gateways/add", get(gateways::ask_add).post(gateways::add))
        .route("/gateways/rename", get(gateways::ask_rename).post(gateways::rename))
        .route("/gateways/remove", get(gateways::ask_remove).post(gateways::remove))
        .route("/devices", get(devices::show))
        .route("/devices/add", get(devices::ask_add).post(devices::add))
        .route("/devices/one", get(devices::one::show))
        .route("/devices/keys", get(devices::one::keys))
        .route("/devices/rename", get(devices::ask_rename).post(devices::rename))
        .route("/devices/remove", get(devices::ask_remove).post(devices::remove))
}

/// Another name for a gateway or a device.
#[derive(Template)]
#[template(path = "rename.html")]
struct AskRename {
    /// The room.
    path: &'static str,
    eui: String,
    name: String,
    refused: Option<String>,
}

/// A question before a gateway or a device is gone.
#[derive(Template)]
#[template(path = "remove.html")]
struct AskRemove {
    path: &'static str,
    eui: String,
    text: &'static str,
    refused: Option<String>,
}

/// Which gateway or device, and its new name if it shall have one.
#[derive(Deserialize)]
pub(crate) struct Named {
    eui: Eui64,
    #[serde(default)]
    name: String,
}

/// It has another name; else the question anew, with why not.
async fn renamed(console: &Console, visitor: &Visitor, ask: AskRename, request: Request) -> Result<Said, AskRename> {
    done(console, visitor, request).await.map_err(|refused| AskRename { refused: Some(refused.text), ..ask })
}

/// It is gone; else why not.
async fn removed(console: &Console, visitor: &Visitor, ask: AskRemove, request: Request) -> Result<Said, AskRemove> {
    done(console, visitor, request).await.map_err(|refused| AskRemove { refused: Some(refused.text), ..ask })
}

/// What became of something that was to be done.
async fn done(console: &Console, visitor: &Visitor, request: Request) -> Result<Said, Said> {
    match console.api.answer_or_ask(request, &visitor.session.name).await {
        Reply::Done { message } => Ok(Said { tone: Tone::Good, text: sentence(&message) }),
        Reply::Error { message, .. } => Err(Said { tone: Tone::Bad, text: sentence(&message) }),
        _ => Err(Said { tone: Tone::Bad, text: OTHER_VERSION.into() }),
    }
}

/// What another server of another version may say.
const OTHER_VERSION: &str = "The answer is none that this version understands.";

/// Answers are written for the middle of a line; here they stand alone.
fn sentence(message: &str) -> String {
    // A name at the beginning is left as it is.
    let end = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{message}{end}")
}
