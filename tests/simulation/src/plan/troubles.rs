//! What goes wrong.

use std::time::Duration;

use limpet_store_testing::fault::Faults;
use rand::{Rng, rngs::SmallRng};

use super::{Plan, TROUBLE_ENDS, Theme};
use crate::net::Weather;

/// Until then everything links up.
const TROUBLE_BEGINS: Duration = Duration::from_secs(2);

/// One thing that goes wrong, or ends. Servers and gateways by index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    KillWorker(usize),
    StartWorker(usize),
    /// All of them at once.
    KillWorkers,
    StartWorkers,
    /// By SIGTERM.
    StopWorker(usize),
    KillBalancer(usize),
    StartBalancer(usize),
    PauseWorker(usize),
    ResumeWorker(usize),
    /// All of them at once.
    PauseWorkers(bool),
    PauseBalancer(usize),
    ResumeBalancer(usize),
    /// All balancers, and all workers but the last.
    KillMost,
    /// Every server is dead at once.
    PowerCut,
    PowerBack,
    /// Nothing passes from a balancer to a worker, or back, or either way.
    Cut(usize, usize, Ways),
    Mend(usize, usize),
    Storm(Weathers),
    /// How the store is to one worker.
    Store(usize, Mood),
    /// No room for anything, whoever writes.
    DiskFull(bool),
    /// An application's endpoint does not answer.
    WebhookAway(usize, bool),
    /// It takes events, and its answers get lost.
    WebhookMute(usize, bool),
    /// A server's clock is set forward or back (ms): a worker's, or beyond them a balancer's.
    StepClock(usize, i64),
    /// An operator lets a worker drain, or takes that back.
    Drain(usize, bool),
    /// An operator takes a worker out of the cluster, for good.
    RemoveWorker(usize),
    /// A gateway is pointed at another balancer.
    MoveGateway(usize, usize),
    /// A gateway starts again: its downlinks are gone, its port is another.
    RestartGateway(usize),
    /// A gateway is cut off, and keeps what it hears until it is not.
    Backhaul(usize, bool),
    /// Somebody sends again what a gateway has sent before.
    Replay(usize),
    /// Somebody sends junk in a gateway's name.
    Junk(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    Both,
    ToWorker,
    ToBalancer,
}

/// Weather by name, to be readable in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weathers {
    Fair,
    Lossy,
    Wild,
}

impl Weathers {
    pub fn weather(self) -> Weather {
        match self {
            Self::Fair => Weather::FAIR,
            Self::Lossy => Weather { delay: Duration::from_millis(2), lost: 20, doubled: 10, late: 20 },
            Self::Wild => Weather { delay: Duration::from_millis(5), lost: 80, doubled: 50, late: 100 },
        }
    }
}

/// How a store is to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    Slow,
    /// Refuses some, loses some, does some and does not say so.
    Odd,
    Away,
    /// Does not say what became of many writes, half of which it has not done.
    Forgetful,
    /// After some writes its user is dead.
    Deadly,
}

impl Mood {
    /// With the delay of a store that is well.
    pub fn faults(self, delay: Duration) -> Faults {
        let well = Faults { delay, ..Faults::default() };
        match self {
            Self::Well => well,
            Self::Slow => Faults { delay: Duration::from_millis(80), ..well },
            Self::Odd => Faults { delay: Duration::from_millis(20), refuse: 60, lose: 20, hide: 40, ..well },
            Self::Away => Faults { refuse: 1000, ..well },
            Self::Forgetful => Faults { lose: 150, hide: 150, ..well },
            Self::Deadly => Faults { delay: delay.max(Duration::from_millis(2)), crash: 60, ..well },
        }
    }
}

/// A trouble that comes when it hurts most: some time after a PUSH_ACK.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strike {
    /// So many uplinks are acknowledged.
    pub acked: usize,
    pub then: Duration,
    pub trouble: Trouble,
    pub lasts: Duration,
    pub end: Trouble,
    /// The device that was acknowledged last sends nothing more.
    pub silences: bool,
}

/// Between *acknowledged* and *stored*, while copies are waited for, when the event leaves, when the answer does, or later.
const MOMENTS: [std::ops::Range<u64>; 5] = [0..3, 3..40, 20..200, 190..290, 250..1_200];

