//! A balancer or two and workers on one store, or `limpet up`: started, killed and asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use limpet_link::admin_socket;
use limpet_shared::{
    Eui64,
    admin::{Reply, Request, Role, Server},
};

use crate::{
    balancer::{BalancerServer, PASSWORD},
    support::{Limpet, Stopped, ctl, eventually, free_address},
};

/// Processes of one network. Whoever is `None` is dead now.
pub struct Cluster {
    folder: tempfile::TempDir,
    /// `limpet balancer`, one or two; or `limpet up`.
    pub edges: Vec<BalancerServer>,
    pub workers: Vec<Worker>,
    token: String,
    /// What all workers share.
    store: String,
    /// The first worker's user.
    first_user: Option<u32>,
    client: reqwest::Client,
}

/// `limpet worker`.
pub struct Worker {
    pub name: String,
    http: SocketAddr,
    /// Runs as a user of its own, if it has one.
    pub user: Option<u32>,
    pub process: Option<Limpet>,
}

impl Cluster {
    /// A balancer with workers of these names, all ready.
    pub async fn apart(names: &[&str]) -> Self {
        let mut cluster = Self::new(false);
        cluster.store = format!("sqlite:{}", cluster.text("store"));
        cluster.with_workers(names).await
    }

    /// The same on the store of this URL.
    pub async fn apart_on(names: &[&str], store: String) -> Self {
        let mut cluster = Self::new(false);
        cluster.store = store;
        cluster.with_workers(names).await
    }

    /// The same with two balancers.
    pub async fn apart_with_two_balancers(names: &[&str]) -> Self {
        Self::apart(names).await.with_another_balancer().await
    }

