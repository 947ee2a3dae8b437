//! `limpet up`: a balancer and its workers in one process, which talk over the same link as they would apart.

use std::{io::IsTerminal, net::SocketAddr, sync::Arc, time::Duration};

use limpet_bench::simulate::{ApiAccess, Credentials, Pace, SimulateConfig, run_until};
use limpet_link::{Authority, time};
use limpet_shared::admin::Role;
use limpet_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Protocol::{Tcp, Udp},
    RoleError, authority, free, lock, nearby, say, stop_on_signals, until,
    wiring::{self, Place, RunningBalancer, RunningWorker},
};
use crate::config::Up;

/// The token of the printed line is good for so long, and for so many servers: such lines end up in journals.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const TOKEN_USES: u32 = 1;
/// Between two uplinks of a device of `--demo`.
const DEMO_INTERVAL: Duration = Duration::from_secs(10);

/// Runs everything until it is told to stop, or a part fails.
pub async fn run(config: Up) -> Result<(), RoleError> {
    let stop = stop_on_signals()?;
    let _lock = lock(&config.common.data)?;
    let edge = &config.edge;
    let ports = [(Udp, "gwmp", edge.gwmp), (Udp, "link", edge.link), (Tcp, "admin", edge.admin)];
    free(&[&ports[..], &[(Tcp, "http", config.processing.http)]].concat())?;
    let joining = authority(&config.common, &config.edge, config.join.as_ref());
    let Some(authority) = until(&stop, joining).await else { return Ok(()) };
    let authority = Arc::new(authority?);
    let Some(store) = until(&stop, wiring::open_store(&config.processing.store)).await else { return Ok(()) };
    let store = store?;
    let shared = store.is_shared();
    // The balancer stops first, while the workers still finish what it holds.
    let edge_stop = stop.child_token();
    let mut balancer =
        wiring::start_balancer(&config.common, config.edge.clone(), authority.clone(), edge_stop.clone()).await?;
    let worker_stop = CancellationToken::new();
    let mut workers = Vec::new();
    for number in 1..=config.workers {
        let starting = start_worker(&config, &authority, store.clone(), (number, &balancer), &worker_stop);
        match until(&stop, starting).await {
            Some(Ok(worker)) => {
                // Only the first one's matters: any worker's API is as good.
                let _ = balancer.worker.set(worker.api.clone());
                workers.push(worker);
            }
            // Those that are there have frames already.
            Some(Err(error)) => return wind_down(Err(error), (balancer, edge_stop), (workers, worker_stop)).await,
            None => return wind_down(Ok(()), (balancer, edge_stop), (workers, worker_stop)).await,
        }
    }
    say(&welcome(&config, &balancer, &workers, shared).await?.told(config.common.log_json));
    let demo = if config.demo { demo(&config, &balancer, &workers, stop.clone()) } else { None };
    let outcome = until_one_ends(&mut balancer, &mut workers).await;
    drop(demo);
    wind_down(outcome, (balancer, edge_stop), (workers, worker_stop)).await
}

/// The balancer first, then the workers, which drain. The first failure counts.
async fn wind_down(
    outcome: Result<(), RoleError>,
    (mut balancer, edge_stop): (RunningBalancer, CancellationToken),
    (workers, worker_stop): (Vec<RunningWorker>, CancellationToken),
) -> Result<(), RoleError> {
    edge_stop.cancel();
    let edge_ended = balancer.ended().await;
    worker_stop.cancel();
    let mut worst = outcome.and(edge_ended);
    for mut worker in workers {
        worst = worst.and(worker.ended().await);
    }
    worst
}

async fn start_worker(
    config: &Up,
    authority: &Authority,
    store: Arc<dyn Store>,
    (number, balancer): (u32, &RunningBalancer),
    stop: &CancellationToken,
) -> Result<RunningWorker, RoleError> {
    let name = format!("{}-{number}", config.common.name);
    let folder = config.common.data.join("identity").join(&name);
    let identity = authority.identity(&folder, &name, Role::Worker)?;
    let place = Place {
        identity,
        folder,
        balancers: [nearby(balancer.link).to_string()].into_iter().chain(config.balancers.iter().cloned()).collect(),
        with_balancer: number == 1,
        combined: true,
        gwmp: Some(balancer.gwmp.to_string()),
    };
    // One API is enough for one process.
    let http = (number == 1).then_some(config.processing.http);
    wiring::start_worker(&config.common, &config.processing, store, http, place, stop.clone()).await
}

