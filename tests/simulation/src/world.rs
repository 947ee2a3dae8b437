//! One run: servers are started, live, die and come back as the plan says.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_balancer::{BalancerConfig, BoundBalancer};
use limpet_console::JoinLine;
use limpet_link::{Authority, host};
use limpet_shared::{AesKey, admin::Role, region::Region};
use limpet_store::{SqliteStore, Store, fault::FaultStore, fault::Faults};
use limpet_worker::{DEFAULT_REPLY_DELAY, WorkerConfig};
use limpet_worker_core::{
    model::*,
    session::{Personalization, personalized},
};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    check::{Told, Violation, check},
    field::{Field, Seen, dev_eui, gateway_eui, keys},
    machine::{BEGIN, Machine, Process, TICK},
    net::{Network, Sent},
    plan::{END, Plan, Trouble, UPLINKS_END, bad_store},
    responder::Responder,
    system,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub seen: Seen,
    pub told: Told,
    /// Uplinks whose answers an application enqueued in time.
    pub replied: usize,
    /// Every datagram that was sent.
    pub wire: Vec<Sent>,
    /// What happened, for people.
    pub trace: Vec<String>,
}

struct World {
    plan: Plan,
    network: Network,
    responder: Arc<Responder>,
    store: Arc<SqliteStore>,
    folder: tempfile::TempDir,
    balancers: Vec<Server>,
    workers: Vec<Server>,
    authority: Arc<Authority>,
    trace: Vec<String>,
}

/// A machine, and its process if it runs.
struct Server {
    machine: Arc<Machine>,
    process: Option<Process>,
    /// A worker's view of the store, of its last start.
    view: Option<Arc<FaultStore>>,
    bad_store: bool,
    /// It has ended by itself: whoever supervises it starts it again.
    ended: Arc<AtomicBool>,
}

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> std::result::Result<Outcome, String> {
    static WARM: Once = Once::new();
    // Libraries fill tables of their own when they are first used. That must not be in one run and not in another.
    WARM.call_once(|| drop(run_apart(&Plan::of(0))));
    run_apart(plan)
}

/// On a thread of its own: with it goes whatever libraries keep for a thread.
fn run_apart(plan: &Plan) -> std::result::Result<Outcome, String> {
    std::thread::scope(|scope| {
        let seed = plan.seed;
        let run = move || {
            system::simulate(seed);
            run_here(plan).map_err(|error| error.to_string())
        };
        let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn_scoped(scope, run);
        let ended = thread.map_err(|error| error.to_string())?.join();
        ended.unwrap_or_else(|_| Err(format!("seed {seed}: a panic")))
    })
}

fn run_here(plan: &Plan) -> Result<Outcome> {
    let mut world = World::new(plan.clone())?;
    let edges: Vec<SocketAddr> = world.balancers.iter().map(|b| SocketAddr::new(b.machine.ip, 1700)).collect();
    let mut field = Field::new(&world.network, plan.seed, (plan.gateways, plan.devices), &edges, UPLINKS_END)?;
    (0..plan.balancers).try_for_each(|index| world.start_balancer(index))?;
    (0..plan.workers).try_for_each(|index| world.start_worker(index))?;
    let mut order = SmallRng::seed_from_u64(plan.seed ^ 0x5eed);
    let mut troubles = plan.troubles.iter().peekable();
    let mut items = plan.items.iter().enumerate().peekable();
    let mut now = Duration::ZERO;
    while now < END {
        now += TICK;
        let woken = world.network.advance(now);
        while let Some((_, trouble)) = troubles.next_if(|(at, _)| *at <= now) {
            world.happen(now, *trouble)?;
        }
        while let Some((number, (_, device))) = items.next_if(|(_, (at, _))| *at <= now) {
            enqueue(&*world.store, number, *device)?;
        }
        world.supervise(now)?;
        field.tick(now);
        let mut processes: Vec<&mut Process> =
            world.balancers.iter_mut().chain(&mut world.workers).filter_map(|s| s.process.as_mut()).collect();
        processes.shuffle(&mut order);
        processes.into_iter().for_each(|process| process.tick(&woken));
    }
    let (told, replied) = (world.responder.told.lock().clone(), world.responder.replied.lock().clone());
    let violations = check(&field.seen, &told, &replied, plan.troubles.is_empty());
    let (replied, wire) = (replied.len(), world.network.wire());
    Ok(Outcome { violations, seen: field.seen, told, replied, wire, trace: world.trace })
}

