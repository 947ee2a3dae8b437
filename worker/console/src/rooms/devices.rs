//! Devices: list and search, add, rename, remove; one of them is in [`one`].

pub(super) mod one;

use std::sync::Arc;

use askama::Template;
use axum::{Form, extract::State, response::Response};
use limpet_shared::{
    AesKey, Eui64, UnixMicros,
    admin::{Device, DeviceAdd, ErrorKind, Reply, Request},
};
use serde::Deserialize;

use super::{
    OTHER_VERSION, done, sentence,
    things::{Missing, Things},
};
use crate::{
    Console,
    page::{Listed, Pages, Room, Said, Search, Tone, after, asked},
    visitor::Admin,
    words::ago,
};

const ROOM: Room = Room::Devices;
const PATH: &str = "/devices";

#[derive(Template)]
#[template(path = "devices_list.html")]
pub(super) struct List {
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

impl Things for List {
    const PATH: &'static str = PATH;
    const LOSS: &'static str = "Its session, its keys and its queue go with it.";

    fn renaming(dev_eui: Eui64, name: String) -> Request {
        Request::DeviceRename { dev_eui, name }
    }
    fn removal(dev_eui: Eui64) -> Request {
        Request::DeviceRemove { dev_eui }
    }
    async fn name_of(console: &Console, dev_eui: Eui64) -> Result<String, Missing> {
        match console.api.answer_or_ask(Request::Device { dev_eui }, "").await {
            Reply::Device(detail) => Ok(detail.device.name),
            Reply::Error { kind: ErrorKind::NotFound, .. } => Err(Missing::one("device", dev_eui)),
            other => Err(other.into()),
        }
    }
    async fn part(console: &Console, search: Search) -> Self {
        list(console, search).await
    }
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
        Ok(said) => after(&console, &visitor, list(&console, Search::default()).await, said),
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

async fn list(console: &Console, Search { q, offset }: Search) -> List {
    let (now, mut pages) = (limpet_api::now(), Pages::of(PATH, &q, offset));
    let asked = Request::Devices { search: pages.search.clone(), offset };
    let away = match console.api.answer_or_ask(asked, "").await {
        Reply::Devices { total, devices } => {
            let shown = offset.saturating_add(u32::try_from(devices.len()).unwrap_or(u32::MAX));
            pages.holds(devices.len(), total.saturating_sub(shown));
            let rows = devices.into_iter().map(|device| row(device, now)).collect();
            return List { rows, pages, away: None };
        }
        Reply::Error { message, .. } => sentence(&message),
        _ => OTHER_VERSION.into(),
    };
    List { rows: Vec::new(), pages, away: Some(away) }
}

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
