//! One run: servers are started, live, die and come back as the plan says.

mod endpoint;
mod panics;
mod provision;
mod servers;

use std::{
    collections::BTreeSet,
    error::Error,
    net::SocketAddr,
    sync::{Arc, Once},
    time::Duration,
};

use limpet_shared::DevAddr;
use limpet_store::{FrameStore, Freshness, SqliteStore};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    check::{Facts, Violation, check},
    field::{Field, dev_eui},
    machine::{Process, TICK},
    net::{Network, Sent},
    plan::{END, ENOUGH, Plan, TROUBLE_ENDS, Trouble, Ways},
    seen::{Ask, Look, Trace},
    system,
};
use endpoint::Endpoints;
use servers::{Drains, Server};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often balancers are asked for their ring.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A worker that has died by itself is started again after this.
const RESTART_AFTER: Duration = Duration::from_millis(700);

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub facts: Facts,
    /// Every datagram that was sent.
    pub wire: Vec<Sent>,
    /// What happened, for people.
    pub trace: Vec<String>,
}

struct World {
    plan: Plan,
    network: Network,
    endpoints: Arc<Endpoints>,
    store: Arc<SqliteStore>,
    folder: tempfile::TempDir,
    balancers: Vec<Server>,
    workers: Vec<Server>,
    authority: Arc<limpet_link::Authority>,
    looks: Arc<Mutex<Vec<Look>>>,
    asks: Vec<Ask>,
    drains: Drains,
    disk_full: bool,
    items: BTreeSet<usize>,
    /// When the last trouble began or ended.
    troubled_until: Duration,
    trace: Trace,
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
            panics::note();
            run_here(plan).map_err(|error| error.to_string())
        };
        let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn_scoped(scope, run);
        let ended = thread.map_err(|error| error.to_string())?.join();
        ended.unwrap_or_else(|_| Err(format!("seed {seed}: the simulation itself has panicked")))
    })
}

fn run_here(plan: &Plan) -> Result<Outcome> {
    let mut world = World::new(plan.clone())?;
    let edges: Vec<SocketAddr> = world.balancers.iter().map(|b| SocketAddr::new(b.machine.ip, 1700)).collect();
    let mut field = Field::new(&world.network, plan, &edges, world.trace.clone())?;
    (0..plan.balancers).try_for_each(|index| world.start_balancer(index))?;
    (0..plan.workers).try_for_each(|index| world.start_worker(index))?;
    let mut order = SmallRng::seed_from_u64(plan.seed ^ 0x5eed);
    let mut troubles = plan.in_order().into_iter().peekable();
    let mut strikes = plan.strikes.iter().peekable();
    let mut struck: Vec<(Duration, Trouble)> = Vec::new();
    let mut items = plan.items.iter().enumerate().peekable();
    let mut now = Duration::ZERO;
    while now < END && !(now >= plan.uplinks_end + ENOUGH && world.is_all_told(&field)) {
        now += TICK;
        let woken = world.network.advance(now);
        while let Some(strike) = strikes.next_if(|s| now < TROUBLE_ENDS && field.seen.acked.len() >= s.acked) {
            let at = now + strike.then;
            struck.extend([(at, strike.trouble), (at + strike.lasts, strike.end)]);
            if strike.silences {
                field.silence_the_last(now);
            }
        }
        struck.sort_by_key(|(at, _)| *at);
        let due: Vec<_> = struck.extract_if(.., |(at, _)| *at <= now).collect();
        let planned = std::iter::from_fn(|| troubles.next_if(|(at, _)| *at <= now));
        for (_, trouble) in planned.chain(due) {
            world.trace.say(now, format!("{trouble:?}"));
            world.troubled_until = now;
            world.happen(now, trouble, &mut field)?;
            field.happen(now, trouble)?;
        }
        while let Some((number, (_, device))) = items.next_if(|(_, (at, _))| *at <= now) {
            world.trace.say(now, format!("queue item {number} for device {device}"));
            if plan.items_answer {
                world.endpoints.hand(number, *device);
            } else {
                world.enqueue(number, *device)?;
            }
        }
        world.add_gateways(now)?;
        world.supervise(now)?;
        world.forget_drains(now);
        if now.as_millis().is_multiple_of(LOOK_EVERY.as_millis()) {
            world.look(now);
        }
        field.tick(now);
        let mut processes: Vec<&mut Process> =
            world.balancers.iter_mut().chain(&mut world.workers).filter_map(|s| s.process.as_mut()).collect();
        processes.shuffle(&mut order);
        processes.into_iter().for_each(|process| process.tick(&woken));
    }
    let facts = world.facts(field)?;
    let violations = check(plan, &facts);
    Ok(Outcome { violations, facts, wire: world.network.wire(), trace: world.trace.lines() })
}

impl World {
    /// Looked at once in a while only: it costs.
    fn is_all_told(&self, field: &Field) -> bool {
        let often = self.network.now().as_millis().is_multiple_of(100);
        often && self.endpoints.has_all(field.seen.acked.keys().copied())
    }