/// In the order in which they come.
pub fn aim(chance: &mut SmallRng, plan: &Plan) -> Vec<Strike> {
    let mut acked = 0;
    (0..chance.random_range(2..8))
        .map(|_| {
            acked += chance.random_range(1..8);
            let moment = MOMENTS.get(chance.random_range(0..MOMENTS.len())).cloned().unwrap_or(0..1);
            let (trouble, end) = match chance.random_range(0..8) {
                0..3 => (Trouble::PowerCut, Trouble::PowerBack),
                3 | 4 => (Trouble::KillWorkers, Trouble::StartWorkers),
                5 => (Trouble::KillMost, Trouble::PowerBack),
                _ => {
                    let (one, other, _) = worker_dies(chance, plan);
                    (one, other)
                }
            };
            let (then, lasts) = (chance.random_range(moment), chance.random_range(100..1_500));
            let (then, lasts) = (Duration::from_millis(then), Duration::from_millis(lasts));
            Strike { acked, then, trouble, lasts, end, silences: chance.random_range(0..3) == 0 }
        })
        .collect()
}

/// The plan's troubles, each with its end.
pub fn draw(chance: &mut SmallRng, plan: &Plan) -> Vec<Pair> {
    let count = match plan.theme {
        Theme::Calm => 0,
        Theme::Everything => chance.random_range(1..7),
        Theme::Kills => chance.random_range(1..4),
        Theme::Aimed => chance.random_range(0..2),
        _ => chance.random_range(1..3),
    };
    let mut all: Vec<Pair> = (0..count).map(|_| one(chance, plan)).collect();
    if plan.theme == Theme::Kills {
        never_all_dead(&mut all);
    }
    all
}

/// A trouble and its end.
pub type Pair = [(Duration, Trouble); 2];

fn one(chance: &mut SmallRng, plan: &Plan) -> Pair {
    let latest = TROUBLE_ENDS.as_millis() as u64;
    let mut at = chance.random_range(TROUBLE_BEGINS.as_millis() as u64..latest);
    let lasts = chance.random_range(30..4_000);
    let (one, other, most) = match plan.theme {
        Theme::Endpoints | Theme::Aimed => endpoint(chance),
        Theme::Slow => slow(chance, plan),
        Theme::Kills => worker_dies(chance, plan),
        Theme::Stalls => stall(chance, plan),
        Theme::Operators => operator(chance, plan),
        Theme::Gateways => gateway(chance, plan),
        Theme::Calm | Theme::Everything => anything(chance, plan),
    };
    if plan.theme == Theme::Stalls {
        // A ring that is just being built says nothing about stalls.
        at = at.max(5_500);
    }
    if plan.theme == Theme::Slow && chance.random() {
        // Before devices join.
        at = 1_100;
    }
    let end = (at + lasts.min(most)).min(latest.max(at));
    [(Duration::from_millis(at), one), (Duration::from_millis(end), other)]
}

/// A trouble, its end, and how long it lasts at most (ms).
type Drawn = (Trouble, Trouble, u64);

const LONG: u64 = 4_000;

fn endpoint(chance: &mut SmallRng) -> Drawn {
    let application = chance.random_range(0..2);
    match chance.random_range(0..3) {
        0 => (Trouble::WebhookMute(application, true), Trouble::WebhookMute(application, false), LONG),
        _ => (Trouble::WebhookAway(application, true), Trouble::WebhookAway(application, false), LONG),
    }
}

fn worker_dies(chance: &mut SmallRng, plan: &Plan) -> Drawn {
    let worker = chance.random_range(0..plan.workers);
    (Trouble::KillWorker(worker), Trouble::StartWorker(worker), LONG)
}

fn slow(chance: &mut SmallRng, plan: &Plan) -> Drawn {
    let worker = chance.random_range(0..plan.workers);
    (Trouble::Store(worker, Mood::Slow), Trouble::Store(worker, Mood::Well), LONG)
}

/// As long as troubles may last.
pub fn forgets(worker: usize) -> Pair {
    let (one, other) = (Trouble::Store(worker, Mood::Forgetful), Trouble::Store(worker, Mood::Well));
    [(TROUBLE_BEGINS, one), (TROUBLE_ENDS, other)]
}

