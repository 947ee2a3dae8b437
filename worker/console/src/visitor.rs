//! Who looks at the console. The cookie holds a log-in's token, which any worker of the network can check.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use limpet_api::{ApiError, Client, Session};

use crate::{Console, page};

const COOKIE: &str = "limpet_session";

/// Somebody who is logged in.
pub(crate) struct Visitor {
    pub session: Session,
    /// The page is there and asks for a part of it (htmx does).
    pub partial: bool,
}

/// Somebody who may administrate the network.
pub(crate) struct Admin(pub Visitor);

impl FromRequestParts<Arc<Console>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let partial = parts.headers.contains_key("hx-request");
        let Some(token) = token(&parts.headers) else { return Err(to_log_in(partial)) };
        match console.api.session(token).await {
            Ok(session) => Ok(Self { session, partial }),
            Err(ApiError::Unauthenticated(_) | ApiError::Denied(_)) => Err(to_log_in(partial)),
            Err(error) => {
                let words = format!("It cannot be checked who you are: {error}. It is tried again when you reload.");
                Err(page::problem(console, None, partial, StatusCode::SERVICE_UNAVAILABLE, &words))
            }
        }
    }
}

impl FromRequestParts<Arc<Console>> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, console).await?;
        if visitor.session.is_admin {
            return Ok(Self(visitor));
        }
        let words = "Only an administrator of the network may come in here.";
        Err(page::problem(console, Some(&visitor.session), visitor.partial, StatusCode::FORBIDDEN, words))
    }
}

/// Who tries to log in, also with what it has from an earlier log-in.
pub(crate) struct Stranger(pub Client);

impl<S: Sync> FromRequestParts<S> for Stranger {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(Client::of(&parts.extensions, token(&parts.headers))))
    }
}

/// The way to the log-in page. htmx takes it from a header: a redirect would give it that page as the part it asked for.
fn to_log_in(partial: bool) -> Response {
    if partial {
        return (StatusCode::UNAUTHORIZED, [("hx-redirect", "/login")]).into_response();
    }
    Redirect::to("/login").into_response()
}

pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// `Set-Cookie` that logs in; it goes with the browser's session. Scripts cannot read it, other sites' pages cannot send it.
pub(crate) fn remember(token: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    set_cookie(token, headers, "")
}

/// `Set-Cookie` that logs out.
pub(crate) fn forget(headers: &HeaderMap) -> Option<HeaderValue> {
    set_cookie("", headers, "; Max-Age=0")
}

fn set_cookie(value: &str, headers: &HeaderMap, more: &str) -> Option<HeaderValue> {
    // A browser that came over https, perhaps to a proxy before us, must never send it without.
    let secure = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; limpet_sessions=x"));
        assert_eq!(token(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("c=d;limpet_session=a.b.c; e=f"));
        assert_eq!(token(&headers), Some("a.b.c"));
    }

    #[test]
    fn the_cookie_stays_on_https_if_it_came_that_way() {
        let mut headers = HeaderMap::new();
        let plain = "limpet_session=t; Path=/; HttpOnly; SameSite=Strict";
        assert_eq!(remember("t", &headers).unwrap(), plain);
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://limpet.example"));
        assert_eq!(remember("t", &headers).unwrap(), format!("{plain}; Secure").as_str());
        assert!(forget(&headers).unwrap().to_str().unwrap().ends_with("Max-Age=0"));
    }
}
