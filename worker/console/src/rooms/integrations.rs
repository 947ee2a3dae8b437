//! Integrations: which take no events and why, what waits for them, trying again and giving up.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::Response,
};
use limpet_shared::{
    UnixMicros,
    admin::{ErrorKind, Integration, Reply, Request, WaitingEvent},
};
use serde::Deserialize;

use super::{OTHER_VERSION, done, sentence};
use crate::{
    Console,
    page::{Listed, Pages, Room, Said, Search, Tone, after, asked, listed},
    visitor::Admin,
    words::{ago, bytes, count, span},
};

const ROOM: Room = Room::Integrations;

/// The part that is fetched anew every few seconds.
#[derive(Template)]
#[template(path = "integrations_list.html")]
struct List {
    rows: Vec<Row>,
    pages: Pages,
    away: Option<String>,
}

impl Listed for List {
    const ROOM: Room = ROOM;
    fn page(self, said: Option<Said>) -> impl Template {
        Page { list: self, said }
    }
}

struct Row {
    id: String,
    name: String,
    tenant: String,
    endpoint: String,
    /// Of several URLs; 0 if there is one.
    number: u32,
    state: String,
    tone: Tone,
    why: String,
    /// Empty if nothing waits.
    waiting: String,
    oldest: String,
}

#[derive(Template)]
#[template(path = "integrations.html")]
struct Page {
    list: List,
    said: Option<Said>,
}

/// What waits for one of them.
#[derive(Template)]
#[template(path = "integrations_events.html")]
struct Events {
    rows: Vec<EventRow>,
    /// How many there are besides.
    more: u64,
    away: Option<String>,
}

struct EventRow {
    event: String,
    id: String,
    device: String,
    dev_eui: String,
    at: String,
}

#[derive(Template)]
#[template(path = "integrations_drop.html")]
struct AskDrop {
    id: String,
    text: String,
    /// Nothing can be dropped.
    refused: bool,
}

#[derive(Deserialize)]
pub(crate) struct Which {
    id: String,
}

pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Search { offset, .. }): Query<Search>,
) -> Response {
    listed(&console, &visitor, list(&console, offset).await)
}

pub(crate) async fn events(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Which { id }): Query<Which>,
) -> Response {
    let (now, mut shown) = (limpet_api::now(), Events { rows: Vec::new(), more: 0, away: None });
    match console.api.answer_or_ask(Request::IntegrationEvents { id }, "").await {
        Reply::IntegrationEvents { total, events } => {
            shown.more = total.saturating_sub(events.len() as u64);
            shown.rows = events.into_iter().map(|event| event_row(event, now)).collect();
        }
        Reply::Error { message, .. } => shown.away = Some(sentence(&message)),
        _ => shown.away = Some(OTHER_VERSION.into()),
    }
    asked(&console, ROOM, &visitor, &shown)
}

pub(crate) async fn retry(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Which { id }): Form<Which>,
) -> Response {
    let (Ok(said) | Err(said)) = done(&console, &visitor, Request::IntegrationRetry { id }).await;
    after(&console, &visitor, list(&console, 0).await, said)
}

pub(crate) async fn ask_drop(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Which { id }): Query<Which>,
) -> Response {
    let request = Request::IntegrationDrop { id: id.clone(), by: String::new(), sure: false };
    let (text, refused) = match console.api.answer_or_ask(request, &visitor.session.name).await {
        Reply::Error { kind: ErrorKind::Unconfirmed, message } => (sentence(&message), false),
        Reply::Done { message } | Reply::Error { message, .. } => (sentence(&message), true),
        _ => (OTHER_VERSION.into(), true),
    };
    asked(&console, ROOM, &visitor, &AskDrop { id, text, refused })
}

pub(crate) async fn drop(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Which { id }): Form<Which>,
) -> Response {
    let request = Request::IntegrationDrop { id, by: String::new(), sure: true };
    let (Ok(said) | Err(said)) = done(&console, &visitor, request).await;
    after(&console, &visitor, list(&console, 0).await, said)
}

async fn list(console: &Console, offset: u32) -> List {
    let (now, mut pages) = (limpet_api::now(), Pages::of("/integrations", "", offset));
    let away = match console.api.answer_or_ask(Request::Integrations { offset }, "").await {
        Reply::Integrations { integrations, next } => {
            pages.goes_on(next);
            let rows = integrations.into_iter().map(|one| row(one, now)).collect();
            return List { rows, pages, away: None };
        }
        Reply::Error { message, .. } => sentence(&message),
        _ => OTHER_VERSION.into(),
    };
    List { rows: Vec::new(), pages, away: Some(away) }
}

fn row(one: Integration, now: UnixMicros) -> Row {
    let tone = match one.state.as_str() {
        "failing" => Tone::Bad,
        "waiting" => Tone::Warn,
        _ => Tone::Good,
    };
    let why = one.trouble.map_or_else(String::new, |trouble| {
        format!("{}, for {}, {}", trouble.error, span(now.since(trouble.since)), count(trouble.failures, "time"))
    });
    let waiting =
        if one.waiting == 0 { String::new() } else { format!("{}, {}", count(one.waiting, "event"), bytes(one.bytes)) };
    Row {
        name: if one.application.is_empty() { "(removed)".into() } else { one.application },
        number: one.number,
        id: one.id,
        tenant: one.tenant,
        endpoint: if one.kind.is_empty() { "(removed)".into() } else { one.endpoint },
        state: one.state,
        tone,
        why,
        waiting,
        oldest: one.oldest.map_or_else(String::new, |at| ago(at, now)),
    }
}

fn event_row(event: WaitingEvent, now: UnixMicros) -> EventRow {
    let WaitingEvent { id, event, dev_eui, device, at } = event;
    EventRow { event, id, device, dev_eui: dev_eui.to_string(), at: ago(at, now) }
}
