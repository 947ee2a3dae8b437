//! Servers: who is there, how they share the gateways; adding, draining and removing them.

mod add;
mod remove;
mod tokens;
pub(super) mod view;

use std::sync::Arc;

use askama::Template;
use axum::{Form, extract::State, response::Response};
use limpet_shared::admin::{ErrorKind, Reply, Request};
use serde::Deserialize;

use super::{OTHER_VERSION, sentence};
use crate::{
    Console,
    page::{Listed, Room, Said, Tone, after, asked, listed},
    visitor::Admin,
};
use view::{RingBar, Row};

pub(crate) use add::{add, ask_add};
pub(crate) use remove::{ask_remove, remove};
pub(crate) use tokens::{revoke, tokens};

const ROOM: Room = Room::Servers;

/// The part that is fetched anew every two seconds.
#[derive(Template)]
#[template(path = "servers_list.html")]
struct List {
    ring: RingBar,
    servers: Vec<Row>,
    /// Why there is no list.
    away: Option<String>,
}

impl Listed for List {
    const ROOM: Room = ROOM;
    fn page(self, said: Option<Said>) -> impl Template {
        Page { list: self, said }
    }
}

#[derive(Template)]
#[template(path = "servers.html")]
struct Page {
    list: List,
    said: Option<Said>,
}

pub(crate) async fn show(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    listed(&console, &visitor, list(&console).await)
}

#[derive(Deserialize)]
pub(crate) struct Drain {
    name: String,
    on: bool,
    /// Asked about and meant.
    #[serde(default)]
    sure: bool,
}

#[derive(Template)]
#[template(path = "servers_sure.html")]
struct AskSure {
    name: String,
    what: String,
}

pub(crate) async fn drain(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Drain { name, on, sure }): Form<Drain>,
) -> Response {
    let request = Request::drain(&name, on);
    let request = if sure { request.meant() } else { request };
    let said = match console.api.answer_or_ask(request, &visitor.session.name).await {
        Reply::Done { message } => Said { tone: Tone::Good, text: sentence(&message) },
        Reply::Error { kind: ErrorKind::Unconfirmed, message } => {
            return asked(&console, ROOM, &visitor, &AskSure { name, what: sentence(&message) });
        }
        Reply::Error { message, .. } => Said { tone: Tone::Bad, text: sentence(&message) },
        _ => Said { tone: Tone::Bad, text: OTHER_VERSION.into() },
    };
    after(&console, &visitor, list(&console).await, said)
}

async fn list(console: &Console) -> List {
    let none = |away: String| List { ring: RingBar::default(), servers: Vec::new(), away: Some(away) };
    match console.api.answer_or_ask(Request::Servers, "").await {
        Reply::Servers { servers } => {
            let (ring, servers) = view::of(&servers, limpet_api::now());
            List { ring, servers, away: None }
        }
        Reply::Error { message, .. } => none(format!("Which servers there are is not known at the moment: {message}.")),
        _ => none(OTHER_VERSION.into()),
    }
}
