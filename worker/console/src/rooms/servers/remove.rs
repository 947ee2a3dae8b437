//! Removing a server, which is for good and therefore asked about first.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::Response,
};
use limpet_shared::admin::{Reply, Request, Role, what_stops};
use serde::Deserialize;

use super::{ROOM, list};
use crate::{
    Console,
    page::{after, asked},
    rooms::{OTHER_VERSION, done, sentence},
    visitor::Admin,
};

#[derive(Template)]
#[template(path = "servers_remove.html")]
struct Ask {
    name: String,
    balances: bool,
    gone: bool,
    /// What stops for everybody by that.
    stops: Option<String>,
    /// Why it cannot be removed, or was not.
    refused: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Named {
    name: String,
}

pub(crate) async fn ask_remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { name }): Query<Named>,
) -> Response {
    asked(&console, ROOM, &visitor, &ask(&console, name, None).await)
}

pub(crate) async fn remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { name }): Form<Named>,
) -> Response {
    let request = Request::remove(&name).meant();
    match done(&console, &visitor, request).await {
        Ok(said) => after(&console, &visitor, list(&console).await, said),
        Err(refused) => asked(&console, ROOM, &visitor, &ask(&console, name, Some(refused.text)).await),
    }
}

/// The question, with what the answer would mean for this server.
async fn ask(console: &Console, name: String, refused: Option<String>) -> Ask {
    let (servers, away) = match console.api.answer_or_ask(Request::Servers, "").await {
        Reply::Servers { servers } => (servers, None),
        Reply::Error { message, .. } => (Vec::new(), Some(sentence(&message))),
        _ => (Vec::new(), Some(OTHER_VERSION.into())),
    };
    let server = servers.iter().find(|server| server.name == name);
    let only = server.filter(|server| server.is_only_balancer(&servers));
    let only = only.map(|_| {
        format!("{name} is the only balancer: without it no gateway reaches this cluster; add another first.")
    });
    let missing = || server.is_none().then(|| format!("There is no server {name} any more."));
    Ask {
        balances: server.is_some_and(|server| server.kind() == Role::Balancer),
        gone: server.is_some_and(|server| server.state == "gone"),
        stops: what_stops(&Request::remove(&name), &servers).map(|what| sentence(&what)),
        refused: refused.or(away).or(only).or_else(missing),
        name,
    }
}