    /// With two balancers on the store of this URL, each worker as a user of its own, from `first_user` on, if there is
    /// one.
    pub async fn apart_on_with_two_balancers(names: &[&str], store: String, first_user: Option<u32>) -> Self {
        let mut cluster = Self::new(false);
        cluster.store = store;
        cluster.first_user = first_user;
        if first_user.is_some() {
            // The users must get to their folders.
            std::fs::set_permissions(cluster.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        }
        cluster.with_workers(names).await.with_another_balancer().await
    }

    async fn with_another_balancer(mut self) -> Self {
        let asked = Request::JoinToken { role: Role::Balancer, expires_in_secs: 3600, uses: 1 };
        let Reply::JoinToken { token, .. } = self.ask(&asked).await else { panic!("no join token") };
        let mut second = BalancerServer::new("edge-2", self.folder.path());
        second.start_with(&["--join", &token]).await;
        self.edges.push(second);
        for index in 0..self.workers.len() {
            self.linked(index).await;
        }
        self
    }

    async fn with_workers(mut self, names: &[&str]) -> Self {
        self.start_edge().await;
        let asked = Request::JoinToken { role: Role::Worker, expires_in_secs: 7200, uses: 100 };
        let Reply::JoinToken { token, .. } = self.ask(&asked).await else { panic!("no join token") };
        self.token = token;
        for name in names {
            self.name_worker(name);
        }
        for index in 0..names.len() {
            self.start_worker(index);
            self.ready(index).await;
        }
        self
    }

    /// A worker that is not started yet; returns its index.
    pub fn name_worker(&mut self, name: &str) -> usize {
        let index = self.workers.len();
        let user = self.first_user.and_then(|first| Some(first + u32::try_from(index).ok()?));
        if let Some(user) = user {
            let data = self.path(name);
            std::fs::create_dir(&data).unwrap();
            std::os::unix::fs::chown(&data, Some(user), Some(user)).unwrap();
        }
        self.workers.push(Worker { name: name.into(), http: free_address(), user, process: None });
        index
    }

    /// `limpet up`.
    pub async fn up() -> Self {
        let mut cluster = Self::new(true);
        cluster.start_edge().await;
        cluster
    }

    /// The same with its data in this folder.
    pub async fn up_in(data: PathBuf) -> Self {
        let mut cluster = Self::new(true);
        cluster.edges[0].data = data;
        cluster.start_edge().await;
        cluster
    }

    fn new(is_up: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let edge = BalancerServer::new("edge", folder.path());
        Self {
            folder,
            edges: vec![if is_up { edge.with_all() } else { edge }],
            workers: Vec::new(),
            token: String::new(),
            store: String::new(),
            first_user: None,
            client: reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// What all workers share, as a URL.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Lets workers in.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Starts the balancer (or `up`) with the folder and the addresses that it always has; returns when it listens.
    pub async fn start_edge(&mut self) {
        self.edges[0].start().await;
    }

    /// Starts a worker with the folder and the addresses that it always has.
    pub fn start_worker(&mut self, index: usize) {
        let Worker { name, http, user, .. } = &self.workers[index];
        let (data, store, http) = (self.text(name), self.store.clone(), http.to_string());
        let who = ["worker", "--name", name, "--data", &data, "--join", &self.token];
        let where_to = ["--store", &store, "--http", &http, "--admin-password", PASSWORD];
        let arguments = [&who[..], &where_to].concat();
        let process = match user {
            Some(user) => Limpet::start_as(*user, name, &arguments),
            None => Limpet::start(name, &arguments),
        };
        self.workers[index].process = Some(process);
    }

    /// Waits until each worker has its full share and serves its own gateways.
    pub async fn home(&self, gateways: &[Vec<Eui64>]) {
        let view = self.view();
        for (worker, gateways) in self.workers.iter().zip(gateways) {
            eventually(&format!("{} to have its full share", worker.name), async || {
                let servers = self.servers().await;
                servers.iter().any(|s| s.name == worker.name && s.state == "ready" && s.weight == 100).then_some(())
            })
            .await;
            let what = format!("{} to serve its gateways", worker.name);
            eventually(&what, async || view.serves_all(&worker.name, gateways).await.then_some(())).await;
        }
    }

    /// Waits until the balancer calls the worker ready.
    pub async fn ready(&mut self, index: usize) {
        let name = self.workers[index].name.clone();
        eventually(&format!("worker {name} to be ready"), async || {
            self.servers().await.into_iter().find(|server| server.name == name && server.state == "ready")
        })
        .await;
    }

    /// Waits until the worker is ready at every balancer.
    pub async fn linked(&self, index: usize) {
        let name = self.workers[index].name.clone();
        for edge in &self.edges {
            eventually(&format!("worker {name} to be ready at {}", edge.name), async || {
                // What the balancer itself sees, not what it is told.
                let shares = edge.shares(&self.client).await?;
                shares.contains(&name).then_some(())
            })
            .await;
        }
    }

    pub async fn servers(&self) -> Vec<Server> {
        match self.ask(&Request::Servers).await {
            Reply::Servers { servers } => servers,
            other => panic!("no list of servers: {other:?}"),
        }
    }

    /// `kill -9`.
    pub fn kill_worker(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let process = worker.process.take().unwrap();
        keep(&worker.name, &process);
        process.kill();
    }

    /// Where a worker serves its API.
    pub fn http(&self, index: usize) -> SocketAddr {
        self.workers[index].http
    }

    /// What a worker says of its readiness.
    pub async fn is_ready(&self, index: usize) -> bool {
        let url = format!("http://{}/readyz", self.workers[index].http);
        self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Processor time that the living processes have used so far.
    pub fn processor_time(&self) -> Duration {
        let workers = self.workers.iter().filter_map(|worker| worker.process.as_ref());
        let edges = self.edges.iter().filter_map(|edge| edge.process.as_ref());
        workers.chain(edges).map(Limpet::processor_time).sum()
    }

    /// The most memory that each living process has had, in MiB.
    pub fn peak_memory(&self) -> Vec<u64> {
        let workers = self.workers.iter().filter_map(|worker| worker.process.as_ref());
        let edges = self.edges.iter().filter_map(|edge| edge.process.as_ref());
        workers.chain(edges).map(Limpet::peak_memory).collect()
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate_worker(&mut self, index: usize) -> Stopped {
        let process = self.workers[index].process.take().unwrap();
        process.terminate();
        process.stopped().await
    }

    /// SIGTERM to the balancer, or to `up`, and waits for the end.
    pub async fn terminate_edge(&mut self) -> Stopped {
        self.edges[0].terminate().await
    }

    /// `kill -9` of the balancer, or of `up`.
    pub fn kill_edge(&mut self) {
        let process = self.edges[0].process.take().unwrap();
        keep("edge", &process);
        process.kill();
    }

    /// What `limpet ctl` asks: at the first balancer that runs.
    pub async fn ask(&self, request: &Request) -> Reply {
        let edge = self.edges.iter().find(|edge| edge.process.is_some()).expect("a balancer that runs");
        admin_socket::ask(&edge.data, request).await.unwrap()
    }

    /// What `limpet ctl` prints at the first server.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = ctl(&self.edges[0].data, arguments);
        assert!(output.status.success(), "limpet ctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks for something to be done.
    pub async fn done(&self, request: &Request) {
        match self.ask(request).await {
            Reply::Done { .. } => {}
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// The ring's choice.
    pub async fn ring(&self, gateway: Eui64) -> String {
        match self.ask(&Request::Ring { eui: Some(gateway) }).await {
            Reply::Ring(ring) => ring.worker.unwrap(),
            other => panic!("no ring: {other:?}"),
        }
    }

    /// How often the balancer took a worker for dead that was only silent for long: the machine had no time for it.
    pub fn ejections(&self, worker: &str) -> usize {
        let said = format!("worker=\"{worker}\" state=\"ejected\"");
        let lines = self.edges.iter().filter_map(|edge| Some(edge.process.as_ref()?.lines())).flatten();
        lines.filter(|line| line.contains(&said)).count()
    }

    /// For each worker, in order, so many EUIs that the ring gives it.
    pub async fn gateways_of_each(&self, each: usize) -> Vec<Vec<Eui64>> {
        let mut chosen = vec![Vec::new(); self.workers.len()];
        for number in 1.. {
            let gateway = Eui64(0x024c_5000_0000_0000 + number);
            let name = self.ring(gateway).await;
            let owner = self.workers.iter().position(|worker| worker.name == name).unwrap();
            if chosen[owner].len() < each {
                chosen[owner].push(gateway);
            }
            if chosen.iter().all(|gateways| gateways.len() == each) {
                break;
            }
        }
        chosen
    }

    pub fn view(&self) -> View {
        View { client: self.client.clone(), admin: self.edges[0].admin }
    }

    /// The value of a metric of the balancer, its labels summed up.
    pub async fn edge_metric(&self, name: &str) -> f64 {
        self.metric(self.edges[0].admin, name).await
    }

    /// The same of a worker.
    pub async fn worker_metric(&self, index: usize, name: &str) -> f64 {
        self.metric(self.workers[index].http, name).await
    }

    async fn metric(&self, address: SocketAddr, name: &str) -> f64 {
        // Not `sum`, which begins with -0.
        self.series(address, name).await.values().fold(0.0, |sum, value| sum + value)
    }

    /// A metric's values, by what stands in its braces.
    pub async fn series(&self, address: SocketAddr, name: &str) -> BTreeMap<String, f64> {
        let answer = self.client.get(format!("http://{address}/metrics")).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let of_it = text.lines().filter_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])));
        let value = |rest: &str| rest.rsplit_once(' ').and_then(|(of, value)| Some((of.into(), value.parse().ok()?)));
        of_it.filter_map(value).collect()
    }
}

/// What the balancer publishes about gateways.
#[derive(Clone)]
pub struct View {
    client: reqwest::Client,
    admin: SocketAddr,
}

impl View {
    async fn look(&self, gateway: Eui64) -> Option<serde_json::Value> {
        self.client.get(format!("http://{}/ring/{gateway}", self.admin)).send().await.ok()?.json().await.ok()
    }

    /// Who served the gateway when it was heard last; `None` if it was not heard, or nobody answers.
    pub async fn worker_of(&self, gateway: Eui64) -> Option<String> {
        self.look(gateway).await?["heard"]["worker"].as_str().map(str::to_owned)
    }

    /// Whether the worker serves all of these, as of the ring that is now.
    pub async fn serves_all(&self, worker: &str, gateways: &[Eui64]) -> bool {
        for gateway in gateways {
            let Some(view) = self.look(*gateway).await else { return false };
            let heard = &view["heard"];
            if heard["worker"] != worker || heard["epoch"] != view["ring"]["epoch"] {
                return false;
            }
        }
        true
    }
}

/// Keeps what a process wrote, if somebody wants to read it.
fn keep(name: &str, process: &Limpet) {
    let Ok(folder) = std::env::var("LIMPET_LOGS") else { return };
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let file = Path::new(&folder).join(format!("{stamp}-{name}.log"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(file, process.lines().join("\n")).unwrap();
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let edges = self.edges.iter().map(|edge| (edge.name, &edge.process));
        for (name, process) in self.workers.iter().map(|w| (&*w.name, &w.process)).chain(edges) {
            if let Some(process) = process {
                keep(name, process);
            }
        }
    }
}
