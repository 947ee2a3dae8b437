//! A balancer and workers, each a process of its own, on one SQLite store.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use limpet_shared::Eui64;
use serde_json::Value;
use tempfile::TempDir;

use super::{Limpet, ctl, eventually, free_address, free_addresses};

/// One balancer and its workers.
#[derive(Debug)]
pub struct Cluster {
    pub gwmp: SocketAddr,
    pub admin: SocketAddr,
    link: SocketAddr,
    balancer: Option<Limpet>,
    workers: BTreeMap<String, Worker>,
    token: String,
    second: Option<Second>,
    // Last: the processes are gone before their folder.
    folder: TempDir,
}

/// Another balancer.
#[derive(Debug)]
struct Second {
    gwmp: SocketAddr,
    link: SocketAddr,
    _process: Limpet,
}

/// A worker of the cluster, running or not.
#[derive(Debug)]
pub struct Worker {
    pub http: SocketAddr,
    process: Option<Limpet>,
}

impl Cluster {
    /// Starts a balancer and workers of these names, and waits until all are ready.
    pub async fn start(names: &[&str]) -> Self {
        let mut cluster = Self::balancer_alone().await;
        for name in names {
            cluster.start_worker(name).await;
        }
        cluster
    }

    /// The same with a second balancer, which joined with a token of the first one. Workers are told of both, and of two
    /// addresses of the first.
    #[allow(dead_code, reason = "not every target needs it")]
    pub async fn start_with_two_balancers(names: &[&str]) -> Self {
        let mut cluster = Self::balancer_alone().await;
        cluster.start_second_balancer().await;
        for name in names {
            cluster.start_worker(name).await;
        }
        for name in names {
            cluster.state_at(&cluster.second_data(), name, "ready").await;
        }
        cluster
    }

    async fn balancer_alone() -> Self {
        let [gwmp, link, admin] = free_addresses();
        let (folder, workers) = (tempfile::tempdir().unwrap(), BTreeMap::new());
        let mut cluster =
            Self { gwmp, admin, link, balancer: None, workers, token: String::new(), second: None, folder };
        cluster.start_balancer().await;
        cluster.token = cluster.join_token("worker");
        cluster
    }

    fn join_token(&self, role: &str) -> String {
        let made = ctl(&self.data(), &["join-token", "--uses", "100", "--role", role]);
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().lines().last().unwrap().into()
    }

    async fn start_second_balancer(&mut self) {
        let (data, token) = (self.second_data(), self.join_token("balancer"));
        let [gwmp, link, admin] = free_addresses();
        let addresses = [gwmp, link, admin].map(|address| address.to_string());
        let who = ["balancer", "--data", path(&data), "--name", "edge-2", "--join", &token];
        let listen = ["--gwmp", &addresses[0], "--link", &addresses[1], "--admin", &addresses[2]];
        let mut process = Limpet::start("balancer-2", &[&who[..], &listen].concat());
        process.answers(admin, "/healthz").await;
        self.second = Some(Second { gwmp, link, _process: process });
    }

    /// The folder of the second balancer.
    pub fn second_data(&self) -> PathBuf {
        self.folder.path().join("balancer-2")
    }

    /// Where gateways send to at the second balancer, if there is one.
    #[allow(dead_code, reason = "not every target needs it")]
    pub fn second_gwmp(&self) -> Option<SocketAddr> {
        self.second.as_ref().map(|second| second.gwmp)
    }

    /// What workers are told to dial: what the token says, or both balancers and a second address of the first.
    fn balancers(&self) -> Vec<String> {
        let Some(second) = &self.second else { return Vec::new() };
        let other_address = SocketAddr::from(([127, 0, 0, 2], self.link.port()));
        let list = [self.link, other_address, second.link].map(|address| address.to_string()).join(",");
        vec!["--balancer".into(), list]
    }

