//! Several views of the same servers as one.

use limpet_shared::admin::{Role, Server};

/// States of a connected worker, the worst last.
const STATES: [&str; 6] = ["ready", "overloaded", "joining", "draining", "suspect", "ejected"];

fn severity(state: &str) -> usize {
    STATES.iter().position(|known| *known == state).unwrap_or(0)
}

/// Two remarks as one.
pub fn sentences(one: &str, other: &str) -> String {
    match (one.is_empty(), other.is_empty()) {
        (_, true) => one.into(),
        (true, false) => other.into(),
        (false, false) => format!("{one}; {other}"),
    }
}

/// Adds what balancers say of a worker: its address, its share, the worst of its states. Each report is one balancer's,
/// itself first. Returns whether any of them is linked to it.
pub fn sighted(worker: &mut Server, reports: &[Vec<Server>]) -> bool {
    let mut without = Vec::new();
    let mut sights = Vec::new();
    for report in reports {
        let Some((balancer, workers)) = report.split_first() else { continue };
        let mut connected = workers.iter().filter(|seen| seen.state != "gone");
        match connected.find(|seen| seen.name == worker.name) {
            Some(seen) => sights.push(seen),
            None => without.push(balancer.name.as_str()),
        }
    }
    let Some(worst) = sights.iter().max_by_key(|seen| severity(&seen.state)) else { return false };
    worker.state = worst.state.clone();
    worker.reason = worst.reason.clone();
    if !without.is_empty() {
        worker.reason = sentences(&worker.reason, &format!("not linked to {}", without.join(", ")));
    }
    let Server { address, http, version, started_at, instance, key, .. } = (*worst).clone();
    (worker.address, worker.http, worker.version) = (address, http, version);
    (worker.started_at, worker.instance, worker.key) = (started_at, instance, key);
    worker.weight = sights.iter().map(|seen| seen.weight).min().unwrap_or_default();
    worker.in_flight = sights.iter().map(|seen| seen.in_flight).max().unwrap_or_default();
    worker.share = sights.iter().map(|seen| seen.share).sum::<f64>() / sights.len() as f64;
    true
}

/// All servers: balancers first, each by name. `rows` are the lines in the store, with whether there is life in them;
/// `is_removed` tells of whom was removed and is not shown once it is gone, or if no worker was ever linked to it.
pub fn roll(rows: &[(Server, bool)], reports: &[Vec<Server>], is_removed: impl Fn(&Server) -> bool) -> Vec<Server> {
    let is_hidden = |server: &Server| (server.state == "gone" || server.key.is_empty()) && is_removed(server);
    let mut servers: Vec<Server> = Vec::new();
    for balancer in reports.iter().filter_map(|report| report.first()) {
        servers.push(balancer.clone());
    }
    let is_listed = |servers: &[Server], one: &Server| {
        servers.iter().any(|known| known.name == one.name && known.kind() == one.kind())
    };
    for (row, alive) in rows {
        if is_listed(&servers, row) {
            continue;
        }
        let mut server = row.clone();
        let linked = server.kind() == Role::Worker && sighted(&mut server, reports);
        if !linked {
            unseen(&mut server, *alive, reports);
        }
        if !is_hidden(&server) {
            servers.push(server);
        }
    }
    // A worker that has not written anything yet, or whose line was forgotten.
    for seen in reports.iter().flat_map(|report| report.iter().skip(1)) {
        if !is_hidden(seen) && !is_listed(&servers, seen) {
            let mut server = seen.clone();
            if server.kind() == Role::Worker {
                sighted(&mut server, reports);
            }
            servers.push(server);
        }
    }
    servers.sort_by(|a, b| b.kind().cmp(&a.kind()).then_with(|| a.name.cmp(&b.name)));
    servers
}

