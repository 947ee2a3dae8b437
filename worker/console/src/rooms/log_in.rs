//! Logging in and out.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use limpet_api::ApiError;
use serde::Deserialize;

use crate::{
    Console,
    page::{Room, page},
    visitor::{Stranger, forget, remember},
};

const ROOM: Room = Room::Elsewhere("Log in");

#[derive(Template)]
#[template(path = "log_in.html")]
struct LogIn<'a> {
    user: &'a str,
    /// Why it did not work.
    refused: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    user: String,
    password: String,
}

pub(crate) async fn show(State(console): State<Arc<Console>>) -> Response {
    page(&console, ROOM, None, &LogIn { user: "", refused: None })
}

pub(crate) async fn log_in(
    State(console): State<Arc<Console>>,
    Stranger(client): Stranger,
    headers: HeaderMap,
    Form(given): Form<Credentials>,
) -> Response {
    let error = match console.api.log_in(given.user.trim(), &given.password, &client).await {
        Ok(token) => {
            let cookie = remember(&token, &headers).map(|cookie| [(header::SET_COOKIE, cookie)]);
            return (cookie, Redirect::to("/")).into_response();
        }
        Err(error) => error,
    };
    let status = match error {
        ApiError::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        ApiError::Exhausted(_) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let refused = Some(format!("Not logged in: {error}."));
    (status, page(&console, ROOM, None, &LogIn { user: given.user.trim(), refused })).into_response()
}

/// Ends the log-in of this browser.
pub(crate) async fn log_out(headers: HeaderMap) -> Response {
    (forget(&headers).map(|cookie| [(header::SET_COOKIE, cookie)]), Redirect::to("/login")).into_response()
}
