//! Machines with their processes: how they are started and end, and what an operator asks of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use limpet_balancer::{AdminHandle, BalancerConfig, BoundBalancer};
use limpet_console::JoinLine;
use limpet_link::{Authority, host};
use limpet_shared::{
    admin::{Reply, Request, Role},
    region::Region,
};
use limpet_store::SqliteStore;
use limpet_store_testing::fault::FaultStore;
use limpet_worker::WorkerConfig;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{RESTART_AFTER, Result, World, endpoint::Endpoints, provision};
use crate::{
    field::gateway_eui,
    machine::{Machine, Process},
    net::Network,
    plan::{Mood, Plan},
    seen::{Ask, Look, Trace},
};

/// When a worker was drained, or no more; by name.
pub type Drains = Arc<Mutex<Vec<(Duration, String, bool)>>>;

/// A machine, and its process if it runs.
pub struct Server {
    pub machine: Arc<Machine>,
    pub process: Option<Process>,
    name: String,
    /// A worker's view of the store, of its last start.
    view: Option<Arc<FaultStore>>,
    pub mood: Mood,
    stop: CancellationToken,
    /// How it has ended by itself, if it has.
    ended: Arc<Mutex<Option<bool>>>,
    /// Whoever supervises it starts it again then.
    start_at: Option<Duration>,
    /// An operator has taken it out of the cluster.
    removed: bool,
    /// A balancer's door for operators.
    door: Arc<Mutex<Option<AdminHandle>>>,
    runs: usize,
}

impl World {
    pub(super) fn new(plan: Plan) -> Result<Self> {
        let (network, trace) = (Network::new(plan.seed), Trace::default());
        // In memory, where there is such a place: nothing here is for long.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let machine = |role: &str, net: u8, index: usize, clock: usize| {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, net, u8::try_from(index + 1).unwrap_or(255)));
            let clock = plan.clocks.get(clock).copied().unwrap_or_default();
            let seed = plan.seed.wrapping_mul(31) ^ u64::from(net) << 32 ^ index as u64;
            let (view, ended, start_at, door) = Default::default();
            Server {
                machine: Machine::new(ip, network.clone(), seed, clock, plan.broken),
                process: None,
                name: format!("{role}-{index}"),
                view,
                mood: Mood::Well,
                stop: CancellationToken::new(),
                ended,
                start_at,
                removed: false,
                door,
                runs: 0,
            }
        };
        let count = plan.workers + plan.spares;
        let workers: Vec<Server> = (0..count).map(|index| machine("worker", 2, index, index)).collect();
        let balancers: Vec<Server> =
            (0..plan.balancers).map(|index| machine("balancer", 1, index, count + index)).collect();
        balancers.first().ok_or("a balancer at least")?.machine.enter();
        let authority = Arc::new(Authority::open(&folder.path().join("balancer-0").join("cluster"))?);
        host::simulate(None);
        let store = SqliteStore::in_memory()?;
        provision::network(&*store, &plan)?;
        let endpoints = Arc::new(Endpoints::new(network.clone(), trace.clone(), &plan));
        let (looks, asks, drains, items, troubled_until) = Default::default();
        Ok(Self {
            plan,
            network,
            endpoints,
            store,
            folder,
            balancers,
            workers,
            authority,
            looks,
            asks,
            drains,
            disk_full: false,
            items,
            troubled_until,
            trace,
        })
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Unless it runs.
    pub(super) fn start_balancer(&mut self, index: usize) -> Result<()> {
        let data = self.data(&format!("balancer-{index}"));
        let Some(server) = self.balancers.get_mut(index).filter(|server| server.process.is_none()) else {
            return Ok(());
        };
        server.machine.enter();
        let cluster = data.join("cluster");
        let authority = match Authority::load(&cluster)? {
            Some(authority) => authority,
            None => Authority::install(&cluster, self.authority.keys())?,
        };
        host::simulate(None);
        let mut config = BalancerConfig::new(server.name.clone(), data);
        config.gwmp = SocketAddr::new(server.machine.ip, 1700);
        config.link = SocketAddr::new(server.machine.ip, 1701);
        config.admin = None;
        server.runs += 1;
        server.door = Arc::default();
        let door = server.door.clone();
        server.process = Some(Process::start(server.machine.clone(), async move {
            match BoundBalancer::bind(config, Arc::new(authority)).await {
                Ok(balancer) => {
                    *door.lock() = Some(balancer.admin_handle());
                    balancer.run(CancellationToken::new()).await;
                }
                Err(error) => eprintln!("a balancer did not start: {error}"),
            }
        })?);
        Ok(())
    }

