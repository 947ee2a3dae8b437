//! Servers of Limpet as they are run in production, each a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Outcome, Plan,
    process::{Folder, Process, Spent, Trace, Used, free_addresses, last_line},
};

pub const PASSWORD: &str = "limpet-cost";
/// How long a server may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];

/// A balancer and its workers.
pub struct Servers {
    pub gwmp: SocketAddr,
    /// Of the first worker.
    pub http: SocketAddr,
    pub balancer: Process,
    pub workers: Vec<Process>,
    /// Lets workers in.
    pub token: String,
    // Last: the processes are gone before their folder.
    folder: Folder,
}

impl Servers {
    pub async fn balancer(plan: &Plan) -> Outcome<Self> {
        let folder = Folder::new(&plan.target, "servers")?;
        let [gwmp, link, admin] = free_addresses()?;
        let addresses = [gwmp, link, admin].map(|address| address.to_string());
        let data = folder.path().join("balancer");
        let mut command = Command::new(&plan.limpet);
        command.args(["balancer", "--name", "edge", "--gwmp", &addresses[0], "--link", &addresses[1]]);
        command.args(["--advertise", &addresses[1], "--admin", &addresses[2], "--data"]).arg(&data);
        let balancer = Process::start("balancer", &mut command, &folder.path().join("balancer.log"))?;
        until_answered(admin, "/healthz").await?;
        let mut ctl = Command::new(&plan.limpet);
        ctl.args(["ctl", "join-token", "--uses", "10", "--role", "worker", "--data"]).arg(&data);
        let token = last_line(&mut ctl)?;
        Ok(Self { gwmp, http: admin, balancer, workers: Vec::new(), token, folder })
    }

    /// With so many workers on the store of this URL; without one, on a file.
    pub async fn start(plan: &Plan, workers: usize, store: Option<&str>) -> Outcome<Self> {
        let mut servers = Self::balancer(plan).await?;
        let file = format!("sqlite:{}", servers.folder.path().join("store").display());
        for name in WORKERS.iter().take(workers) {
            let [http] = free_addresses()?;
            let mut command = Command::new(&plan.limpet);
            command.args(["worker", "--name", name, "--join", &servers.token, "--store", store.unwrap_or(&file)]);
            command.args(["--http", &http.to_string(), "--admin-password", PASSWORD, "--data"]);
            command.arg(servers.folder.path().join(name));
            let process = Process::start(name, &mut command, &servers.folder.path().join(name).with_extension("log"))?;
            until_answered(http, "/readyz").await?;
            if servers.workers.is_empty() {
                servers.http = http;
            }
            servers.workers.push(process);
        }
        Ok(servers)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn used(&self) -> Outcome<Vec<Used>> {
        std::iter::once(&self.balancer).chain(&self.workers).map(Process::used).collect()
    }

    /// The balancer's share and that of all workers.
    pub fn since(&self, before: &[Used]) -> Outcome<[Spent; 2]> {
        let mut spent = [Spent::default(); 2];
        for (number, (process, before)) in std::iter::once(&self.balancer).chain(&self.workers).zip(before).enumerate()
        {
            let [balancer, workers] = &mut spent;
            let part = if number == 0 { balancer } else { workers };
            *part = *part + process.since(before)?;
        }
        Ok(spent)
    }

    /// Counts system calls of all of them.
    pub fn trace(&self) -> Option<Vec<Trace>> {
        std::iter::once(&self.balancer).chain(&self.workers).map(Process::trace).collect()
    }
}

/// Everything in one process.
pub struct Up {
    pub process: Process,
    _folder: Folder,
}

impl Up {
    pub async fn start(plan: &Plan) -> Outcome<Self> {
        let folder = Folder::new(&plan.target, "up")?;
        let [gwmp, link, admin, http] = free_addresses()?;
        let data: PathBuf = folder.path().join("up");
        let mut command = Command::new(&plan.limpet);
        command.args(["up", "--gwmp", &gwmp.to_string(), "--link", &link.to_string(), "--admin", &admin.to_string()]);
        command.args(["--http", &http.to_string(), "--admin-password", PASSWORD, "--data"]).arg(data);
        let process = Process::start("up", &mut command, &folder.path().join("up.log"))?;
        until_answered(http, "/readyz").await?;
        Ok(Self { process, _folder: folder })
    }
}

/// Until this page says that all is well.
async fn until_answered(address: SocketAddr, path: &str) -> Outcome<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if get(address, path).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("http://{address}{path} is not well after {PATIENCE:?}").into())
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
