//! The first page: what is running, and what to do next.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};
use limpet_api::{Counts, Overview};
use limpet_shared::{
    UnixMicros,
    admin::{Gateway, Integration, Server},
};

use super::servers::view::{self, RingBar, Row};
use crate::{
    Console,
    page::{Room, Tone, page, part},
    visitor::Visitor,
    words::{count, span},
};

/// Failing integrations that are named.
const NAMED: usize = 3;
/// Unknown gateways that are offered for adding.
const OFFERED: usize = 3;

/// The part that is fetched anew every few seconds.
#[derive(Template)]
#[template(path = "overview_now.html")]
struct Now {
    tone: Tone,
    state: &'static str,
    /// What fails besides.
    failing: Vec<String>,
    figures: Vec<Figure>,
    ring: RingBar,
    /// None for who may not see them.
    servers: Vec<Row>,
}

struct Figure {
    name: &'static str,
    value: String,
    note: String,
    /// A text, not a number.
    long: bool,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    now: Now,
    steps: Vec<Step>,
    /// Nothing of it is needed any more: gateways and devices are there.
    settled: bool,
    admin: bool,
}

/// Something to do next.
#[derive(Default)]
struct Step {
    title: &'static str,
    text: String,
    commands: Vec<String>,
    note: String,
    /// Where it can be done in the console: address and label.
    link: Option<(String, &'static str)>,
}

pub(crate) async fn show(State(console): State<Arc<Console>>, visitor: Visitor) -> Response {
    let overview = console.api.overview().await;
    let admin = visitor.session.is_admin;
    let now = now(&overview, admin);
    if visitor.partial {
        return part(&now);
    }
    let settled = overview.counts.is_some_and(|counts| counts.heard > 0 && counts.devices > 0);
    let body = Page { now, steps: steps(&overview), settled: settled && unknown(&overview).is_empty(), admin };
    page(&console, Room::Overview, Some(&visitor.session), &body)
}

fn now(overview: &Overview, admin: bool) -> Now {
    let (tone, state) = state(overview);
    let failing = if admin { failing(overview) } else { Vec::new() };
    let shown = overview.servers.as_deref().filter(|_| admin).unwrap_or_default();
    let (ring, servers) = view::of(shown, limpet_api::now());
    Now { tone, state, failing, figures: figures(overview, admin), ring, servers }
}

fn state(overview: &Overview) -> (Tone, &'static str) {
    match (overview.store_answers, &overview.servers) {
        (false, _) => (Tone::Bad, "The store does not answer. Frames are not acknowledged until it does."),
        (_, None) => (Tone::Warn, "No balancer answers this worker: it gets no frames at the moment."),
        (_, Some(servers)) if !servers.iter().any(Server::answers) => {
            (Tone::Warn, "No balancer answers this worker: it gets no frames at the moment.")
        }
        (_, Some(servers)) if !servers.iter().any(Server::takes_frames) => {
            (Tone::Bad, "No worker takes frames: no uplink is acknowledged until one is ready. The list says why.")
        }
        // Who left on purpose is shown for a while, and is no cause for alarm.
        (_, Some(servers)) if servers.iter().any(|s| s.state != "ready" && !s.reason.contains("it left")) => {
            (Tone::Warn, "Not every server is ready; the list says which, and why.")
        }
        _ if not_well(overview).iter().any(|one| one.state == "failing") => {
            (Tone::Warn, "All servers are up, but not every integration takes its events.")
        }
        _ => (Tone::Good, "Everything that this worker can see is up."),
    }
}

fn figures(overview: &Overview, admin: bool) -> Vec<Figure> {
    let counts = overview.counts;
    let of =
        |pick: fn(&Counts) -> u64| counts.as_ref().map_or_else(|| "?".to_owned(), |counts| pick(counts).to_string());
    let figure = |name, value: String, note: String| Figure { name, long: value.chars().count() > 10, value, note };
    let mut figures = vec![
        figure("Gateways", of(|c| c.gateways), online(counts)),
        figure(
            "Devices",
            of(|c| c.devices),
            counts.map_or_else(String::new, |c| format!("in {}", count(c.applications, "application"))),
        ),
        figure("Events waiting", waiting(overview), "for an endpoint that is away".into()),
    ];
    if admin {
        let (number, note) = match overview.unknown.as_deref() {
            None => ("?".into(), "no balancer answers"),
            Some([]) => ("0".into(), "all that send are known"),
            Some(some) => (some.len().to_string(), "heard and rejected"),
        };
        figures.insert(1, figure("Unknown gateways", number, note.into()));
        figures.push(figure("Store", overview.store.clone(), String::new()));
    }
    figures.push(figure("Regions", overview.regions.join(", "), String::new()));
    figures
}

/// The gateways that may be offered.
fn unknown(overview: &Overview) -> &[Gateway] {
    overview.unknown.as_deref().unwrap_or_default()
}

fn waiting(overview: &Overview) -> String {
    match &overview.waiting {
        Some(waiting) if overview.store_answers => waiting.iter().map(|one| one.waiting).sum::<u64>().to_string(),
        _ => "?".into(),
    }
}

fn not_well(overview: &Overview) -> &[Integration] {
    overview.waiting.as_deref().unwrap_or_default()
}

/// Integrations that take no events, in words; the rest is in their room.
fn failing(overview: &Overview) -> Vec<String> {
    let now = limpet_api::now();
    let failing: Vec<_> = not_well(overview).iter().filter(|one| one.state == "failing").collect();
    let mut lines: Vec<String> = failing.iter().take(NAMED).map(|one| in_words(one, now)).collect();
    match failing.len().saturating_sub(NAMED) {
        0 => {}
        more => lines.push(format!("{} more take no events, or refuse them.", count(more as u64, "integration"))),
    }
    lines
}

fn in_words(one: &Integration, now: UnixMicros) -> String {
    let trouble = one.trouble.clone().unwrap_or_default();
    let (events, span) = (count(one.waiting, "event"), span(now.since(trouble.since)));
    let one_of_several = if one.number > 0 { format!(" at {}", one.endpoint) } else { String::new() };
    let who = format!("Application {}{one_of_several}", one.application);
    if trouble.refuses() {
        let given_up = "Each event that is refused three times is given up";
        return format!("{who} has refused events for {span}: {}. {given_up}.", trouble.error);
    }
    let wait = if one.waiting == 1 { "waits" } else { "wait" };
    format!("{who} has taken no event for {span}: {}. {events} {wait}.", trouble.error)
}

/// How many are there, and how many were there once.
fn online(counts: Option<Counts>) -> String {
    counts.map_or_else(
        || "not counted yet".into(),
        |counts| format!("{} online, {} silent", counts.online, counts.gateways.saturating_sub(counts.online)),
    )
}

fn steps(overview: &Overview) -> Vec<Step> {
    vec![point_a_gateway(overview), add_a_gateway(overview), add_a_device(), add_a_worker()]
}

fn point_a_gateway(overview: &Overview) -> Step {
    let text = "In the gateway's Semtech UDP packet forwarder set the server to this address, and both ports (up and \
                down) to its port:";
    let address = gateways_address(overview.about.gwmp.as_deref());
    Step { title: "Point a gateway here", text: text.into(), commands: vec![address], ..Step::default() }
}

/// An address that a gateway can use: one that means "any of this machine's" is said in words.
fn gateways_address(gwmp: Option<&str>) -> String {
    match gwmp.and_then(|address| address.rsplit_once(':')) {
        None => "the balancer's address, UDP port 1700".into(),
        Some(("0.0.0.0" | "[::]", port)) => format!("this machine's address, UDP port {port}"),
        Some((host, port)) => format!("{host}, UDP port {port}"),
    }
}

fn add_a_gateway(overview: &Overview) -> Step {
    let title = "Let the network know the gateway";
    let link = Some(("/gateways".to_owned(), "Gateways"));
    let unknown = unknown(overview);
    if unknown.is_empty() {
        let text = "Gateways that nobody has added are rejected, and shown under Gateways once they send something. Or \
                    add one by its EUI:";
        let commands = vec!["limpet ctl gateway add 0016c001ff10a235".into()];
        return Step { title, text: text.into(), commands, link, ..Step::default() };
    }
    let offered = unknown.iter().take(OFFERED);
    let note = match unknown.len().saturating_sub(OFFERED) {
        0 => String::new(),
        n => format!("And {n} more, under Gateways."),
    };
    let text =
        "These gateways have sent something and were rejected. Add them there, or by a command, if they are yours:";
    let commands = offered.map(|gateway| format!("limpet ctl gateway add {}", gateway.eui)).collect();
    Step { title, text: text.into(), commands, note, link }
}

fn add_a_device() -> Step {
    let line = "limpet ctl device add --dev-eui 0102030405060708 --app-key 000102030405060708090a0b0c0d0e0f \
                --webhook http://localhost:9000/";
    Step {
        title: "Add a device",
        text: "With its keys, and the URL that shall get its events:".into(),
        commands: vec![line.into()],
        note:
            "Or under Devices, or with any client of ChirpStack v4's gRPC API, at this address, with the same log-in."
                .into(),
        link: Some(("/devices".to_owned(), "Devices")),
    }
}

fn add_a_worker() -> Step {
    Step {
        title: "Add a worker",
        text: "Under Servers there is one line to copy, and the new worker takes its share of the gateways. A token \
               alone comes from:"
            .into(),
        commands: vec!["limpet ctl join-token".into()],
        note: String::new(),
        link: Some(("/servers".to_owned(), "Servers")),
    }
}
