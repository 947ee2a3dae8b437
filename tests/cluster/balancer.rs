//! `limpet balancer`, or `limpet up`: with a folder and addresses of its own, which it keeps when it is started again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::support::{Limpet, Stopped, free_addresses};

/// The administrator's.
pub const PASSWORD: &str = "cluster-test";

pub struct BalancerServer {
    pub name: &'static str,
    pub data: PathBuf,
    pub gwmp: SocketAddr,
    link: SocketAddr,
    pub admin: SocketAddr,
    /// Where `limpet up` has its API and its worker's pages.
    pub http: SocketAddr,
    /// `limpet up`.
    with_all: bool,
    pub process: Option<Limpet>,
}

impl BalancerServer {
    /// A balancer that is not running yet, with its data below this folder.
    pub fn new(name: &'static str, folder: &Path) -> Self {
        let [gwmp, link, admin, http] = free_addresses();
        Self { name, data: folder.join(name), gwmp, link, admin, http, with_all: false, process: None }
    }

    /// `limpet up` instead.
    pub fn with_all(self) -> Self {
        Self { with_all: true, ..self }
    }

    /// Starts it; returns when it listens.
    pub async fn start(&mut self) {
        self.start_with(&[]).await;
    }

    /// The same with these arguments besides.
    pub async fn start_with(&mut self, more: &[&str]) {
        let (data, http) = (self.data.to_str().unwrap(), self.http.to_string());
        let [gwmp, link, admin] = [self.gwmp, self.link, self.admin].map(|address| address.to_string());
        let addresses = ["--gwmp", &gwmp, "--link", &link, "--admin", &admin, "--advertise", &link];
        let (name, role, running) = if self.with_all {
            let role = ["up", "--data", data, "--name", "up", "--http", &http, "--admin-password", PASSWORD];
            ("up", role.to_vec(), "Limpet is running")
        } else {
            (self.name, vec!["balancer", "--data", data, "--name", self.name], "the balancer is running")
        };
        let mut process = Limpet::start(name, &[&role[..], &addresses, more].concat());
        process.line_with(running).await;
        self.process = Some(process);
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> Stopped {
        let process = self.process.take().unwrap();
        process.terminate();
        process.stopped().await
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Where workers dial it.
    pub fn link(&self) -> SocketAddr {
        self.link
    }

    /// The workers that have a share of its ring; `None` if it does not answer.
    pub async fn shares(&self, client: &reqwest::Client) -> Option<Vec<String>> {
        let url = format!("http://{}/ring", self.admin);
        let ring: serde_json::Value = client.get(url).send().await.ok()?.json().await.ok()?;
        let workers = ring["workers"].as_array()?.iter().filter(|worker| worker["share"].as_f64() > Some(0.0));
        Some(workers.filter_map(|worker| Some(worker["name"].as_str()?.to_owned())).collect())
    }
}