/// A server that no balancer has told of.
fn unseen(server: &mut Server, alive: bool, reports: &[Vec<Server>]) {
    let told = reports.iter().flatten().find(|seen| seen.name == server.name && seen.kind() == server.kind());
    let left = server.state == "gone";
    let closed = told.is_some_and(|seen| seen.state == "gone");
    if alive && !left && !closed {
        match (server.kind(), reports.is_empty()) {
            (Role::Worker, false) if server.state == "ready" => {
                server.state = "joining".into();
                server.reason = "it lives, but no balancer that was asked is linked to it".into();
            }
            (Role::Worker, true) if server.state == "ready" => {
                server.reason = "it lives; whether it gets frames is not known, for no balancer answers".into();
            }
            (Role::Balancer, true) => {
                server.state = "suspect".into();
                server.reason = "it was there some seconds ago, and does not answer".into();
            }
            _ => {}
        }
        return;
    }
    (server.weight, server.share, server.in_flight, server.cpu, server.memory) = (0, 0.0, 0, 0.0, 0);
    if !left {
        server.state = "gone".into();
        server.reason = told.map_or_else(|| "there is no sign of it".into(), |seen| seen.reason.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(role: Role, name: &str, state: &str) -> Server {
        Server { name: name.into(), role: role.as_str().into(), state: state.into(), ..Server::default() }
    }

    fn worker(name: &str, state: &str) -> Server {
        server(Role::Worker, name, state)
    }

    fn states(servers: &[Server]) -> Vec<(&str, &str)> {
        servers.iter().map(|server| (server.name.as_str(), server.state.as_str())).collect()
    }

    fn edge(name: &str, workers: &[Server]) -> Vec<Server> {
        [&[server(Role::Balancer, name, "ready")], workers].concat()
    }

    #[test]
    fn the_worst_of_what_balancers_see_is_told_and_shares_are_averaged() {
        let row = Server { memory: 7, ..worker("a", "ready") };
        let of = |state: &str, share| Server { share, weight: 100, ..worker("a", state) };
        let reports = [edge("east", &[of("ready", 0.5)]), edge("west", &[of("suspect", 0.25)]), edge("north", &[])];
        let roll = roll(&[(row, true)], &reports, |_| false);
        assert_eq!(states(&roll), [("east", "ready"), ("north", "ready"), ("west", "ready"), ("a", "suspect")]);
        assert_eq!((roll[3].share, roll[3].memory), (0.375, 7));
        assert_eq!(roll[3].reason, "not linked to north");
    }

    #[test]
    fn who_is_seen_by_nobody_lives_as_long_as_it_writes() {
        let rows = [
            (worker("alive", "ready"), true),
            (worker("dead", "ready"), false),
            (worker("left", "gone"), true),
            (server(Role::Balancer, "far", "ready"), true),
            (server(Role::Balancer, "lost", "ready"), false),
        ];
        let roll = roll(&rows, &[edge("east", &[worker("new", "joining")])], |_| false);
        let wanted = [
            ("east", "ready"),
            ("far", "ready"),
            ("lost", "gone"),
            ("alive", "joining"),
            ("dead", "gone"),
            ("left", "gone"),
            ("new", "joining"),
        ];
        assert_eq!(states(&roll), wanted);
    }

    #[test]
    fn where_no_balancer_answers_nothing_is_taken_to_be_well() {
        let rows = [(worker("a", "ready"), true), (server(Role::Balancer, "edge", "ready"), true)];
        let roll = roll(&rows, &[], |_| false);
        assert_eq!(states(&roll), [("edge", "suspect"), ("a", "ready")]);
        assert!(roll.iter().all(|server| !server.reason.is_empty() && !server.answers()), "{roll:?}");
    }

    #[test]
    fn who_was_removed_is_shown_only_until_it_is_gone() {
        let a = Server { key: "k".into(), ..worker("a", "ready") };
        let draining = Server { state: "draining".into(), ..a.clone() };
        let rows = [(a, true), (worker("b", "ready"), false)];
        // One that was removed before any worker was linked to it is remembered where it joined.
        let reports = [edge("east", &[draining, worker("b", "gone"), worker("c", "joining")])];
        assert_eq!(
            states(&roll(&rows, &reports, |s| s.kind() == Role::Worker)),
            [("east", "ready"), ("a", "draining")]
        );
    }
}