    /// The balancer's folder, which `ctl` talks to.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("balancer")
    }

    /// Starts the balancer, at the same addresses as before.
    pub async fn start_balancer(&mut self) {
        let data = self.data();
        let [gwmp, advertise, admin] = [self.gwmp, self.link, self.admin].map(|address| address.to_string());
        // All of this machine's addresses lead to it.
        let link = SocketAddr::from(([0, 0, 0, 0], self.link.port())).to_string();
        let who = ["balancer", "--data", path(&data), "--name", "edge", "--advertise", &advertise];
        let listen = ["--gwmp", &gwmp, "--link", &link, "--admin", &admin];
        let mut balancer = Limpet::start("balancer", &[&who[..], &listen].concat());
        // It is alive; ready it is with its first worker.
        balancer.answers(self.admin, "/healthz").await;
        self.balancer = Some(balancer);
    }

    /// Starts a worker, with the folder and address that it had before if it ran before, and waits until the balancer
    /// sends it frames.
    pub async fn start_worker(&mut self, name: &str) {
        let balancers = self.balancers();
        let balancers: Vec<&str> = balancers.iter().map(String::as_str).collect();
        let worker = self.workers.entry(name.into()).or_insert_with(|| Worker { http: free_address(), process: None });
        let (data, store) = (self.folder.path().join(name), self.folder.path().join("store"));
        let (http, store) = (worker.http.to_string(), format!("sqlite:{}", path(&store)));
        let arguments = ["worker", "--join", &self.token, "--name", name, "--data", path(&data), "--store", &store];
        let more = ["--http", &http, "--admin-password", "black-box"];
        let mut process = Limpet::start(name, &[&arguments[..], &more, &balancers].concat());
        process.ready(worker.http).await;
        worker.process = Some(process);
        self.state(name, "ready").await;
    }

    /// The process of a running worker.
    pub fn worker(&mut self, name: &str) -> &mut Limpet {
        self.workers.get_mut(name).and_then(|worker| worker.process.as_mut()).expect("a running worker")
    }

    /// Takes the process of a running worker, to kill it or to wait for its end.
    pub fn take_worker(&mut self, name: &str) -> Limpet {
        self.workers.get_mut(name).and_then(|worker| worker.process.take()).expect("a running worker")
    }

    /// Takes the balancer's process.
    pub fn take_balancer(&mut self) -> Limpet {
        self.balancer.take().expect("a running balancer")
    }

    /// Where a worker's API is.
    pub fn http(&self, name: &str) -> SocketAddr {
        self.workers[name].http
    }

    /// The answer of `limpet ctl`, which must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> Value {
        let output = ctl(&self.data(), &[&["--json"], arguments].concat());
        assert!(output.status.success(), "limpet ctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Shows what every running server has counted, for a test that fails.
    pub async fn show_metrics(&self) {
        let workers = self.workers.iter().map(|(name, worker)| (name.as_str(), worker.http));
        for (name, address) in workers.chain([("balancer", self.admin)]) {
            let Ok(answer) = reqwest::get(format!("http://{address}/metrics")).await else { continue };
            let text = answer.text().await.unwrap_or_default();
            let told = |line: &&str| !line.starts_with('#') && !line.ends_with(" 0") && !line.contains("_bucket");
            text.lines().filter(told).for_each(|line| println!("{name} | {line}"));
        }
    }

    /// Waits until the balancer has this worker in this state.
    pub async fn state(&self, name: &str, state: &str) {
        self.state_at(&self.data(), name, state).await;
    }

    /// The same, as the balancer with this folder sees it.
    async fn state_at(&self, data: &std::path::Path, name: &str, state: &str) {
        eventually(&format!("{name} to be {state}"), async || {
            // On a machine under load an answer may come too late; the next one counts.
            let servers: Value = serde_json::from_slice(&ctl(data, &["--json", "servers"]).stdout).ok()?;
            let servers = servers["servers"].as_array()?;
            // Any server tells of all; one that lacks a link to a balancer says so.
            let everywhere = |server: &&Value| !server["reason"].as_str().unwrap_or_default().contains("not linked");
            let found = servers.iter().filter(everywhere).any(|s| s["name"] == name && s["state"] == state);
            found.then_some(())
        })
        .await;
    }

    /// The worker that the ring names for a gateway.
    pub fn worker_of(&self, gateway: Eui64) -> String {
        self.ctl(&["ring", &gateway.to_string()])["worker"].as_str().expect("a worker").into()
    }

    /// That many gateway EUIs, added to the network, of which `share(worker)` says how many each worker has.
    pub fn gateways(&self, share: &[(&str, usize)]) -> Vec<Eui64> {
        let mut found = Vec::new();
        for (worker, count) in share {
            let candidates = (0..).map(|n| Eui64(0x0016_c001_ff00_0000 + n));
            let fits = |eui: &Eui64| !found.contains(eui) && self.worker_of(*eui) == *worker;
            let chosen: Vec<Eui64> = candidates.filter(fits).take(*count).collect();
            found.extend(chosen);
        }
        for eui in &found {
            self.ctl(&["gateway", "add", &eui.to_string()]);
        }
        found
    }
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}
