//! One's own password, for whoever is logged in.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use crate::{
    Console,
    page::{Room, Said, Tone, asked},
    rooms::sentence,
    visitor::{Stranger, Visitor, remember, token},
};

const ROOM: Room = Room::Elsewhere("Your password");

#[derive(Template)]
#[template(path = "password.html")]
struct Ask {
    name: String,
    said: Option<Said>,
    done: bool,
}

pub(crate) async fn ask(State(console): State<Arc<Console>>, visitor: Visitor) -> Response {
    let name = visitor.session.name.clone();
    asked(&console, ROOM, &visitor, &Ask { name, said: None, done: false })
}

#[derive(Deserialize)]
pub(crate) struct Change {
    old: String,
    new: String,
}

/// This browser stays logged in, with a log-in of the new password; all others of the user end.
pub(crate) async fn change(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Stranger(client): Stranger,
    headers: HeaderMap,
    Form(Change { old, new }): Form<Change>,
) -> Response {
    let name = visitor.session.name.clone();
    let mine = token(&headers).unwrap_or_default();
    match console.api.change_own_password(mine, &old, &new, &client).await {
        Ok(token) => {
            let text = "You have a new password. Everywhere else you are logged out.".into();
            let cookie = remember(&token, &headers).map(|cookie| [(header::SET_COOKIE, cookie)]);
            let said = Some(Said { tone: Tone::Good, text });
            (cookie, asked(&console, ROOM, &visitor, &Ask { name, said, done: true })).into_response()
        }
        Err(error) => {
            let said = Some(Said { tone: Tone::Bad, text: sentence(&error.to_string()) });
            asked(&console, ROOM, &visitor, &Ask { name, said, done: false })
        }
    }
}
