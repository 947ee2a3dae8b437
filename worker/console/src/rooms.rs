//! The rooms.

mod devices;
mod gateways;
mod integrations;
mod log_in;
mod overview;
mod people;
mod servers;
mod things;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use limpet_shared::admin::{Reply, Request};

use crate::{
    Console,
    page::{Said, Tone},
    visitor::Visitor,
};
use things::{ask_remove, ask_rename, remove, rename, show};

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
        .route("/gateways", get(show::<gateways::List>))
        .route("/gateways/add", get(gateways::ask_add).post(gateways::add))
        .route("/gateways/rename", get(ask_rename::<gateways::List>).post(rename::<gateways::List>))
        .route("/gateways/remove", get(ask_remove::<gateways::List>).post(remove::<gateways::List>))
        .route("/devices", get(show::<devices::List>))
        .route("/devices/add", get(devices::ask_add).post(devices::add))
        .route("/devices/one", get(devices::one::show))
        .route("/devices/keys", get(devices::one::keys))
        .route("/devices/rename", get(ask_rename::<devices::List>).post(rename::<devices::List>))
        .route("/devices/remove", get(ask_remove::<devices::List>).post(remove::<devices::List>))
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