    fn facts(&self, field: Field) -> Result<Facts> {
        let (mut queued, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        provision::apart()?.block_on(async {
            for device in 0..self.plan.devices.len() {
                let mut done = 0;
                if let Some(addr) = field.dev_addr(device) {
                    let rows = self.store.sessions_by_addr(DevAddr(addr), Freshness::Serial).await?;
                    let own = rows.iter().filter(|row| row.session.key.dev_eui == dev_eui(device));
                    done = own.map(|row| row.session.queue_done).max().unwrap_or_default();
                }
                let items = self.store.queue(dev_eui(device), done, 100).await?;
                queued.extend(items.iter().filter_map(|item| endpoint::item_number(&item.id)));
                if self.waits(device).await? {
                    waiting.insert(device);
                }
            }
            limpet_store::Result::Ok(())
        })?;
        Ok(Facts {
            told: self.endpoints.told(),
            looks: self.looks.lock().clone(),
            asks: self.asks.clone(),
            drains: self.drains.lock().clone(),
            items: self.items.iter().copied().chain(self.endpoints.enqueued()).collect(),
            troubled_until: self.troubled_until,
            panics: panics::noted(),
            replied: self.endpoints.replied(),
            queued,
            waiting,
            seen: field.seen,
        })
    }

    fn happen(&mut self, now: Duration, trouble: Trouble, field: &mut Field) -> Result<()> {
        match trouble {
            Trouble::KillWorker(index) => servers::kill(&mut self.workers, index),
            Trouble::KillWorkers => (0..self.workers.len()).for_each(|index| servers::kill(&mut self.workers, index)),
            Trouble::StartWorkers => (0..self.plan.workers).try_for_each(|index| self.start_worker(index))?,
            Trouble::StopWorker(index) => self.stop_worker(index),
            Trouble::StartWorker(index) => self.start_worker(index)?,
            Trouble::KillBalancer(index) => servers::kill(&mut self.balancers, index),
            Trouble::StartBalancer(index) => {
                self.start_balancer(index)?;
                field.balancer_started(index);
            }
            Trouble::PauseWorker(index) => servers::pause(&mut self.workers, index, true),
            Trouble::ResumeWorker(index) => servers::pause(&mut self.workers, index, false),
            Trouble::PauseWorkers(on) => {
                (0..self.workers.len()).for_each(|index| servers::pause(&mut self.workers, index, on));
            }
            Trouble::PauseBalancer(index) | Trouble::ResumeBalancer(index) => {
                let paused = matches!(trouble, Trouble::PauseBalancer(_));
                servers::pause(&mut self.balancers, index, paused);
                field.balancer_paused(index, paused);
            }
            Trouble::PowerCut | Trouble::KillMost => {
                let most = self.plan.workers.saturating_sub(1);
                let end = if trouble == Trouble::KillMost { most } else { self.workers.len() };
                (0..end).for_each(|index| servers::kill(&mut self.workers, index));
                (0..self.balancers.len()).for_each(|index| servers::kill(&mut self.balancers, index));
            }
            Trouble::PowerBack => {
                for index in 0..self.balancers.len() {
                    self.start_balancer(index)?;
                    field.balancer_started(index);
                }
                (0..self.plan.workers).try_for_each(|index| self.start_worker(index))?;
            }
            Trouble::Cut(balancer, worker, ways) => self.cut((balancer, worker), ways, true),
            Trouble::Mend(balancer, worker) => self.cut((balancer, worker), Ways::Both, false),
            Trouble::Storm(weathers) => self.network.set_weather(weathers.weather()),
            Trouble::Store(index, mood) => {
                self.workers.get_mut(index).into_iter().for_each(|server| server.mood = mood);
                self.set_faults();
            }
            Trouble::DiskFull(full) => {
                self.disk_full = full;
                self.set_faults();
            }
            Trouble::WebhookAway(application, away) => self.endpoints.set_away(application, away),
            Trouble::WebhookMute(application, mute) => self.endpoints.set_mute(application, mute),
            Trouble::StepClock(index, millis) => {
                let server = self.workers.iter().chain(&self.balancers).nth(index);
                server.into_iter().for_each(|server| server.machine.step_clock(millis * 1_000));
            }
            Trouble::Drain(index, on) => self.drain(now, index, on),
            Trouble::RemoveWorker(index) => self.remove_worker(index),
            Trouble::MoveGateway(..)
            | Trouble::RestartGateway(_)
            | Trouble::Backhaul(..)
            | Trouble::Replay(_)
            | Trouble::Junk(_) => {}
        }
        Ok(())
    }

    fn cut(&self, (balancer, worker): (usize, usize), ways: Ways, cut: bool) {
        let (Some(balancer), Some(worker)) = (self.balancers.get(balancer), self.workers.get(worker)) else { return };
        let (balancer, worker) = (balancer.machine.ip, worker.machine.ip);
        if ways != Ways::ToBalancer {
            self.network.cut(balancer, worker, cut);
        }
        if ways != Ways::ToWorker {
            self.network.cut(worker, balancer, cut);
        }
    }
}
