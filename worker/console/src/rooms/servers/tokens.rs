//! Join tokens that were made: who may still come in with them, and an end to it.

use std::sync::Arc;

use askama::Template;
use axum::{Form, extract::State, response::Response};
use limpet_shared::{
    UnixMicros,
    admin::{Reply, Request, TokenInfo},
};
use serde::Deserialize;

use super::ROOM;
use crate::{
    Console,
    page::{Said, Tone, asked},
    rooms::{OTHER_VERSION, done, sentence},
    visitor::{Admin, Visitor},
    words::{ago, span},
};

#[derive(Template)]
#[template(path = "servers_tokens.html")]
struct Tokens {
    tokens: Vec<Row>,
    said: Option<Said>,
    /// Why there is no list.
    away: Option<String>,
}

struct Row {
    id: String,
    role: &'static str,
    state: &'static str,
    tone: Tone,
    used: String,
    made: String,
    /// For how long it is still good.
    left: String,
}

pub(crate) async fn tokens(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    show(&console, &visitor, None).await
}

#[derive(Deserialize)]
pub(crate) struct Revoke {
    id: String,
}

pub(crate) async fn revoke(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Revoke { id }): Form<Revoke>,
) -> Response {
    let said = done(&console, &visitor, Request::TokenRevoke { id }).await.unwrap_or_else(|refused| refused);
    show(&console, &visitor, Some(said)).await
}

async fn show(console: &Console, visitor: &Visitor, said: Option<Said>) -> Response {
    let (mut tokens, away) = match console.api.answer_or_ask(Request::Tokens, "").await {
        Reply::Tokens { tokens } => (tokens, None),
        Reply::Error { message, .. } => (Vec::new(), Some(sentence(&message))),
        _ => (Vec::new(), Some(OTHER_VERSION.into())),
    };
    tokens.sort_by_key(|token| std::cmp::Reverse(token.created_at));
    let now = limpet_api::now();
    let tokens = tokens.iter().map(|token| row(token, now)).collect();
    asked(console, ROOM, visitor, &Tokens { tokens, said, away })
}

fn row(token: &TokenInfo, now: UnixMicros) -> Row {
    let used = token.used();
    let (state, tone) = match token {
        _ if token.revoked => ("revoked", Tone::Bad),
        _ if token.expires_at <= now => ("expired", Tone::Warn),
        _ if used >= token.uses => ("used up", Tone::Warn),
        _ => ("good", Tone::Good),
    };
    Row {
        id: token.id.clone(),
        role: token.role.as_str(),
        state,
        tone,
        used: format!("{used} of {}", token.uses),
        made: ago(token.created_at, now),
        left: if tone == Tone::Good { span(token.expires_at.since(now)) } else { String::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_lets_somebody_in_is_good() {
        let now = UnixMicros(1_700_000_000_000_000);
        let token = TokenInfo {
            uses: 2,
            used: [("east".to_owned(), 1)].into(),
            expires_at: UnixMicros(now.0 + 3_600_000_000),
            ..TokenInfo::default()
        };
        let good = row(&token, now);
        assert_eq!((good.state, good.used.as_str(), good.left.as_str()), ("good", "1 of 2", "60 min"));
        let used_up = [("east".to_owned(), 1), ("west".to_owned(), 1)].into();
        let others = [
            TokenInfo { revoked: true, ..token.clone() },
            TokenInfo { expires_at: now, ..token.clone() },
            TokenInfo { used: used_up, ..token },
        ];
        assert_eq!(others.map(|token| row(&token, now).state), ["revoked", "expired", "used up"]);
    }
}