    /// Unless it runs, or was taken out.
    pub(super) fn start_worker(&mut self, index: usize) -> Result<()> {
        let data = self.data(&format!("worker-{index}"));
        let balancers = self.balancers.iter().map(|b| SocketAddr::new(b.machine.ip, 1701).to_string()).collect();
        let (delay, full) = (self.plan.store_delay, self.disk_full);
        let Some(server) = self.workers.get_mut(index).filter(|s| s.process.is_none() && !s.removed) else {
            return Ok(());
        };
        server.machine.enter();
        let identity = self.authority.identity(&data, &server.name, Role::Worker)?;
        host::simulate(None);
        let seed = self.plan.seed ^ index as u64 ^ (server.runs as u64) << 32;
        let view = FaultStore::new(self.store.clone(), seed, server.mood.faults(delay));
        view.set_full(full);
        server.view = Some(view.clone());
        (server.stop, server.ended, server.start_at) = (CancellationToken::new(), Arc::default(), None);
        server.runs += 1;
        let (starts, started) = oneshot::channel();
        let config = WorkerConfig {
            identity,
            identity_folder: data.clone(),
            balancers,
            store: view,
            deliver: self.endpoints.clone(),
            codecs: Default::default(),
            http: None,
            regions: Region::by_name("eu868").into_iter().collect(),
            weight: 100,
            admin_password: None,
            reply_delay: None,
            accept_unknown_gateways: false,
            sweep_at_start: false,
            combined: false,
            gwmp: None,
            trusted_proxies: Default::default(),
            join: JoinLine::new("sqlite:simulated", &data)?,
            started: Some(starts),
        };
        let (ended, stop) = (server.ended.clone(), server.stop.clone());
        let client = self.endpoints.clone().client(started);
        server.process = Some(Process::start(server.machine.clone(), async move {
            tokio::spawn(client);
            let well = limpet_worker::run(config, stop).await.is_ok();
            *ended.lock() = Some(well);
        })?);
        Ok(())
    }

    pub(super) fn stop_worker(&mut self, index: usize) {
        self.workers.get(index).into_iter().for_each(|server| server.stop.cancel());
    }

    /// A worker that has ended by itself, or was killed by its store, is started again, as its service manager does.
    pub(super) fn supervise(&mut self, now: Duration) -> Result<()> {
        let mut due = Vec::new();
        for (index, server) in self.workers.iter_mut().enumerate() {
            let ended = server.ended.lock().take();
            let died = server.process.is_some() && server.view.as_ref().is_some_and(|view| view.has_crashed());
            if ended.is_some() || died {
                let how = if died { "has died after a write" } else { "has ended by itself" };
                self.trace.say(now, format!("worker {index} {how}"));
                server.process = None;
                server.start_at = (died || ended == Some(false)).then_some(now + RESTART_AFTER);
            }
            if server.start_at.is_some_and(|at| at <= now) {
                server.start_at = None;
                due.push(index);
            }
        }
        due.into_iter().try_for_each(|index| self.start_worker(index))
    }

    pub(super) fn set_faults(&mut self) {
        let (delay, full) = (self.plan.store_delay, self.disk_full);
        for server in &self.workers {
            if let Some(view) = &server.view {
                view.set_faults(server.mood.faults(delay));
                view.set_full(full);
            }
        }
    }

