//! Adding a server: a token, and the line to be pasted.

use std::sync::Arc;

use askama::Template;
use axum::{Form, extract::State, response::Response};
use limpet_shared::admin::{Reply, Request, Role};
use serde::Deserialize;

use super::ROOM;
use crate::{
    Console, JoinLine,
    page::asked,
    rooms::{OTHER_VERSION, sentence},
    visitor::Admin,
    words::{count, span},
};

/// For how many servers a token may be made: what the form offers.
const USES: [u32; 3] = [1, 10, 100];
/// For how long, s.
const LIVES: [u64; 3] = [3_600, 86_400, 7 * 86_400];

#[derive(Template)]
#[template(path = "servers_add.html")]
struct Ask {
    uses: Vec<(u32, bool)>,
    lives: Vec<(u64, &'static str, bool)>,
    refused: Option<String>,
}

impl Ask {
    fn new(refused: Option<String>) -> Self {
        let names = ["1 hour", "1 day", "7 days"];
        Self {
            uses: USES.iter().map(|uses| (*uses, *uses == 1)).collect(),
            lives: LIVES.iter().zip(names).map(|(life, name)| (*life, name, *life == 86_400)).collect(),
            refused,
        }
    }
}

#[derive(Template)]
#[template(path = "servers_line.html")]
struct Line {
    role: &'static str,
    line: String,
    /// Who may use it, and how long.
    good_for: String,
    /// Other machines cannot use the store.
    stays_here: bool,
    hides_password: bool,
}

pub(crate) async fn ask_add(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    asked(&console, ROOM, &visitor, &Ask::new(None))
}

#[derive(Deserialize)]
pub(crate) struct Add {
    role: Role,
    uses: u32,
    expires: u64,
}

pub(crate) async fn add(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Add { role, uses, expires }): Form<Add>,
) -> Response {
    let (uses, expires_in_secs) = (uses.clamp(1, USES[2]), expires.clamp(60, LIVES[2]));
    let request = Request::JoinToken { role, expires_in_secs, uses };
    let refused = match console.api.answer_or_ask(request, &visitor.session.name).await {
        Reply::JoinToken { token, .. } => {
            let line = line(&console.join, role, &token, uses, expires_in_secs);
            return asked(&console, ROOM, &visitor, &line);
        }
        Reply::Error { message, .. } => sentence(&message),
        _ => OTHER_VERSION.into(),
    };
    asked(&console, ROOM, &visitor, &Ask::new(Some(refused)))
}

fn line(join: &JoinLine, role: Role, token: &str, uses: u32, expires_in_secs: u64) -> Line {
    let life = span(std::time::Duration::from_secs(expires_in_secs));
    match role {
        Role::Worker => Line {
            role: "worker",
            line: join.worker(token),
            good_for: format!("{} within {life}", count(uses.into(), "worker")),
            stays_here: join.stays_here(),
            hides_password: join.hides_password(),
        },
        Role::Balancer => Line {
            role: "balancer",
            line: JoinLine::balancer(token),
            good_for: format!("{} within {life}", count(uses.into(), "balancer")),
            stays_here: false,
            hides_password: false,
        },
    }
}