/// Virtual gateways and devices that play against this server until the result is dropped.
fn demo(config: &Up, balancer: &RunningBalancer, workers: &[RunningWorker], stop: CancellationToken) -> Option<Demo> {
    let first = workers.first()?;
    let given = config.common.admin_password.as_ref().map(|password| password.0.as_str());
    let (Some(http), Some(password)) = (first.http, first.login().or(given)) else {
        tracing::warn!(
            "no demo: its devices are added over the API, and that needs --admin-password after the first start"
        );
        return None;
    };
    let credentials = Credentials::Password { user: "admin".into(), password: password.to_owned() };
    let plan = SimulateConfig {
        server: nearby(balancer.gwmp).to_string(),
        api: Some(ApiAccess { url: format!("http://{}", nearby(http)), credentials }),
        uplinks: u32::MAX,
        pace: Pace::Interval(DEMO_INTERVAL),
        region: config.processing.regions.first().cloned().unwrap_or_else(|| "eu868".into()),
        // The same gateways and devices at each start.
        seed: Some(1),
        ..SimulateConfig::default()
    };
    Some(Demo(tokio::spawn(async move {
        if let Err(error) = run_until(plan, |_| {}, stop.cancelled_owned()).await {
            tracing::warn!(%error, "the demo has ended");
        }
    })))
}

struct Demo(JoinHandle<()>);

impl Drop for Demo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for the first part to end: the balancer by a signal, anything else by a failure.
async fn until_one_ends(balancer: &mut RunningBalancer, workers: &mut [RunningWorker]) -> Result<(), RoleError> {
    let any_worker = std::future::poll_fn(|context| {
        for worker in workers.iter_mut() {
            if let std::task::Poll::Ready(ended) = worker.poll_ended(context) {
                return std::task::Poll::Ready(ended);
            }
        }
        std::task::Poll::Pending
    });
    tokio::select! {
        ended = balancer.ended() => ended,
        ended = any_worker => ended,
    }
}

/// What is told when everything runs: where it is, how to get in, how to grow.
struct Welcome {
    console: String,
    login: String,
    gwmp: SocketAddr,
    metrics: String,
    /// How a worker is added: for whom, and the line.
    worker: (String, String),
    hints: Vec<&'static str>,
}

async fn welcome(
    config: &Up,
    balancer: &RunningBalancer,
    workers: &[RunningWorker],
    shared: bool,
) -> Result<Welcome, RoleError> {
    let first = workers.first();
    let http = first.and_then(|worker| worker.http);
    let login = match first {
        Some(worker) if worker.login().is_some() => {
            format!("admin / {} (this password is not shown again)", worker.login().unwrap_or_default())
        }
        Some(worker) if worker.new_admin => "admin / the password that was given".into(),
        _ => "admin / the password of the first start".into(),
    };
    let mut hints = Vec::new();
    if !shared {
        hints.push("Servers on other machines need a shared store (--store cql://...): SQLite is for one machine.");
    }
    if config.processing.http.ip().is_loopback() {
        hints.push("The console answers this machine only; --http 0.0.0.0:8080 opens it to others.");
    }
    Ok(Welcome {
        console: http.map_or_else(|| "none".into(), |at| format!("http://{}", nearby(at))),
        login,
        gwmp: balancer.gwmp,
        metrics: format!("http://{}/metrics", nearby(balancer.admin)),
        worker: growing(config, balancer).await?,
        hints,
    })
}

impl Welcome {
    /// A text for people, or a line for programs that read the log.
    fn told(&self, json: bool) -> String {
        let Self { console, login, gwmp, metrics, worker: (about, line), hints } = self;
        if json {
            let document = serde_json::json!({
                "message": "Limpet is running", "console": console, "log_in": login, "gateways": gwmp,
                "metrics": metrics, "add_worker": line, "hints": hints,
            });
            return format!("{document}\n");
        }
        let mut text = format!(
            "Limpet is running.\n\n  \
             console   {console}\n  \
             log in    {login}\n  \
             gateways  GWMP (Semtech UDP) on {gwmp}\n  \
             metrics   {metrics}\n\n\
             To add a worker on this machine{about}:\n\n  {line}\n\n"
        );
        hints.iter().for_each(|hint| text.extend([hint, "\n"]));
        text
    }
}

/// The line that adds a worker, and what there is to say about it. A token in it is for eyes at a terminal only: anywhere
/// else it would be kept.
async fn growing(config: &Up, balancer: &RunningBalancer) -> Result<(String, String), RoleError> {
    let line = wiring::join_line(&config.common, &config.processing)?;
    if !std::io::stdout().is_terminal() {
        let password = if line.hides_password() { ", with the store's password in place of PASSWORD" } else { "" };
        return Ok((password.into(), line.asking()));
    }
    let (token, expires_at) = balancer.join_token(TOKEN_LIFE, TOKEN_USES).await?;
    let until = time::rfc3339(expires_at);
    Ok((format!(" (good until {until} for one worker; more with `limpet ctl join-token`)"), line.here(&token)))
}