impl World {
    fn new(plan: Plan) -> Result<Self> {
        let network = Network::new(plan.seed);
        let folder = tempfile::tempdir()?;
        let machine = |net: u8, index: usize, clock: usize| {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, net, u8::try_from(index + 1).unwrap_or(255)));
            let clock = plan.clocks.get(clock).copied().unwrap_or_default();
            let seed = plan.seed.wrapping_mul(31) ^ u64::from(net) << 32 ^ index as u64;
            let machine = Machine::new(ip, network.clone(), seed, clock, plan.broken);
            Server { machine, process: None, view: None, bad_store: false, ended: Arc::default() }
        };
        let workers: Vec<Server> = (0..plan.workers).map(|index| machine(2, index, index)).collect();
        let balancers: Vec<Server> = (0..plan.balancers).map(|index| machine(1, index, plan.workers + index)).collect();
        let first = balancers.first().ok_or("a balancer at least")?;
        first.machine.enter();
        let authority = Authority::open(&folder.path().join("balancer-0").join("cluster"))?;
        host::simulate(None);
        let store = SqliteStore::in_memory()?;
        provision(&*store, &plan)?;
        // What waits in a queue goes before an answer.
        let answers = (0..plan.devices).filter(|device| plan.items.iter().all(|(_, of)| of != device)).collect();
        let responder = Arc::new(Responder::new(network.clone(), answers));
        let authority = Arc::new(authority);
        Ok(Self { plan, network, responder, store, folder, balancers, workers, authority, trace: Vec::new() })
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_balancer(&mut self, index: usize) -> Result<()> {
        let name = format!("balancer-{index}");
        let data = self.data(&name);
        let Some(server) = self.balancers.get_mut(index) else { return Ok(()) };
        server.machine.enter();
        let cluster = data.join("cluster");
        let authority = match Authority::load(&cluster)? {
            Some(authority) => authority,
            None => Authority::install(&cluster, self.authority.keys())?,
        };
        host::simulate(None);
        let mut config = BalancerConfig::new(name, data);
        config.gwmp = SocketAddr::new(server.machine.ip, 1700);
        config.link = SocketAddr::new(server.machine.ip, 1701);
        config.admin = None;
        server.process = Some(Process::start(server.machine.clone(), async move {
            match BoundBalancer::bind(config, Arc::new(authority)).await {
                Ok(balancer) => balancer.run(CancellationToken::new()).await,
                Err(error) => eprintln!("a balancer did not start: {error}"),
            }
        })?);
        Ok(())
    }

    fn start_worker(&mut self, index: usize) -> Result<()> {
        let name = format!("worker-{index}");
        let data = self.data(&name);
        let balancers = self.balancers.iter().map(|b| SocketAddr::new(b.machine.ip, 1701).to_string()).collect();
        let Some(server) = self.workers.get_mut(index) else { return Ok(()) };
        server.machine.enter();
        let identity = self.authority.identity(&data, &name, Role::Worker)?;
        host::simulate(None);
        let faults = if server.bad_store { bad_store() } else { Faults::default() };
        let view = FaultStore::new(self.store.clone(), self.plan.seed ^ index as u64, faults);
        server.view = Some(view.clone());
        let ended = Arc::new(AtomicBool::new(false));
        server.ended = ended.clone();
        let (starts, started) = oneshot::channel();
        let config = WorkerConfig {
            identity,
            identity_folder: data.clone(),
            balancers,
            store: view,
            deliver: self.responder.clone(),
            http: None,
            regions: Region::by_name("eu868").into_iter().collect(),
            weight: 100,
            admin_password: None,
            net_id: 0,
            reply_delay: DEFAULT_REPLY_DELAY,
            accept_unknown_gateways: false,
            sweep_at_start: false,
            combined: false,
            gwmp: None,
            trusted_proxies: Default::default(),
            join: JoinLine::new("sqlite:simulated", &data)?,
            started: Some(starts),
        };
        let client = self.responder.clone().client(started);
        server.process = Some(Process::start(server.machine.clone(), async move {
            tokio::spawn(client);
            if limpet_worker::run(config, CancellationToken::new()).await.is_err() {
                ended.store(true, Ordering::Relaxed);
            }
        })?);
        Ok(())
    }

    /// Starts workers again that have ended by themselves, as their service manager does.
    fn supervise(&mut self, now: Duration) -> Result<()> {
        let ended = |server: &Server| server.process.is_some() && server.ended.swap(false, Ordering::Relaxed);
        let ended: Vec<usize> =
            self.workers.iter().enumerate().filter_map(|(index, server)| ended(server).then_some(index)).collect();
        for index in ended {
            self.trace.push(format!(
                "{:>9.3} s  worker {index} has ended by itself, and is started again",
                now.as_secs_f64()
            ));
            kill(&mut self.workers, index);
            self.start_worker(index)?;
        }
        Ok(())
    }

    fn happen(&mut self, now: Duration, trouble: Trouble) -> Result<()> {
        self.trace.push(format!("{:>9.3} s  {trouble:?}", now.as_secs_f64()));
        let process = |servers: &mut Vec<Server>, index: usize, paused: bool| {
            if let Some(process) = servers.get_mut(index).and_then(|server| server.process.as_mut()) {
                process.paused = paused;
            }
        };
        match trouble {
            Trouble::KillWorker(index) => kill(&mut self.workers, index),
            Trouble::KillBalancer(index) => kill(&mut self.balancers, index),
            Trouble::StartWorker(index) if self.workers.get(index).is_some_and(|s| s.process.is_none()) => {
                self.start_worker(index)?;
            }
            Trouble::StartBalancer(index) if self.balancers.get(index).is_some_and(|s| s.process.is_none()) => {
                self.start_balancer(index)?;
            }
            Trouble::StartWorker(_) | Trouble::StartBalancer(_) => {}
            Trouble::PauseWorker(index) => process(&mut self.workers, index, true),
            Trouble::ResumeWorker(index) => process(&mut self.workers, index, false),
            Trouble::PauseBalancer(index) => process(&mut self.balancers, index, true),
            Trouble::ResumeBalancer(index) => process(&mut self.balancers, index, false),
            Trouble::Cut(balancer, worker) | Trouble::Mend(balancer, worker) => {
                let cut = matches!(trouble, Trouble::Cut(..));
                if let (Some(one), Some(other)) = (self.balancers.get(balancer), self.workers.get(worker)) {
                    self.network.cut(one.machine.ip, other.machine.ip, cut);
                }
            }
            Trouble::Storm(weathers) => self.network.set_weather(weathers.weather()),
            Trouble::Store(index, bad) => {
                if let Some(server) = self.workers.get_mut(index) {
                    server.bad_store = bad;
                    let faults = if bad { bad_store() } else { Faults::default() };
                    server.view.iter().for_each(|view| view.set_faults(faults));
                }
            }
            Trouble::WebhookAway(away) => self.responder.away.store(away, Ordering::Relaxed),
            Trouble::WebhookMute(mute) => self.responder.mute.store(mute, Ordering::Relaxed),
            Trouble::StepClock(index, millis) => {
                if let Some(server) = self.workers.iter().chain(&self.balancers).nth(index) {
                    server.machine.step_clock(millis * 1_000);
                }
            }
        }
        Ok(())
    }
}

