//! Who may come in: users, API keys, and one's own password.

mod keys;
mod own;
mod users;

use askama::Template;
use axum::{Router, routing::get};
use limpet_shared::admin::{Password, Reply, Request};
use std::sync::Arc;

use crate::{
    Console,
    page::Said,
    rooms::{OTHER_VERSION, sentence},
};

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/users", get(users::show))
        .route("/users/add", get(users::ask_add).post(users::add))
        .route("/users/password", get(users::ask_password).post(users::give_password))
        .route("/users/remove", get(users::ask_remove).post(users::remove))
        .route("/keys", get(keys::show))
        .route("/keys/add", get(keys::ask_add).post(keys::add))
        .route("/keys/remove", get(keys::ask_remove).post(keys::remove))
        .route("/password", get(own::ask).post(own::change))
}

/// What there is of one kind, a line each; or why that is not known.
async fn lines<T, R>(
    console: &Console,
    request: Request,
    of: fn(Reply) -> Result<Vec<T>, Reply>,
    row: impl Fn(T) -> R,
) -> (Vec<R>, Option<String>) {
    match of(console.api.answer_or_ask(request, "").await) {
        Ok(all) => (all.into_iter().map(row).collect(), None),
        Err(Reply::Error { message, .. }) => (Vec::new(), Some(sentence(&message))),
        Err(_) => (Vec::new(), Some(OTHER_VERSION.into())),
    }
}

/// Something that is shown once.
#[derive(Template)]
#[template(path = "people_secret.html")]
struct Secret {
    title: String,
    text: String,
    /// What the copied line is.
    line: String,
    back: &'static str,
}

/// A page of the list, with what was done.
#[derive(Template)]
#[template(path = "people.html")]
struct Page<T: Template> {
    title: &'static str,
    path: &'static str,
    add: &'static str,
    note: &'static str,
    list: T,
    said: Option<Said>,
}

/// A question about one of them before it is gone.
#[derive(Template)]
#[template(path = "people_remove.html")]
struct AskRemove {
    title: String,
    text: &'static str,
    back: &'static str,
    path: &'static str,
    /// The field that says which, and its value.
    field: &'static str,
    value: String,
    refused: Option<String>,
}

/// What was typed; nothing stands for a random one.
fn typed(password: &str) -> Option<Password> {
    (!password.is_empty()).then(|| Password(password.to_owned()))
}
