//! Gateways: when they were heard, and who has them; adding those that were rejected.

mod view;

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::Response,
};
use limpet_shared::{
    Eui64,
    admin::{Gateway, GatewayAdd, Reply, Request},
};
use serde::Deserialize;

use super::{
    OTHER_VERSION, done, sentence,
    things::{Missing, Things},
};
use crate::{
    Console,
    page::{Listed, Pages, Room, Said, Search, after, asked},
    visitor::Admin,
};
use view::Found;

const ROOM: Room = Room::Gateways;
const PATH: &str = "/gateways";

/// The part that is fetched anew every few seconds.
#[derive(Template)]
#[template(path = "gateways_list.html")]
pub(super) struct List {
    unknown: Found,
    known: Vec<view::Row>,
    pages: Pages,
    /// What could not be found out.
    away: Vec<String>,
}

impl Listed for List {
    const ROOM: Room = ROOM;
    fn page(self, said: Option<Said>) -> impl Template {
        Page { list: self, said }
    }
}

impl Things for List {
    const PATH: &'static str = PATH;
    const LOSS: &'static str = "What it sends is rejected from then on, and it turns up as unknown.";

    fn renaming(eui: Eui64, name: String) -> Request {
        Request::GatewayRename { eui, name }
    }
    fn removal(eui: Eui64) -> Request {
        Request::GatewayRemove { eui }
    }
    async fn name_of(console: &Console, eui: Eui64) -> Result<String, Missing> {
        let asked = Request::Gateways { search: eui.to_string(), offset: 0 };
        match console.api.answer_or_ask(asked, "").await {
            Reply::Gateways { gateways, .. } => {
                let found = gateways.into_iter().find(|gateway| gateway.eui == eui);
                found.map(|gateway| gateway.name).ok_or_else(|| Missing::one("gateway", eui))
            }
            other => Err(other.into()),
        }
    }
    async fn part(console: &Console, search: Search) -> Self {
        list(console, search).await
    }
}

#[derive(Template)]
#[template(path = "gateways.html")]
struct Page {
    list: List,
    said: Option<Said>,
}

#[derive(Template)]
#[template(path = "gateways_add.html")]
struct Ask {
    eui: String,
    name: String,
    refused: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    eui: String,
    #[serde(default)]
    name: String,
}

pub(crate) async fn ask_add(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Wanted { eui, name }): Query<Wanted>,
) -> Response {
    asked(&console, ROOM, &visitor, &Ask { eui, name, refused: None })
}

pub(crate) async fn add(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Wanted { eui, name }): Form<Wanted>,
) -> Response {
    let again = |refused: String| {
        let ask = Ask { eui: eui.clone(), name: name.clone(), refused: Some(refused) };
        asked(&console, ROOM, &visitor, &ask)
    };
    let Ok(parsed) = eui.trim().parse::<Eui64>() else {
        return again("An EUI has 16 hexadecimal digits, such as 0016c001ff10a235.".into());
    };
    let wanted = Some(name.trim()).filter(|name| !name.is_empty()).map(str::to_owned);
    let wanted = GatewayAdd { eui: parsed, name: wanted, ..GatewayAdd::default() };
    match done(&console, &visitor, Request::GatewayAdd(wanted)).await {
        Ok(said) => after(&console, &visitor, list(&console, Search::default()).await, said),
        Err(refused) => again(refused.text),
    }
}

/// What the network knows, a part of it, and what balancers reject.
async fn list(console: &Console, Search { q, offset }: Search) -> List {
    let (mut away, mut pages) = (Vec::new(), Pages::of(PATH, &q, offset));
    let asked = Request::Gateways { search: pages.search.clone(), offset };
    let known = match gateways(console, asked).await {
        Ok((known, more, note)) => {
            pages.holds(known.len(), more);
            away.extend(Some(note).filter(|note| !note.is_empty()).map(|note| sentence(&note)));
            known
        }
        Err(why) => {
            away.push(format!("The network's gateways are not known at the moment: {why}"));
            Vec::new()
        }
    };
    let unknown = match gateways(console, Request::heard(true)).await {
        Ok((unknown, ..)) => unknown,
        Err(why) => {
            away.push(format!("Which gateways are rejected is not known at the moment: {why}"));
            Vec::new()
        }
    };
    let now = limpet_api::now();
    let known = known.iter().map(|gateway| view::row(gateway, now)).collect();
    List { unknown: view::unknown(unknown, &pages.search, now), known, pages, away }
}

/// With how many more there are, and what is not known of them.
async fn gateways(console: &Console, request: Request) -> Result<(Vec<Gateway>, u32, String), String> {
    match console.api.answer_or_ask(request, "").await {
        Reply::Gateways { gateways, more, note } => Ok((gateways, more, note)),
        Reply::Error { message, .. } => Err(sentence(&message)),
        _ => Err(OTHER_VERSION.into()),
    }
}
