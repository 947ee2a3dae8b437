//! API keys: list, make, delete.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::Response,
};
use limpet_shared::admin::{ApiKey, ApiKeyAdd, Reply, Request};
use serde::Deserialize;

use super::{AskRemove, Page, Secret, lines};
use crate::{
    Console,
    page::{Listed, Room, Said, after, asked, listed},
    rooms::{OTHER_VERSION, done, sentence},
    visitor::Admin,
    words::ago,
};

const ROOM: Room = Room::Keys;

#[derive(Template)]
#[template(path = "keys_list.html")]
struct List {
    keys: Vec<Row>,
    away: Option<String>,
}

impl Listed for List {
    const ROOM: Room = ROOM;
    fn page(self, said: Option<Said>) -> impl Template {
        whole(self, said)
    }
}

struct Row {
    id: String,
    name: String,
    of: String,
    may: &'static str,
    made: String,
}

#[derive(Template)]
#[template(path = "keys_add.html")]
struct AskAdd {
    name: String,
    tenant: String,
    read_only: bool,
    refused: Option<String>,
}

pub(crate) async fn show(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    listed(&console, &visitor, list(&console).await)
}

pub(crate) async fn ask_add(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    let (name, tenant) = Default::default();
    asked(&console, ROOM, &visitor, &AskAdd { name, tenant, read_only: false, refused: None })
}

#[derive(Deserialize)]
pub(crate) struct Add {
    name: String,
    #[serde(default)]
    tenant: String,
    #[serde(default)]
    read_only: bool,
}

pub(crate) async fn add(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Add { name, tenant, read_only }): Form<Add>,
) -> Response {
    let of = Some(tenant.trim()).filter(|tenant| !tenant.is_empty()).map(str::to_owned);
    let wanted = ApiKeyAdd { name: name.trim().into(), tenant: of, read_only };
    let refused = match console.api.answer_or_ask(Request::ApiKeyAdd(wanted), &visitor.session.name).await {
        Reply::ApiKey { message, token, .. } => {
            let secret = Secret { title: "A new API key".into(), text: sentence(&message), line: token, back: "/keys" };
            return asked(&console, ROOM, &visitor, &secret);
        }
        Reply::Error { message, .. } => sentence(&message),
        _ => OTHER_VERSION.into(),
    };
    asked(&console, ROOM, &visitor, &AskAdd { name, tenant, read_only, refused: Some(refused) })
}

#[derive(Deserialize)]
pub(crate) struct Named {
    id: String,
}

pub(crate) async fn ask_remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { id }): Query<Named>,
) -> Response {
    asked(&console, ROOM, &visitor, &removal(id, None))
}

pub(crate) async fn remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { id }): Form<Named>,
) -> Response {
    match done(&console, &visitor, Request::ApiKeyRemove { id: id.clone() }).await {
        Ok(said) => after(&console, &visitor, list(&console).await, said),
        Err(refused) => asked(&console, ROOM, &visitor, &removal(id, Some(refused.text))),
    }
}

fn removal(id: String, refused: Option<String>) -> AskRemove {
    AskRemove {
        title: format!("Delete the API key {id}?"),
        text: "Programs that use it are refused at once.",
        back: "/keys",
        path: "/keys/remove",
        field: "id",
        value: id,
        refused,
    }
}

fn whole(list: List, said: Option<Said>) -> Page<List> {
    let note = "For programs, and for limpet ctl with --server. A key holds until it is deleted.";
    Page { title: "API keys", path: "/keys", add: "Make an API key", note, list, said }
}

async fn list(console: &Console) -> List {
    let now = limpet_api::now();
    let row = |key: ApiKey| Row {
        id: key.id,
        name: key.name,
        of: key.tenant.map_or_else(|| "the network".into(), |tenant| format!("tenant {tenant}")),
        may: if key.read_only { "look" } else { "everything" },
        made: ago(key.created_at, now),
    };
    let of = |reply| match reply {
        Reply::ApiKeys { api_keys } => Ok(api_keys),
        other => Err(other),
    };
    let (keys, away) = lines(console, Request::ApiKeys, of, row).await;
    List { keys, away }
}
