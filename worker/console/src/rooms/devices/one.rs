//! One device: its session, its queue, and its keys for who asks for them.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use limpet_shared::{
    AesKey, UnixMicros,
    admin::{DeviceDetail, QueuedDownlink, Reply, Request},
};

use super::{ROOM, Row, row};
use crate::{
    Console,
    page::{asked, page, part, problem},
    rooms::{OTHER_VERSION, sentence, things::Named},
    visitor::Admin,
    words::ago,
};

#[derive(Template)]
#[template(path = "devices_one.html")]
struct Page {
    row: Row,
    facts: Vec<(&'static str, String)>,
    queued: u32,
    queue: Vec<Item>,
    /// How many more wait.
    more: u32,
}

struct Item {
    id: String,
    fport: u8,
    size: String,
    kind: &'static str,
    state: &'static str,
    made: String,
}

#[derive(Template)]
#[template(path = "devices_keys.html")]
struct Keys {
    eui: String,
    keys: Vec<(&'static str, String)>,
    refused: Option<String>,
}

pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { eui, .. }): Query<Named>,
) -> Response {
    let detail = match console.api.answer_or_ask(Request::Device { dev_eui: eui }, "").await {
        Reply::Device(detail) => *detail,
        other => {
            let (status, why) = match other {
                Reply::Error { kind, message } => (limpet_http::status(kind), sentence(&message)),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, OTHER_VERSION.into()),
            };
            return problem(&console, Some(&visitor.session), visitor.partial, status, &why).into_response();
        }
    };
    let body = described(detail, limpet_api::now());
    if visitor.partial { part(&body) } else { page(&console, ROOM, Some(&visitor.session), &body) }
}

pub(crate) async fn keys(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { eui, .. }): Query<Named>,
) -> Response {
    let found = console.api.device_keys(eui, &visitor.session.name).await;
    let mut shown = Keys { eui: eui.to_string(), keys: Vec::new(), refused: None };
    match found {
        Ok(found) => {
            let named = [("AppKey", found.app_key), ("NwkSKey", found.nwk_s_key), ("AppSKey", found.app_s_key)];
            let known = named.into_iter().filter_map(|(name, key)| Some((name, AesKey::to_hex(&key?))));
            shown.keys = known.collect();
        }
        Err(error) => shown.refused = Some(sentence(&error.to_string())),
    }
    asked(&console, ROOM, &visitor, &shown)
}

fn described(detail: DeviceDetail, now: UnixMicros) -> Page {
    let DeviceDetail { device, description, join_eui, has_app_key, session, queued, queue } = detail;
    let row = row(device, now);
    let mut facts = vec![
        ("DevEUI", row.eui.clone()),
        ("JoinEUI", join_eui.to_string()),
        ("Application", row.application.clone()),
        ("Device profile", row.profile.clone()),
        ("Last seen", row.seen.clone()),
        ("AppKey", if has_app_key { "set".into() } else { "none: it cannot join".into() }),
    ];
    if !description.is_empty() {
        facts.push(("Description", description));
    }
    match session {
        Some(session) => {
            let how = if session.joined { "joined" } else { "activated by ABP" };
            facts.push(("Session", format!("{how} {}, in {}", ago(session.since, now), session.region)));
            facts.push(("DevAddr", session.dev_addr.to_string()));
            facts.push(("Next FCntUp", session.fcnt_up.to_string()));
            facts.push(("Next FCntDown", session.fcnt_down.to_string()));
        }
        None => facts.push(("Session", "none yet".into())),
    }
    let more = queued.saturating_sub(u32::try_from(queue.len()).unwrap_or(u32::MAX));
    Page { row, facts, queued, queue: queue.into_iter().map(|queued| item(queued, now)).collect(), more }
}

fn item(queued: QueuedDownlink, now: UnixMicros) -> Item {
    Item {
        id: queued.id,
        fport: queued.fport,
        size: format!("{} B", queued.bytes),
        kind: if queued.confirmed { "confirmed" } else { "unconfirmed" },
        state: if queued.is_pending { "at a gateway" } else { "waits" },
        made: ago(queued.created_at, now),
    }
}
