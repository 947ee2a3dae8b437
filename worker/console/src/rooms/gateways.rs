//! Gateways: when they were heard, and who has them; adding those that were rejected.

mod view;

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use limpet_shared::{
    Eui64,
    admin::{Gateway, GatewayAdd, Reply, Request},
};
use serde::Deserialize;

use super::{AskRemove, AskRename, Named, OTHER_VERSION, done, removed, renamed, sentence};
use crate::{
    Console,
    page::{After, Room, Said, asked, page, part},
    visitor::{Admin, Visitor},
};
use view::Found;

const ROOM: Room = Room::Gateways;

/// The part that is fetched anew every few seconds.
#[derive(Template)]
#[template(path = "gateways_list.html")]
struct List {
    unknown: Found,
    known: Found,
    searched: bool,
    /// What could not be found out.
    away: Vec<String>,
}

#[derive(Template)]
#[template(path = "gateways.html")]
struct Page {
    list: List,
    search: String,
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
pub(crate) struct Search {
    #[serde(default)]
    q: String,
}

pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Search { q }): Query<Search>,
) -> Response {
    let list = list(&console, &q).await;
    if visitor.partial {
        return part(&list);
    }
    page(&console, ROOM, Some(&visitor.session), &Page { list, search: q, said: None })
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
    let said = match done(
        &console,
        &visitor,
        Request::GatewayAdd(GatewayAdd { eui: parsed, name: wanted, ..GatewayAdd::default() }),
    )
    .await
    {
        Ok(said) => Some(said),
        Err(refused) => return again(refused.text),
    };
    let list = list(&console, "").await;
    if visitor.partial {
        return ([("hx-trigger", "limpet:done")], part(&After { list, said })).into_response();
    }
    page(&console, ROOM, Some(&visitor.session), &Page { list, search: String::new(), said })
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
    let request = Request::GatewayRename { eui, name: name.trim().into() };
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
    match removed(&console, &visitor, removal(eui), Request::GatewayRemove { eui }).await {
        Ok(said) => whole(&console, &visitor, said).await,
        Err(again) => asked(&console, ROOM, &visitor, &again),
    }
}

fn renaming(eui: Eui64, name: String) -> AskRename {
    AskRename { path: "/gateways", eui: eui.to_string(), name, refused: None }
}

fn removal(eui: Eui64) -> AskRemove {
    let text = "What it sends is rejected from then on, and it turns up as unknown.";
    AskRemove { path: "/gateways", eui: eui.to_string(), text, refused: None }
}

/// The page with what was done.
async fn whole(console: &Console, visitor: &Visitor, said: Said) -> Response {
    let list = list(console, "").await;
    page(console, ROOM, Some(&visitor.session), &Page { list, search: String::new(), said: Some(said) })
}

/// What the store knows, with what a balancer hears at the moment.
async fn list(console: &Console, search: &str) -> List {
    let mut away = Vec::new();
    let (known, beyond) = gateways(console, Request::Gateways).await.unwrap_or_else(|why| {
        away.push(format!("The network's gateways are not known at the moment: {why}"));
        (Vec::new(), 0)
    });
    if beyond > 0 {
        let count = known.len();
        away.push(format!("Only the first {count} gateways by name are shown and searched; there are {beyond} more."));
    }
    let heard = gateways(console, Request::GatewaysHeard { unknown: false }).await;
    let unknown = gateways(console, Request::GatewaysHeard { unknown: true }).await;
    if let Err(why) = &heard {
        away.push(format!("Who serves which gateway is not known at the moment: {why}"));
    }
    let now = limpet_api::now();
    let known = view::known(known, &heard.unwrap_or_default().0, search, now);
    let unknown = view::unknown(unknown.unwrap_or_default().0, search, now);
    List { unknown, known, searched: !search.trim().is_empty(), away }
}

/// With how many more there are.
async fn gateways(console: &Console, request: Request) -> Result<(Vec<Gateway>, u32), String> {
    match console.api.answer_or_ask(request, "").await {
        Reply::Gateways { gateways, more } => Ok((gateways, more)),
        Reply::Error { message, .. } => Err(sentence(&message)),
        _ => Err(OTHER_VERSION.into()),
    }
}