fn kill(servers: &mut [Server], index: usize) {
    if let Some(server) = servers.get_mut(index) {
        server.process = None;
    }
}

/// What an application asks the API for.
fn enqueue(store: &dyn Store, number: usize, device: usize) -> Result<()> {
    let data = format!("item {number}").into_bytes();
    let item =
        QueueItem { dev_eui: dev_eui(device), id: format!("item-{number}"), fport: 5, data, ..QueueItem::default() };
    apart()?.block_on(store.enqueue(item))?;
    Ok(())
}

/// For what is done from outside.
fn apart() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_time().start_paused(true).build()
}

/// A network with gateways and devices, activated by personalisation.
fn provision(store: &dyn Store, plan: &Plan) -> Result<()> {
    apart()?.block_on(async {
        // Somebody has set it up: hashing a password takes longer than all the rest of a start.
        store.init_setting("first_start_done", b"yes").await?;
        let (tenant, application, profile) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        store.create_tenant(&Tenant { id: tenant, name: "t".into(), ..Tenant::default() }).await?;
        let http = Some(HttpIntegration { json: true, url: "http://[::1]:1/".into(), ..HttpIntegration::default() });
        let application =
            Application { id: application, tenant_id: tenant, name: "a".into(), http, ..Application::default() };
        store.create_application(&application).await?;
        let profile = DeviceProfile {
            id: profile,
            tenant_id: tenant,
            name: "p".into(),
            region: "EU868".into(),
            ..Default::default()
        };
        store.create_device_profile(&profile).await?;
        for index in 0..plan.devices {
            let device = Device {
                dev_eui: dev_eui(index),
                application_id: application.id,
                device_profile_id: profile.id,
                name: format!("device {index}"),
                app_key: Some(AesKey([9; 16])),
                ..Device::default()
            };
            store.create_device(&device).await?;
            let (dev_addr, keys) = keys(index);
            let abp = Personalization {
                dev_eui: dev_eui(index),
                dev_addr,
                keys: SessionKeys { nwk_s_key: keys.nwk_s_key, app_s_key: keys.app_s_key },
                fcnt_up: 0,
                fcnt_down: 0,
                queue_done: 0,
            };
            let region = Region::by_name("eu868").ok_or("a region")?;
            let mut session = personalized(&abp, &profile, region, 1, BEGIN - Duration::from_secs(60));
            session.mac.channels_set = true;
            store.create_session(&session).await?;
            let current = Some(CurrentSession { key: session.key, since: session.since, dev_nonce: None });
            store.commit_join(&DeviceState { rev: 1, current, ..DeviceState::new(dev_eui(index)) }, None).await?;
        }
        for index in 0..plan.gateways {
            let gateway = Gateway {
                eui: gateway_eui(index),
                tenant_id: tenant,
                name: format!("gateway {index}"),
                ..Gateway::default()
            };
            store.create_gateway(&gateway).await?;
        }
        Ok(())
    })
}
