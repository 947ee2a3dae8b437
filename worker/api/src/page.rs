//! The page at `/`: what is running, and what to do next. It stands alone: no file beside it, no other host, no log-in.

mod html;

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use limpet_shared::admin::Server;
use sha2::{Digest, Sha256};

use crate::overview::{Counts, Overview};
use html::{Markup, command, paragraph, tag};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");
const MARK: &str = include_str!("page/mark.svg");

/// Unknown gateways that are offered for adding.
const OFFERED: usize = 3;

/// The browser runs our own style and script and nothing else, whatever a name on the page may look like.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// The page as an HTTP response.
pub(crate) fn respond(overview: &Overview) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(render(overview))).into_response()
}

fn render(overview: &Overview) -> String {
    let main = tag("main", "", now(overview) + next_steps(overview));
    let body = [header_bar(overview), main, footer(overview)];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Limpet on {}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n<body>\n{}\n<script>{SCRIPT}</script>\n\
         </body>\n</html>\n",
        html::escape(&overview.about.server),
        body.map(|part| part.0).join("\n"),
    )
}

fn header_bar(overview: &Overview) -> Markup {
    let title = tag("h1", "", Markup::text("Limpet"));
    let line = format!("LoRaWAN network server {} on {}", overview.about.version, overview.about.server);
    let words = tag("div", "", title + paragraph("quiet", &line));
    tag("header", "", Markup::trusted(MARK) + words)
}

/// What changes by itself; the script replaces this part every few seconds.
fn now(overview: &Overview) -> Markup {
    let state = match &overview.counts {
        None => paragraph("banner bad", "The store does not answer. Frames are not acknowledged until it does."),
        Some(_) if overview.servers.is_none() => {
            paragraph("banner warn", "No balancer answers this worker: it gets no frames at the moment.")
        }
        Some(_) if overview.servers.iter().flatten().any(|server| server.state != "ready") => {
            paragraph("banner warn", "Not every server is ready; the table says which, and why.")
        }
        Some(_) => paragraph("banner good", "Everything that this worker can see is up."),
    };
    let heading = tag("h2", "id=\"running\"", Markup::text("Running now"));
    let inside = heading + state + figures(overview) + servers(overview.servers.as_deref());
    tag("section", "id=\"now\" aria-labelledby=\"running\"", inside)
}

fn figures(overview: &Overview) -> Markup {
    let counts = overview.counts;
    let show = |value: Option<u64>| value.map_or("?".to_owned(), |v| v.to_string());
    let of = |pick: fn(&Counts) -> u64| show(counts.as_ref().map(pick));
    let unknown = match overview.unknown.len() {
        0 => String::new(),
        n => format!("{n} unknown rejected"),
    };
    let figures = [
        figure("Gateways", &of(|c| c.gateways.into()), &format!("{} heard so far", of(|c| c.heard.into()))),
        figure("Unknown gateways", &overview.unknown.len().to_string(), &unknown),
        figure("Devices", &of(|c| c.devices.into()), &format!("in {} applications", of(|c| c.applications.into()))),
        figure("Events waiting", &of(|c| c.pending), "for an endpoint that is away"),
        figure("Regions", &overview.regions.join(", "), ""),
        figure("Store", &overview.store, ""),
    ];
    tag("dl", "class=\"figures\"", figures.into_iter().fold(Markup::default(), |all, figure| all + figure))
}

fn figure(name: &str, value: &str, note: &str) -> Markup {
    let size = if value.chars().count() > 10 { "class=\"long\"" } else { "" };
    let note = if note.is_empty() { Markup::default() } else { tag("dd", "class=\"quiet\"", Markup::text(note)) };
    tag("div", "", tag("dt", "", Markup::text(name)) + tag("dd", size, Markup::text(value)) + note)
}

