//! Devices: list and search, add, rename, remove; one of them is in [`one`].

pub(super) mod one;

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use limpet_shared::{
    AesKey, Eui64, UnixMicros,
    admin::{Device, DeviceAdd, Reply, Request},
};
use serde::Deserialize;

use super::{AskRemove, AskRename, Named, OTHER_VERSION, done, removed, renamed, sentence};
use crate::{
    Console,
    page::{After, Room, Said, Tone, asked, page, part},
    visitor::{Admin, Visitor},
    words::ago,
};

const ROOM: Room = Room::Devices;

/// The part that is fetched anew every few seconds.
#[derive(Template)]
#[template(path = "devices_list.html")]
struct List {
    rows: Vec<Row>,
    total: u32,
    search: String,
    /// Where the lists before and after this one begin.
    before: Option<u32>,
    after: Option<u32>,
    away: Option<String>,
}

struct Row {
    name: String,
    eui: String,
    application: String,
    profile: String,
    seen: String,
    state: &'static str,
    tone: Tone,
}

#[derive(Template)]
#[template(path = "devices.html")]
struct Page {
    list: List,
    said: Option<Said>,
}

#[derive(Template)]
#[template(path = "devices_add.html")]
struct AskAdd {
    given: Add,
    refused: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Search {
    q: String,
    offset: u32,
}

pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(search): Query<Search>,
) -> Response {
    let list = list(&console, search).await;
    if visitor.partial {
        return part(&list);
    }
    page(&console, ROOM, Some(&visitor.session), &Page { list, said: None })
}

pub(crate) async fn ask_add(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    asked(&console, ROOM, &visitor, &AskAdd { given: Add::default(), refused: None })
}

/// A device that joins. Everything else is for `limpet ctl` and the API.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Add {
    dev_eui: String,
    join_eui: String,
    app_key: String,
    name: String,
    application: String,
    webhook: String,
}

pub(crate) async fn add(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(given): Form<Add>,
) -> Response {
    let added = match wanted(&given) {
        Ok(wanted) => done(&console, &visitor, Request::DeviceAdd(wanted)).await.map_err(|refused| refused.text),
        Err(why) => Err(why.to_owned()),
    };
    match added {
        Ok(said) if visitor.partial => {
            let list = list(&console, Search::default()).await;
            ([("hx-trigger", "limpet:done")], part(&After { list, said: Some(said) })).into_response()
        }
        Ok(said) => whole(&console, &visitor, said).await,
        // The key is typed again: it stays in no page.
        Err(why) => {
            let given = Add { app_key: String::new(), ..given };
            asked(&console, ROOM, &visitor, &AskAdd { given, refused: Some(why) })
        }
    }
}

fn wanted(given: &Add) -> Result<DeviceAdd, &'static str> {
    let text = |text: &str| Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
    let eui = |text: &str| text.trim().parse::<Eui64>();
    let join_eui = match given.join_eui.trim() {
        "" => None,
        join_eui => Some(eui(join_eui).map_err(|_| "A JoinEUI has 16 hexadecimal digits.")?),
    };
    let app_key: AesKey = given.app_key.trim().parse().map_err(|_| "An AppKey has 32 hexadecimal digits.")?;
    Ok(DeviceAdd {
        dev_eui: eui(&given.dev_eui).map_err(|_| "A DevEUI has 16 hexadecimal digits.")?,
        join_eui,
        app_key: Some(app_key),
        name: text(&given.name),
        application: text(&given.application),
        webhook: text(&given.webhook),
        ..DeviceAdd::default()
    })
}

pub(crate) async fn ask_rename(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { eui, name }): Query<Named>,
) -> Response {
    asked(&console, ROOM, &visitor, &renaming(eui, name))
}

pub(crate) async fn rename(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { eui, name }): Form<Named>,
) -> Response {
    let request = Request::DeviceRename { dev_eui: eui, name: name.trim().into() };
    match renamed(&console, &visitor, renaming(eui, name), request).await {
        Ok(said) => whole(&console, &visitor, said).await,
        Err(again) => asked(&console, ROOM, &visitor, &again),
    }
}

pub(crate) async fn ask_remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { eui, .. }): Query<Named>,
) -> Response {
    asked(&console, ROOM, &visitor, &removal(eui))
}

pub(crate) async fn remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { eui, .. }): Form<Named>,
) -> Response {
    match removed(&console, &visitor, removal(eui), Request::DeviceRemove { dev_eui: eui }).await {
        Ok(said) => whole(&console, &visitor, said).await,
        Err(again) => asked(&console, ROOM, &visitor, &again),
    }
}

fn renaming(eui: Eui64, name: String) -> AskRename {
    AskRename { path: "/devices", eui: eui.to_string(), name, refused: None }
}

fn removal(eui: Eui64) -> AskRemove {
    let text = "Its session, its keys and its queue go with it.";
    AskRemove { path: "/devices", eui: eui.to_string(), text, refused: None }
}

/// The page with what was done.
async fn whole(console: &Console, visitor: &Visitor, said: Said) -> Response {
    let list = list(console, Search::default()).await;
    page(console, ROOM, Some(&visitor.session), &Page { list, said: Some(said) })
}

async fn list(console: &Console, Search { q, offset }: Search) -> List {
    let now = limpet_api::now();
    let (search, before) = (q.trim().to_owned(), (offset > 0).then(|| offset.saturating_sub(PAGE)));
    let asked = Request::Devices { search: search.clone(), offset };
    let mut list = List { rows: Vec::new(), total: 0, search, before, after: None, away: None };
    match console.api.answer_or_ask(asked, "").await {
        Reply::Devices { total, devices } => {
            let shown = offset.saturating_add(u32::try_from(devices.len()).unwrap_or(u32::MAX));
            list.after = (shown < total).then_some(shown);
            list.total = total;
            list.rows = devices.into_iter().map(|device| row(device, now)).collect();
        }
        Reply::Error { message, .. } => list.away = Some(sentence(&message)),
        _ => list.away = Some(OTHER_VERSION.into()),
    }
    list
}

/// Devices in one answer, as workers give them.
const PAGE: u32 = 200;

fn row(device: Device, now: UnixMicros) -> Row {
    let (state, tone) = match device.active {
        _ if device.is_disabled => ("disabled", Tone::Bad),
        Some(true) => ("active", Tone::Good),
        Some(false) => ("inactive", Tone::Warn),
        None => ("enabled", Tone::Good),
    };
    Row {
        name: device.name,
        eui: device.dev_eui.to_string(),
        application: device.application,
        profile: device.profile,
        seen: device.last_seen.map_or_else(|| "never".into(), |at| ago(at, now)),
        state,
        tone,
    }
}
