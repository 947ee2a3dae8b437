//! How answers are written: a body from a template, in the frame that all pages have.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use limpet_api::Session;
use limpet_shared::admin::PAGE;
use serde::Deserialize;

use crate::{
    Console,
    assets::{ADDRESSES, Addresses},
    visitor::Visitor,
};

/// Where a page is, for its title and the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Overview,
    Servers,
    Gateways,
    Devices,
    Integrations,
    Users,
    Keys,
    /// In none of the menu.
    Elsewhere(&'static str),
}

impl Room {
    fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Servers => "Servers",
            Self::Gateways => "Gateways",
            Self::Devices => "Devices",
            Self::Integrations => "Integrations",
            Self::Users => "Users",
            Self::Keys => "API keys",
            Self::Elsewhere(title) => title,
        }
    }
}

/// Rooms of the menu: path, whether only administrators get in.
const MENU: [(Room, &str, bool); 7] = [
    (Room::Overview, "/", false),
    (Room::Servers, "/servers", true),
    (Room::Gateways, "/gateways", true),
    (Room::Devices, "/devices", true),
    (Room::Integrations, "/integrations", true),
    (Room::Users, "/users", true),
    (Room::Keys, "/keys", true),
];

#[derive(Template)]
#[template(path = "layout.html")]
struct Layout<'a> {
    room: Room,
    session: Option<&'a Session>,
    server: &'a str,
    version: &'a str,
    addresses: &'static Addresses,
    /// Made by a template, which has escaped it.
    body: String,
}

impl Layout<'_> {
    fn menu(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let admin = self.session.is_some_and(|session| session.is_admin);
        let open = MENU.iter().filter(move |(_, _, admins)| admin || !admins);
        let here = self.room;
        open.map(move |(room, path, _)| (*path, room.title(), *room == here))
    }
}

/// What was done, or why not.
#[derive(Clone, Debug, Template)]
#[template(path = "said.html")]
pub(crate) struct Said {
    pub tone: Tone,
    pub text: String,
}

/// A list that is there, after something was done with it: the list anew, and what was done.
#[derive(Template)]
#[template(path = "after.html")]
struct After<T: Template> {
    list: T,
    said: Option<Said>,
}

/// A list that is all that its room shows.
pub(crate) trait Listed: Template + Sized {
    const ROOM: Room;
    /// The page around it, with what was done.
    fn page(self, said: Option<Said>) -> impl Template;
}

/// The list: alone for a page that is there, else on a page of its own.
pub(crate) fn listed<L: Listed>(console: &Console, visitor: &Visitor, list: L) -> Response {
    if visitor.partial { part(&list) } else { page(console, L::ROOM, Some(&visitor.session), &list.page(None)) }
}

/// The list after something was done.
pub(crate) fn after<L: Listed>(console: &Console, visitor: &Visitor, list: L, said: Said) -> Response {
    if visitor.partial {
        return ([("hx-trigger", "limpet:done")], part(&After { list, said: Some(said) })).into_response();
    }
    page(console, L::ROOM, Some(&visitor.session), &list.page(Some(said)))
}

/// Where a list goes on that is shown in parts.
#[derive(Debug, Default, Template)]
#[template(path = "pages.html")]
pub(crate) struct Pages {
    /// The room.
    pub path: &'static str,
    pub search: String,
    /// Where this part begins, and the ones before and after it.
    pub offset: u32,
    before: Option<u32>,
    after: Option<u32>,
    /// How many there are in all; absent where nobody counts.
    total: Option<u32>,
}

impl Pages {
    pub fn of(path: &'static str, search: &str, offset: u32) -> Self {
        let before = (offset > 0).then(|| offset.saturating_sub(PAGE));
        Self { path, search: search.trim().to_owned(), offset, before, after: None, total: None }
    }

    /// So many of it are shown, and so many come after them.
    pub fn holds(&mut self, shown: usize, more: u32) {
        let end = self.offset.saturating_add(u32::try_from(shown).unwrap_or(u32::MAX));
        self.total = Some(end.saturating_add(more));
        self.after = (more > 0).then_some(end);
    }

    pub fn goes_on(&mut self, after: Option<u32>) {
        self.after = after;
    }

    /// How many there are, as far as that is known.
    pub fn count(&self) -> String {
        self.total.map_or_else(|| "?".into(), |total| total.to_string())
    }

    pub fn is_known(&self) -> bool {
        self.total.is_some()
    }

    fn has_line(&self) -> bool {
        self.total.is_some_and(|total| total > 0) || self.before.is_some() || self.after.is_some()
    }

    pub fn has_more(&self) -> bool {
        self.after.is_some()
    }

    pub fn is_searched(&self) -> bool {
        !self.search.is_empty()
    }
}

/// Which part of a list, as it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Search {
    pub q: String,
    pub offset: u32,
}

/// How a word is coloured; the word itself is always there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warn,
    Bad,
}

impl Tone {
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    text: &'a str,
}

#[derive(Template)]
#[template(path = "asked.html")]
struct Asked {
    body: String,
}

/// A whole page.
pub(crate) fn page(console: &Console, room: Room, session: Option<&Session>, body: &impl Template) -> Response {
    framed(console, room, session, written(body))
}

/// A part of a page, to be put into one that is there.
pub(crate) fn part(body: &impl Template) -> Response {
    written(body).map_or_else(IntoResponse::into_response, |text| Html(text).into_response())
}

/// A question, or a form: in the dialog of a page that is there, else on a page of its own.
pub(crate) fn asked(console: &Console, room: Room, visitor: &Visitor, body: &impl Template) -> Response {
    if visitor.partial {
        // An answer that was meant for a list behind the dialog goes into the dialog, where the question was asked.
        return ([("hx-retarget", "#ask"), ("hx-reswap", "innerHTML")], part(body)).into_response();
    }
    framed(console, room, Some(&visitor.session), written(body).and_then(|body| written(&Asked { body })))
}

/// Something that stands in the way, in words.
pub(crate) fn problem(
    console: &Console,
    session: Option<&Session>,
    partial: bool,
    status: StatusCode,
    text: &str,
) -> Response {
    let body = Problem { text };
    let shown = if partial { part(&body) } else { page(console, Room::Elsewhere("Not possible now"), session, &body) };
    (status, shown).into_response()
}

fn framed(
    console: &Console,
    room: Room,
    session: Option<&Session>,
    body: Result<String, (StatusCode, &'static str)>,
) -> Response {
    let about = console.api.about();
    let layout =
        |body| Layout { room, session, server: &about.server, version: &about.version, addresses: &ADDRESSES, body };
    match body.and_then(|body| written(&layout(body))) {
        Ok(text) => Html(text).into_response(),
        Err(error) => error.into_response(),
    }
}

fn written(template: &impl Template) -> Result<String, (StatusCode, &'static str)> {
    template.render().map_err(|error| {
        tracing::error!(%error, "a page of the console cannot be written");
        (StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be written; the server's log says why.\n")
    })
}