fn servers(servers: Option<&[Server]>) -> Markup {
    let Some(servers) = servers else { return Markup::default() };
    let cells = |row: &Server| {
        let state = tag("span", &format!("class=\"state {}\"", state_class(&row.state)), Markup::text(&row.state));
        let share = if row.role == "worker" { format!("{:.0} %", row.share * 100.0) } else { "–".into() };
        [
            Markup::text(&row.name),
            Markup::text(&row.role),
            state,
            Markup::text(&share),
            Markup::text(&row.version),
            Markup::text(&row.reason),
        ]
        .into_iter()
        .fold(Markup::default(), |all, cell| all + tag("td", "", cell))
    };
    let heads = ["Server", "Role", "State", "Share of the ring", "Version", "Why"]
        .into_iter()
        .fold(Markup::default(), |all, head| all + tag("th", "scope=\"col\"", Markup::text(head)));
    let rows = servers.iter().fold(Markup::default(), |all, server| all + tag("tr", "", cells(server)));
    let table = tag("table", "", tag("thead", "", tag("tr", "", heads)) + tag("tbody", "", rows));
    tag("div", "class=\"scroll\"", table)
}

/// How a state is coloured; the word is there too.
fn state_class(state: &str) -> &'static str {
    match state {
        "ready" => "good",
        "joining" | "draining" => "warn",
        _ => "bad",
    }
}

fn next_steps(overview: &Overview) -> Markup {
    let steps = [point_a_gateway(overview), add_a_gateway(overview), add_a_device(), add_a_worker()];
    let list = tag("ol", "class=\"steps\"", steps.into_iter().fold(Markup::default(), |all, step| all + step));
    tag("section", "aria-labelledby=\"next\"", tag("h2", "id=\"next\"", Markup::text("What to do next")) + list)
}

fn step(title: &str, inside: Markup) -> Markup {
    tag("li", "", tag("h3", "", Markup::text(title)) + inside)
}

fn point_a_gateway(overview: &Overview) -> Markup {
    let address = gateways_address(overview.about.gwmp.as_deref());
    let text = "In the gateway's Semtech UDP packet forwarder set the server to this address, and both ports (up and \
                down) to its port:";
    step("Point a gateway here", paragraph("", text) + command(&address))
}

/// An address that a gateway can use: one that means "any of this machine's" is said in words.
fn gateways_address(gwmp: Option<&str>) -> String {
    match gwmp.and_then(|address| address.rsplit_once(':')) {
        None => "the balancer's address, UDP port 1700".into(),
        Some(("0.0.0.0" | "[::]", port)) => format!("this machine's address, UDP port {port}"),
        Some((host, port)) => format!("{host}, UDP port {port}"),
    }
}

fn add_a_gateway(overview: &Overview) -> Markup {
    let title = "Let the network know the gateway";
    if overview.unknown.is_empty() {
        let text = "Gateways that nobody has added are rejected, and shown here once they send something. Or add one \
                    by its EUI:";
        return step(title, paragraph("", text) + command("limpet ctl gateway add 0016c001ff10a235"));
    }
    let text = "These gateways have sent something and were rejected. Run this if they are yours:";
    let commands = overview
        .unknown
        .iter()
        .take(OFFERED)
        .fold(Markup::default(), |all, gateway| all + command(&format!("limpet ctl gateway add {}", gateway.eui)));
    let more = match overview.unknown.len().saturating_sub(OFFERED) {
        0 => Markup::default(),
        n => paragraph("quiet", &format!("And {n} more:")) + command("limpet ctl gateways --unknown"),
    };
    step(title, paragraph("", text) + commands + more)
}

fn add_a_device() -> Markup {
    let text = "With its keys, and the URL that shall get its events:";
    let line = "limpet ctl device add --dev-eui 0102030405060708 --app-key 000102030405060708090a0b0c0d0e0f \
                --webhook http://localhost:9000/";
    let api = "Or with any client of ChirpStack v4's gRPC API, at this address. Log in as admin with the password that \
               the first start printed.";
    step("Add a device", paragraph("", text) + command(line) + paragraph("quiet", api))
}

fn add_a_worker() -> Markup {
    let text = "The first command prints a token, which the second takes. The worker needs the same store as this one:";
    let line = "limpet worker --join TOKEN --store URL --data ./limpet-worker-2 --http 127.0.0.1:8081";
    step("Add a worker", paragraph("", text) + command("limpet ctl join-token") + command(line))
}

fn footer(overview: &Overview) -> Markup {
    let text = format!("Limpet {} · metrics at /metrics · health at /healthz and /readyz", overview.about.version);
    tag("footer", "class=\"quiet\"", Markup::text(&text))
}

#[cfg(test)]
mod tests;
