//! What gateways and devices have in common: they are listed, get other names, and go.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use limpet_shared::{
    Eui64,
    admin::{Reply, Request},
};
use serde::Deserialize;

use super::{OTHER_VERSION, done, sentence};
use crate::{
    Console,
    page::{Listed, Search, asked, listed, page, problem},
    visitor::{Admin, Visitor},
};

/// A list of things that have EUIs.
pub(crate) trait Things: Listed + Send + 'static {
    /// The room.
    const PATH: &'static str;
    /// What goes with one of them.
    const LOSS: &'static str;

    fn renaming(eui: Eui64, name: String) -> Request;
    fn removal(eui: Eui64) -> Request;
    /// What it is called; an error if there is none with this EUI, or nobody knows.
    fn name_of(console: &Console, eui: Eui64) -> impl Future<Output = Result<String, Missing>> + Send;
    fn part(console: &Console, search: Search) -> impl Future<Output = Self> + Send;
}

pub(crate) async fn show<T: Things>(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(search): Query<Search>,
) -> Response {
    listed(&console, &visitor, T::part(&console, search).await)
}

/// Why there is nothing to ask about.
pub(crate) struct Missing(StatusCode, String);

impl From<Reply> for Missing {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Error { kind, message } => Self(limpet_http::status(kind), sentence(&message)),
            _ => Self(StatusCode::INTERNAL_SERVER_ERROR, OTHER_VERSION.into()),
        }
    }
}

impl Missing {
    pub fn one(what: &str, eui: Eui64) -> Self {
        Self(StatusCode::NOT_FOUND, format!("There is no {what} {eui}."))
    }

    fn page(self, console: &Console, visitor: &Visitor) -> Response {
        problem(console, Some(&visitor.session), visitor.partial, self.0, &self.1)
    }
}

/// Another name for one of them.
#[derive(Template)]
#[template(path = "rename.html")]
struct AskRename {
    path: &'static str,
    eui: String,
    name: String,
    refused: Option<String>,
}

/// A question before one of them is gone.
#[derive(Template)]
#[template(path = "remove.html")]
struct AskRemove {
    path: &'static str,
    eui: String,
    text: &'static str,
    refused: Option<String>,
}

/// Which one, and its new name if it shall have one.
#[derive(Deserialize)]
pub(crate) struct Named {
    pub(super) eui: Eui64,
    #[serde(default)]
    name: String,
}

pub(crate) async fn ask_rename<T: Things>(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { eui, .. }): Query<Named>,
) -> Response {
    let name = match T::name_of(&console, eui).await {
        Ok(name) => name,
        Err(missing) => return missing.page(&console, &visitor),
    };
    let ask = AskRename { path: T::PATH, eui: eui.to_string(), name, refused: None };
    asked(&console, T::ROOM, &visitor, &ask)
}

pub(crate) async fn rename<T: Things>(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { eui, name }): Form<Named>,
) -> Response {
    let again = |refused| AskRename { path: T::PATH, eui: eui.to_string(), name: name.clone(), refused: Some(refused) };
    change::<T, _>(&console, &visitor, T::renaming(eui, name.trim().into()), again).await
}

pub(crate) async fn ask_remove<T: Things>(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { eui, .. }): Query<Named>,
) -> Response {
    if let Err(missing) = T::name_of(&console, eui).await {
        return missing.page(&console, &visitor);
    }
    let ask = AskRemove { path: T::PATH, eui: eui.to_string(), text: T::LOSS, refused: None };
    asked(&console, T::ROOM, &visitor, &ask)
}

pub(crate) async fn remove<T: Things>(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { eui, .. }): Form<Named>,
) -> Response {
    let again = |refused| AskRemove { path: T::PATH, eui: eui.to_string(), text: T::LOSS, refused: Some(refused) };
    change::<T, _>(&console, &visitor, T::removal(eui), again).await
}

/// The page with what was done; or the question anew, with why it was not.
async fn change<T: Things, A: Template>(
    console: &Console,
    visitor: &Visitor,
    request: Request,
    again: impl FnOnce(String) -> A,
) -> Response {
    match done(console, visitor, request).await {
        Ok(said) => {
            let list = T::part(console, Search::default()).await;
            page(console, T::ROOM, Some(&visitor.session), &list.page(Some(said)))
        }
        Err(refused) => asked(console, T::ROOM, visitor, &again(refused.text)),
    }
}