    /// Asks every balancer for its ring, and for each gateway's worker; and notes what workers have asked of the store.
    pub(super) fn look(&mut self, now: Duration) {
        let views =
            self.workers.iter().enumerate().filter_map(|(worker, server)| Some((worker, server.view.as_ref()?)));
        self.asks.extend(views.map(|(worker, view)| Ask { at: now, worker, asked: view.asked() }));
        for (index, server) in self.balancers.iter().enumerate() {
            let (Some(process), Some(door)) = (&server.process, server.door.lock().clone()) else { continue };
            if process.paused {
                continue;
            }
            let (looks, gateways, run) = (self.looks.clone(), self.plan.gateways.len(), server.runs);
            let trace = self.trace.clone();
            process.spawn(async move {
                let (mut workers, mut choices) = (BTreeMap::new(), Vec::new());
                for gateway in 0..gateways {
                    let request = Request::Ring { eui: Some(gateway_eui(gateway)) };
                    let Reply::Ring(ring) = door.ask_here(request).await else { return };
                    let now = ring.workers.into_iter().map(|worker| (worker.name, worker.weight)).collect();
                    // The ring has changed between two questions.
                    if gateway > 0 && now != workers {
                        return;
                    }
                    workers = now;
                    choices.push(ring.worker);
                }
                let mut looks = looks.lock();
                let before = looks.iter().rev().find(|look| look.balancer == index);
                if before.is_none_or(|before| before.workers != workers) {
                    trace.say(now, format!("balancer {index} has this ring: {workers:?}"));
                }
                looks.push(Look { at: now, balancer: index, run, workers, choices });
            });
        }
    }

    /// At whichever balancer is there.
    fn ask(&self, request: Request, then: impl FnOnce(Reply) + Send + 'static) {
        let there = |server: &&Server| server.process.as_ref().is_some_and(|process| !process.paused);
        let Some(server) = self.balancers.iter().find(there) else { return };
        if let (Some(process), Some(door)) = (&server.process, server.door.lock().clone()) {
            process.spawn(async move { then(door.ask(request).await) });
        }
    }

    pub(super) fn drain(&self, now: Duration, index: usize, on: bool) {
        let Some(name) = self.workers.get(index).map(|server| server.name.clone()) else { return };
        let drains = self.drains.clone();
        let request = Request::Drain { name: name.clone(), on, by: String::new(), sure: true };
        self.ask(request, move |reply| {
            if matches!(reply, Reply::Done { .. }) {
                drains.lock().push((now, name, on));
            }
        });
    }

    /// No balancer is left that knows of it, nor the worker itself.
    pub(super) fn forget_drains(&self, now: Duration) {
        if self.balancers.iter().any(|balancer| balancer.process.is_some()) {
            return;
        }
        let mut drains = self.drains.lock();
        for dead in self.workers.iter().filter(|worker| worker.process.is_none()) {
            let drains_now = drains.iter().rfind(|(_, name, _)| *name == dead.name).is_some_and(|(.., on)| *on);
            drains.extend(drains_now.then(|| (now, dead.name.clone(), false)));
        }
    }

    pub(super) fn remove_worker(&mut self, index: usize) {
        let Some(server) = self.workers.get_mut(index) else { return };
        server.removed = true;
        let request = Request::Remove { name: server.name.clone(), by: String::new(), sure: true };
        self.ask(request, drop);
    }
}

/// `kill -9`.
pub fn kill(servers: &mut [Server], index: usize) {
    servers.get_mut(index).into_iter().for_each(|server| server.process = None);
}

/// SIGSTOP, or SIGCONT.
pub fn pause(servers: &mut [Server], index: usize, paused: bool) {
    let process = servers.get_mut(index).and_then(|server| server.process.as_mut());
    process.into_iter().for_each(|process| process.paused = paused);
}
