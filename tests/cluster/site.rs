//! Servers that are started one by one, as an operator does it, on one SQLite store; and what `limpet ctl` says of them.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::Value;

use crate::support::{Limpet, ctl, eventually, free_address, free_addresses};

pub struct Site {
    folder: tempfile::TempDir,
}

/// A running balancer, where gateways send to, and where workers dial it.
pub struct RunningBalancer {
    pub process: Limpet,
    pub gwmp: SocketAddr,
    pub link: SocketAddr,
    /// These two, and its admin HTTP.
    pub at: [SocketAddr; 3],
}

impl Site {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The folder of the server with this name.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.data(name).to_str().unwrap().to_owned()
    }

    /// Starts a balancer; with a token it joins, without one it founds a cluster.
    pub async fn balancer(&self, name: &str, token: Option<&str>) -> RunningBalancer {
        self.balancer_at(name, name, free_addresses(), token).await
    }

    /// The same in the folder of this name, where gateways, workers and operators find it at these addresses.
    pub async fn balancer_at(
        &self,
        name: &str,
        folder: &str,
        at: [SocketAddr; 3],
        token: Option<&str>,
    ) -> RunningBalancer {
        let (data, addresses) = (self.text(folder), at.map(|address| address.to_string()));
        let mut arguments = vec!["balancer", "--name", name, "--data", &data, "--advertise", &addresses[1]];
        arguments.extend(["--gwmp", &addresses[0], "--link", &addresses[1], "--admin", &addresses[2]]);
        arguments.extend(token.iter().flat_map(|token| ["--join", token]));
        let mut process = Limpet::start(folder, &arguments);
        process.line_with("the balancer is running").await;
        let [gwmp, link, _] = at;
        RunningBalancer { process, gwmp, link, at }
    }

    /// Starts a worker with these arguments besides; it may well fail.
    pub fn worker(&self, name: &str, more: &[&str]) -> Limpet {
        self.worker_with(name, more, &[])
    }

    /// The same with variables in its environment.
    pub fn worker_with(&self, name: &str, more: &[&str], variables: &[(&str, &str)]) -> Limpet {
        let (data, store) = (self.text(name), format!("sqlite:{}", self.text("store")));
        let http = free_address().to_string();
        let mut arguments = vec!["worker", "--name", name, "--data", &data];
        // A later one of the same counts for nothing, so what is given goes instead.
        for (flag, value) in [("--store", &store), ("--http", &http)] {
            if !more.contains(&flag) {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(more);
        Limpet::start_with(name, &arguments, variables)
    }

    /// `limpet ctl`, which must succeed: its standard output.
    pub fn ctl(&self, server: &str, arguments: &[&str]) -> String {
        let output = ctl(&self.data(server), arguments);
        assert!(output.status.success(), "ctl {arguments:?} at {server}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `limpet ctl`, which must fail: its standard error.
    pub fn ctl_refused(&self, server: &str, arguments: &[&str]) -> String {
        let output = ctl(&self.data(server), arguments);
        assert_eq!(output.status.code(), Some(1), "ctl {arguments:?} at {server}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A join token, from the last line.
    pub fn token(&self, server: &str, arguments: &[&str]) -> String {
        let made = self.ctl(server, &[&["join-token"], arguments].concat());
        made.lines().last().unwrap().to_owned()
    }

    /// The servers as this one knows them.
    pub fn servers(&self, server: &str) -> Option<Vec<Value>> {
        let output = ctl(&self.data(server), &["servers", "--json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        answer["servers"].as_array().cloned()
    }

    /// Waits until this server knows exactly these, each in this state.
    pub async fn sees(&self, server: &str, wanted: &[(&str, &str)]) -> Vec<Value> {
        let mut last = Vec::new();
        let what = format!("{server} to see {wanted:?}");
        let seen = eventually(&what, async || {
            let servers = self.servers(server)?;
            let states: Vec<(&str, &str)> =
                servers.iter().filter_map(|s| Some((s["name"].as_str()?, s["state"].as_str()?))).collect();
            let line = format!("{states:?}");
            if last.last() != Some(&line) {
                println!("{server} sees {line}");
                last.push(line);
            }
            (states == wanted).then_some(servers.clone())
        });
        seen.await
    }
}
