//! Servers as the pages show them.

use limpet_shared::{UnixMicros, admin::Server};

use crate::{
    page::Tone,
    words::{bytes, percent, span},
};

/// Colours that tell workers apart in the bar; then they begin again.
const COLOURS: usize = 8;
/// The full width of a bar, in the units of its drawing.
const WIDTH: f64 = 1000.0;

/// The ring as one bar: each worker's share, in the order of the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct RingBar {
    pub slices: Vec<Slice>,
    /// The same in words.
    pub text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub colour: usize,
    pub from: String,
    pub width: String,
    pub title: String,
}

/// A line of the list.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub name: String,
    pub role: String,
    pub state: String,
    pub tone: Tone,
    pub reason: String,
    pub version: String,
    pub address: String,
    /// Where its HTTP listens.
    pub http: String,
    /// How long it has been running.
    pub up: String,
    pub worker: Option<Worker>,
    pub in_flight: u32,
    /// What its process uses: the processor in percent, memory, and what is free on its disk; empty if nobody knows.
    pub uses: Uses,
    pub may: May,
}

/// What only workers have.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub colour: usize,
    pub share: String,
    pub width: String,
    /// Of its full share; says why a share is small.
    pub weight: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    pub cpu: String,
    pub memory: String,
    pub disk_free: String,
}

/// What can be done with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct May {
    pub drain: bool,
    pub bring_back: bool,
    pub remove: bool,
}

/// Balancers first, then workers by name.
pub(crate) fn of(servers: &[Server], now: UnixMicros) -> (RingBar, Vec<Row>) {
    let mut sorted: Vec<&Server> = servers.iter().collect();
    sorted.sort_by(|a, b| (a.role.as_str(), a.name.as_str()).cmp(&(b.role.as_str(), b.name.as_str())));
    let mut ring = RingBar::default();
    let (mut rows, mut from, mut words) = (Vec::new(), 0.0, Vec::new());
    for (number, server) in sorted.iter().filter(|server| server.role == "worker").enumerate() {
        // Shares come over the network; a bar must not grow out of its page.
        let share = if server.share.is_finite() { server.share.clamp(0.0, 1.0) } else { 0.0 };
        let (colour, text) = (number % COLOURS, percent(share));
        if share > 0.0 {
            let title = format!("{}: {text}", server.name);
            words.push(title.clone());
            ring.slices.push(Slice { colour, from: units(from), width: units(share), title });
            from += share;
        }
        let worker = Worker { colour, share: text, width: units(share), weight: server.weight };
        rows.push(row(server, Some(worker), servers, now));
    }
    let others = sorted.iter().filter(|server| server.role != "worker").map(|server| row(server, None, servers, now));
    rows.splice(0..0, others.collect::<Vec<_>>());
    ring.text = words.join(", ");
    (ring, rows)
}

fn units(share: f64) -> String {
    format!("{:.1}", share * WIDTH)
}

fn row(server: &Server, worker: Option<Worker>, servers: &[Server], now: UnixMicros) -> Row {
    let gone = server.state == "gone";
    let draining = server.state == "draining";
    let here = !gone && worker.is_some();
    Row {
        name: server.name.clone(),
        role: server.role.clone(),
        state: server.state.clone(),
        tone: tone(&server.state),
        reason: server.reason.clone(),
        version: server.version.clone(),
        address: server.address.clone(),
        http: server.http.clone(),
        up: if gone || server.started_at.0 == 0 { String::new() } else { span(now.since(server.started_at)) },
        worker,
        in_flight: server.in_flight,
        uses: if gone { Uses::default() } else { uses(server) },
        // A part of `limpet up` ends only with it, and without any balancer nothing works.
        may: May {
            drain: here && !draining,
            bring_back: here && draining,
            remove: !server.combined && !server.is_only_balancer(servers),
        },
    }
}

fn uses(server: &Server) -> Uses {
    let cpu = if server.memory == 0 { String::new() } else { percent(server.cpu.clamp(0.0, 1.0)) };
    Uses { cpu, memory: bytes(server.memory), disk_free: bytes(server.disk_free) }
}

fn tone(state: &str) -> Tone {
    match state {
        "ready" => Tone::Good,
        "joining" | "draining" | "overloaded" => Tone::Warn,
        _ => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn server(name: &str, role: &str, state: &str, share: f64) -> Server {
        let started_at = UnixMicros(NOW.0 - 300_000_000);
        Server { name: name.into(), role: role.into(), state: state.into(), share, started_at, ..Server::default() }
    }

    #[test]
    fn the_bar_is_full_and_every_worker_has_its_part_of_it() {
        let servers = [
            server("w2", "worker", "ready", 0.25),
            server("edge", "balancer", "ready", 0.0),
            server("w1", "worker", "ready", 0.75),
            server("w3", "worker", "gone", 0.0),
        ];
        let (ring, rows) = of(&servers, NOW);
        let drawn: Vec<_> = ring.slices.iter().map(|s| (s.from.as_str(), s.width.as_str(), s.colour)).collect();
        assert_eq!(drawn, [("0.0", "750.0", 0), ("750.0", "250.0", 1)]);
        assert_eq!(ring.text, "w1: 75 %, w2: 25 %");
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["edge", "w1", "w2", "w3"]);
        assert!(rows[0].worker.is_none() && rows[0].up == "5 min");
    }

    #[test]
    fn only_what_makes_sense_can_be_done() {
        let may = |role, state| {
            let servers = [server("edge", "balancer", "ready", 0.0), server("z", role, state, 0.0)];
            of(&servers, NOW).1[1].may
        };
        assert_eq!(may("worker", "ready"), May { drain: true, bring_back: false, remove: true });
        assert_eq!(may("worker", "draining"), May { drain: false, bring_back: true, remove: true });
        let only_remove = May { remove: true, ..May::default() };
        assert_eq!([may("worker", "gone"), may("balancer", "ready")], [only_remove; 2]);
        assert_eq!(of(&[server("edge", "balancer", "ready", 0.0)], NOW).1[0].may, May::default(), "the only one");
        let combined = Server { combined: true, ..server("a", "balancer", "ready", 0.0) };
        assert_eq!(of(&[combined], NOW).1[0].may, May::default());
    }

    #[test]
    fn a_strange_share_draws_no_strange_bar() {
        for share in [f64::NAN, f64::INFINITY, -1.0] {
            let (ring, rows) = of(&[server("w", "worker", "ready", share)], NOW);
            assert!(ring.slices.is_empty() && rows[0].worker.as_ref().unwrap().share == "0 %");
        }
        assert_eq!(of(&[server("w", "worker", "ready", 7.0)], NOW).0.slices[0].width, "1000.0");
    }
}
