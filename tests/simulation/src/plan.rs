//! What a seed decides: how large the network is, what goes wrong, and when.

use std::time::Duration;

use limpet_link::host::Rule;
use limpet_store::fault::Faults;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::net::Weather;

/// When the last trouble is over. From then on everything works, so that what was promised can be asked for.
pub const TROUBLE_ENDS: Duration = Duration::from_secs(9);
/// When devices send no more.
pub const UPLINKS_END: Duration = Duration::from_secs(13);
/// When it is over.
pub const END: Duration = Duration::from_secs(22);
/// Until then everything links up.
const TROUBLE_BEGINS: Duration = Duration::from_secs(2);

/// One thing that goes wrong, or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    KillWorker(usize),
    StartWorker(usize),
    KillBalancer(usize),
    StartBalancer(usize),
    PauseWorker(usize),
    ResumeWorker(usize),
    PauseBalancer(usize),
    ResumeBalancer(usize),
    /// Nothing passes between a balancer and a worker.
    Cut(usize, usize),
    Mend(usize, usize),
    Storm(Weathers),
    /// The store of one worker misbehaves, or does so no more.
    Store(usize, bool),
    WebhookAway(bool),
    /// The endpoint takes events, and its answers get lost.
    WebhookMute(bool),
    /// A server's clock is set forward or back (ms): a worker's, or beyond them a balancer's.
    StepClock(usize, i64),
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

/// How a misbehaving store misbehaves.
pub fn bad_store() -> Faults {
    Faults { delay: Duration::from_millis(20), refuse: 60, lose: 20, hide: 40, crash: 0 }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub balancers: usize,
    pub workers: usize,
    pub gateways: usize,
    pub devices: usize,
    /// Microseconds that each server's clock is ahead at the start, and gains each second: workers, then balancers.
    pub clocks: Vec<(i64, i64)>,
    /// In the order of time.
    pub troubles: Vec<(Duration, Trouble)>,
    /// When an application enqueues a downlink, and for which device.
    pub items: Vec<(Duration, usize)>,
    /// A rule that all servers break.
    pub broken: Option<Rule>,
}

impl Plan {
    /// The same, with a rule broken.
    pub fn breaking(self, rule: Rule) -> Self {
        Self { broken: Some(rule), ..self }
    }

    pub fn of(seed: u64) -> Self {
        let mut chance = SmallRng::seed_from_u64(seed);
        let (balancers, workers) = (chance.random_range(1..=2), chance.random_range(2..=3));
        let clocks = (0..balancers + workers)
            .map(|_| (chance.random_range(-300_000..=300_000), chance.random_range(-100..=100)))
            .collect();
        let mut troubles = Vec::new();
        for _ in 0..chance.random_range(0..6) {
            trouble(&mut chance, (balancers, workers), &mut troubles);
        }
        troubles.sort_by_key(|(at, _)| *at);
        let devices = chance.random_range(3..=6);
        let at = |chance: &mut SmallRng| Duration::from_millis(chance.random_range(1_500..11_000));
        let mut items: Vec<_> =
            (0..chance.random_range(0..6)).map(|_| (at(&mut chance), chance.random_range(0..devices))).collect();
        items.sort_unstable();
        Self {
            seed,
            balancers,
            workers,
            gateways: chance.random_range(2..=4),
            devices,
            clocks,
            troubles,
            items,
            broken: None,
        }
    }
}

/// One trouble and its end.
fn trouble(chance: &mut SmallRng, (balancers, workers): (usize, usize), all: &mut Vec<(Duration, Trouble)>) {
    let latest = TROUBLE_ENDS.as_millis() as u64;
    let begins = chance.random_range(TROUBLE_BEGINS.as_millis() as u64..latest);
    let ends = (begins + chance.random_range(30..4_000)).min(latest);
    let (worker, balancer) = (chance.random_range(0..workers), chance.random_range(0..balancers));
    let (one, other) = match chance.random_range(0..10) {
        0 | 1 => (Trouble::KillWorker(worker), Trouble::StartWorker(worker)),
        2 => (Trouble::PauseWorker(worker), Trouble::ResumeWorker(worker)),
        3 => (Trouble::KillBalancer(balancer), Trouble::StartBalancer(balancer)),
        4 => (Trouble::PauseBalancer(balancer), Trouble::ResumeBalancer(balancer)),
        5 => (Trouble::Cut(balancer, worker), Trouble::Mend(balancer, worker)),
        6 => {
            let how = if chance.random() { Weathers::Lossy } else { Weathers::Wild };
            (Trouble::Storm(how), Trouble::Storm(Weathers::Fair))
        }
        7 => (Trouble::Store(worker, true), Trouble::Store(worker, false)),
        8 => (Trouble::WebhookMute(true), Trouble::WebhookMute(false)),
        _ => (Trouble::WebhookAway(true), Trouble::WebhookAway(false)),
    };
    all.push((Duration::from_millis(begins), one));
    all.push((Duration::from_millis(ends), other));
    if chance.random_range(0..4) == 0 {
        let step = Trouble::StepClock(chance.random_range(0..workers + balancers), chance.random_range(-400..400));
        all.push((Duration::from_millis(begins), step));
    }
}
