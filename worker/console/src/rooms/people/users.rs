//! Users: list, add, give a new password, delete.

use std::sync::Arc;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    response::Response,
};
use limpet_shared::admin::{Reply, Request, User, UserAdd};
use serde::Deserialize;

use super::{AskRemove, Page, Secret, lines, typed};
use crate::{
    Console,
    page::{Listed, Room, Said, Tone, after, asked, listed},
    rooms::{OTHER_VERSION, done, sentence},
    visitor::{Admin, Visitor},
    words::ago,
};

const ROOM: Room = Room::Users;

#[derive(Template)]
#[template(path = "users_list.html")]
struct List {
    users: Vec<Row>,
    away: Option<String>,
}

impl Listed for List {
    const ROOM: Room = ROOM;
    fn page(self, said: Option<Said>) -> impl Template {
        whole(self, said)
    }
}

struct Row {
    email: String,
    role: &'static str,
    state: &'static str,
    tone: Tone,
    made: String,
    /// Who looks at this.
    me: bool,
}

#[derive(Template)]
#[template(path = "users_add.html")]
struct AskAdd {
    email: String,
    admin: bool,
    refused: Option<String>,
}

#[derive(Template)]
#[template(path = "users_password.html")]
struct AskPassword {
    email: String,
    refused: Option<String>,
}

pub(crate) async fn show(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    listed(&console, &visitor, list(&console, &visitor.session.name).await)
}

pub(crate) async fn ask_add(State(console): State<Arc<Console>>, Admin(visitor): Admin) -> Response {
    asked(&console, ROOM, &visitor, &AskAdd { email: String::new(), admin: true, refused: None })
}

#[derive(Deserialize)]
pub(crate) struct Add {
    email: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    password: String,
}

pub(crate) async fn add(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Add { email, admin, password }): Form<Add>,
) -> Response {
    let wanted = UserAdd { email: email.trim().into(), admin, password: typed(&password) };
    match with_password(&console, &visitor, Request::UserAdd(wanted), "A new user".into()).await {
        Ok(done) => done,
        Err(refused) => asked(&console, ROOM, &visitor, &AskAdd { email, admin, refused: Some(refused) }),
    }
}

/// Somebody has a new password: it is shown once if it was made here. Else why not.
async fn with_password(
    console: &Console,
    visitor: &Visitor,
    request: Request,
    title: String,
) -> Result<Response, String> {
    match console.api.answer_or_ask(request, &visitor.session.name).await {
        Reply::Password { message, password } => {
            let secret = Secret { title, text: sentence(&message), line: password.0, back: "/users" };
            Ok(asked(console, ROOM, visitor, &secret))
        }
        Reply::Done { message } => {
            let said = Said { tone: Tone::Good, text: sentence(&message) };
            let list = list(console, &visitor.session.name).await;
            Ok(after(console, visitor, list, said))
        }
        Reply::Error { message, .. } => Err(sentence(&message)),
        _ => Err(OTHER_VERSION.into()),
    }
}

#[derive(Deserialize)]
pub(crate) struct Named {
    email: String,
    #[serde(default)]
    password: String,
}

pub(crate) async fn ask_password(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { email, .. }): Query<Named>,
) -> Response {
    asked(&console, ROOM, &visitor, &AskPassword { email, refused: None })
}

pub(crate) async fn give_password(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { email, password }): Form<Named>,
) -> Response {
    let request = Request::UserPassword { email: email.clone(), password: typed(&password) };
    match with_password(&console, &visitor, request, format!("A new password for {email}")).await {
        Ok(done) => done,
        Err(refused) => asked(&console, ROOM, &visitor, &AskPassword { email, refused: Some(refused) }),
    }
}

pub(crate) async fn ask_remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Query(Named { email, .. }): Query<Named>,
) -> Response {
    asked(&console, ROOM, &visitor, &removal(email, None))
}

pub(crate) async fn remove(
    State(console): State<Arc<Console>>,
    Admin(visitor): Admin,
    Form(Named { email, .. }): Form<Named>,
) -> Response {
    if email == visitor.session.name {
        return asked(&console, ROOM, &visitor, &removal(email, Some("You cannot delete yourself.".into())));
    }
    match done(&console, &visitor, Request::UserRemove { email: email.clone() }).await {
        Ok(said) => {
            let list = list(&console, &visitor.session.name).await;
            after(&console, &visitor, list, said)
        }
        Err(refused) => asked(&console, ROOM, &visitor, &removal(email, Some(refused.text))),
    }
}

fn removal(email: String, refused: Option<String>) -> AskRemove {
    AskRemove {
        title: format!("Delete {email}?"),
        text: "Whoever is logged in as this user is logged out at once.",
        back: "/users",
        path: "/users/remove",
        field: "email",
        value: email,
        refused,
    }
}

fn whole(list: List, said: Option<Said>) -> Page<List> {
    let note = "Who may log in to this console and to the API.";
    Page { title: "Users", path: "/users", add: "Add a user", note, list, said }
}

async fn list(console: &Console, me: &str) -> List {
    let now = limpet_api::now();
    let row = |user: User| Row {
        role: if user.is_admin { "administrator" } else { "no administrator" },
        state: if user.is_active { "active" } else { "disabled" },
        tone: if user.is_active { Tone::Good } else { Tone::Bad },
        made: ago(user.created_at, now),
        me: user.email == me,
        email: user.email,
    };
    let of = |reply| match reply {
        Reply::Users { users } => Ok(users),
        other => Err(other),
    };
    let (users, away) = lines(console, Request::Users, of, row).await;
    List { users, away }
}