fn stall(chance: &mut SmallRng, plan: &Plan) -> Drawn {
    let balancer = chance.random_range(0..plan.balancers);
    match chance.random_range(0..2) {
        // As long as verdicts are held back.
        0 => (Trouble::PauseWorkers(true), Trouble::PauseWorkers(false), 900),
        _ => (Trouble::PauseBalancer(balancer), Trouble::ResumeBalancer(balancer), 1_500),
    }
}

fn operator(chance: &mut SmallRng, plan: &Plan) -> Drawn {
    let (worker, spare) = (chance.random_range(1..plan.workers), plan.workers);
    match chance.random_range(0..6) {
        0 => (Trouble::RemoveWorker(worker), Trouble::StartWorker(spare), LONG),
        1 => (Trouble::StopWorker(worker), Trouble::StartWorker(worker), LONG),
        2 => (Trouble::StartWorker(spare), Trouble::StopWorker(spare), LONG),
        _ => (Trouble::Drain(worker, true), Trouble::Drain(worker, false), LONG),
    }
}

fn gateway(chance: &mut SmallRng, plan: &Plan) -> Drawn {
    let (gateway, balancer) = (chance.random_range(0..plan.gateways.len()), chance.random_range(0..plan.balancers));
    match chance.random_range(0..6) {
        0 => (Trouble::MoveGateway(gateway, balancer), Trouble::Junk(gateway), LONG),
        1 => (Trouble::RestartGateway(gateway), Trouble::Junk(gateway), LONG),
        2 => (Trouble::Junk(gateway), Trouble::Junk(gateway), LONG),
        3 => (Trouble::Replay(gateway), Trouble::Replay(gateway), LONG),
        _ => (Trouble::Backhaul(gateway, true), Trouble::Backhaul(gateway, false), LONG),
    }
}

fn anything(chance: &mut SmallRng, plan: &Plan) -> Drawn {
    let (worker, balancer) = (chance.random_range(0..plan.workers), chance.random_range(0..plan.balancers));
    match chance.random_range(0..20) {
        0 | 1 => worker_dies(chance, plan),
        2 => (Trouble::PauseWorker(worker), Trouble::ResumeWorker(worker), LONG),
        3 => (Trouble::KillBalancer(balancer), Trouble::StartBalancer(balancer), LONG),
        4 => (Trouble::PauseBalancer(balancer), Trouble::ResumeBalancer(balancer), LONG),
        5 | 6 => {
            let ways = [Ways::Both, Ways::ToWorker, Ways::ToBalancer][chance.random_range(0..3)];
            (Trouble::Cut(balancer, worker, ways), Trouble::Mend(balancer, worker), LONG)
        }
        7 => {
            let how = if chance.random() { Weathers::Lossy } else { Weathers::Wild };
            (Trouble::Storm(how), Trouble::Storm(Weathers::Fair), LONG)
        }
        8..12 => {
            let mood = [Mood::Slow, Mood::Odd, Mood::Away, Mood::Deadly, Mood::Deadly][chance.random_range(0..5)];
            (Trouble::Store(worker, mood), Trouble::Store(worker, Mood::Well), LONG)
        }
        12 => (Trouble::DiskFull(true), Trouble::DiskFull(false), 2_000),
        13 | 14 => endpoint(chance),
        15 => (Trouble::PowerCut, Trouble::PowerBack, 1_500),
        16 => {
            let server = chance.random_range(0..plan.workers + plan.spares + plan.balancers);
            let (there, back) = (chance.random_range(-400..400), chance.random_range(-400..400));
            (Trouble::StepClock(server, there), Trouble::StepClock(server, back), LONG)
        }
        17 => stall(chance, plan),
        18 => operator(chance, plan),
        _ => gateway(chance, plan),
    }
}

/// Takes out the kills while another worker is dead, or has not settled in yet.
fn never_all_dead(all: &mut Vec<Pair>) {
    const SETTLES: Duration = Duration::from_secs(3);
    all.sort_by_key(|[(at, _), _]| *at);
    let mut free = Duration::ZERO;
    all.retain(|[(at, _), (end, _)]| {
        let stays = *at >= free;
        if stays {
            free = *end + SETTLES;
        }
        stays
    });
}
