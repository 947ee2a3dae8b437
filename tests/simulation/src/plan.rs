//! What a seed decides: how large the network is, who is in it, what goes wrong, and when.

mod arranged;
mod troubles;

use std::{collections::BTreeSet, time::Duration};

use limpet_link::host::Rule;
use rand::{Rng, SeedableRng, rngs::SmallRng};

pub use troubles::{Mood, Strike, Trouble, Ways, Weathers};

/// When the last trouble is over. From then on everything works, so that what was promised can be asked for.
pub const TROUBLE_ENDS: Duration = Duration::from_secs(10);
/// When devices of most plans send no more.
const UPLINKS_END: Duration = Duration::from_secs(16);
/// When it is over, at the latest; [`ENOUGH`] after the last uplink if everything was told by then.
pub const END: Duration = Duration::from_secs(28);
/// What is told a second time, or on air a second time, would be so by then.
pub const ENOUGH: Duration = Duration::from_millis(2_700);

/// What kind of things go wrong. The narrower it is, the more can be asked of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Nothing goes wrong: everything that is promised holds to the letter.
    Calm,
    /// Endpoints are away, or take events without saying so.
    Endpoints,
    /// Workers die, and others are there.
    Kills,
    /// Machines stop for a moment, all workers at once or a balancer.
    Stalls,
    /// An operator adds servers, drains them, stops them and takes them out.
    Operators,
    /// Gateways move, start again, keep frames while they are cut off; somebody replays frames or sends junk.
    Gateways,
    /// Anything, several at once.
    Everything,
    /// Servers die at the moments at which it hurts most.
    Aimed,
    /// The store is slow, for some workers only.
    Slow,
}

/// What a network with only such troubles owes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owed {
    /// An ACK for each confirmed uplink, a JoinAccept for each JoinRequest.
    pub answers: bool,
    /// Each device's events in order.
    pub order: bool,
    /// Each event once.
    pub once: bool,
    /// In each event all gateways that have heard the uplink; a PUSH_ACK for each.
    pub copies: bool,
    /// Every gateway stays where it is.
    pub steady: bool,
    /// An event within a second, if its endpoint was there.
    pub prompt: bool,
}

impl Theme {
    pub fn owes(self) -> Owed {
        let all = Owed { answers: true, order: true, once: true, copies: true, steady: true, prompt: true };
        match self {
            Self::Calm => all,
            Self::Endpoints => Owed { once: false, ..all },
            Self::Kills => Owed { answers: true, ..Owed::default() },
            Self::Stalls => Owed { steady: true, ..Owed::default() },
            Self::Operators => Owed { answers: true, once: true, ..Owed::default() },
            Self::Gateways => Owed { once: true, steady: true, ..Owed::default() },
            Self::Slow => Owed { answers: true, once: true, ..Owed::default() },
            Self::Everything | Self::Aimed => Owed::default(),
        }
    }
}

/// How a gateway treats downlinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    Honest,
    /// It never asks for downlinks.
    ReceivesOnly,
    /// Its radio is always busy in RX1.
    RefusesRx1,
    RefusesAll,
    /// It sends no TX_ACK.
    Silent,
    /// Its TX_ACKs bear no token of ours.
    ForgetsTokens,
}

#[derive(Clone, Debug)]
pub struct GatewayPlan {
    pub balancer: usize,
    pub habit: Habit,
    /// When an operator adds it; from the beginning if absent.
    pub added_at: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// By OTAA; else it is activated by hand.
    pub joins: bool,
    /// LoRaWAN 1.0.4, whose DevNonces count; else 1.0.3.
    pub counts_nonces: bool,
    pub confirmed: bool,
    pub every: Duration,
    /// It hears no downlink of each third uplink, and repeats that if it was confirmed.
    pub is_deaf: bool,
    /// It joins again, or, activated by hand, loses its counters (which its owner allows).
    pub starts_again_at: Option<Duration>,
    /// Its application, and so its endpoint.
    pub application: usize,
    /// From then on it sends nothing: what became of its last uplink, no later one mends.
    pub silent_from: Option<Duration>,
}

/// Most gateways hear most devices: so many in a thousand.
const MOST_HEAR: u32 = 800;
/// There are so many, with an endpoint each.
pub const APPLICATIONS: usize = 2;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub theme: Theme,
    pub balancers: usize,
    pub workers: usize,
    /// Machines on which a worker may be started later.
    pub spares: usize,
    pub gateways: Vec<GatewayPlan>,
    pub devices: Vec<DevicePlan>,
    /// Microseconds that each server's clock is ahead at the start, and gains each second: workers and spares, then balancers.
    pub clocks: Vec<(i64, i64)>,
    /// Each operation of the store takes up to twice so long.
    pub store_delay: Duration,
    /// Each with its end.
    pub troubles: Vec<[(Duration, Trouble); 2]>,
    /// What comes besides, each after what it is aimed at.
    pub strikes: Vec<Strike>,
    /// When an application enqueues a downlink, and for which device.
    pub items: Vec<(Duration, usize)>,
    /// It does so as an answer to the device's next event.
    pub items_answer: bool,
    /// How long each application's endpoint takes for an event.
    pub endpoints_take: [Duration; APPLICATIONS],
    /// So many in a thousand gateways hear an uplink.
    pub heard: u32,
    /// When devices send no more.
    pub uplinks_end: Duration,
    /// A rule that all servers break.
    pub broken: Option<Rule>,
}

impl Plan {
    /// The same, with a rule broken.
    pub fn breaking(self, rule: Rule) -> Self {
        Self { broken: Some(rule), ..self }
    }

    /// Whether this application's endpoint is away, or seems to be, at some time.
    pub fn troubles_of_endpoint(&self, application: usize) -> bool {
        self.troubles.iter().flatten().any(|(_, trouble)| {
            matches!(trouble, Trouble::WebhookAway(of, true) | Trouble::WebhookMute(of, true) if *of == application)
        })
    }

    /// Whether an endpoint takes events at some time, and does not say so.
    pub fn hears_no_thanks(&self) -> bool {
        self.troubles.iter().flatten().any(|(_, trouble)| matches!(trouble, Trouble::WebhookMute(_, true)))
    }

    /// Devices to whose uplinks their application replies: those that wait for both windows, and have nothing else in their queue; where
    /// every gateway transmits what it is asked for.
    pub fn replied_to(&self) -> BTreeSet<usize> {
        let able = self.gateways.iter().all(|gateway| gateway.habit == Habit::Honest && gateway.added_at.is_none());
        let waits = |index: &usize| {
            let device = self.devices.get(*index).filter(|device| device.confirmed && !device.is_deaf);
            device.is_some() && self.items.iter().all(|(_, of)| of != index)
        };
        (0..self.devices.len()).filter(|index| able && waits(index)).collect()
    }

    /// What goes wrong and ends, in the order of time.
    pub fn in_order(&self) -> Vec<(Duration, Trouble)> {
        let mut all: Vec<_> = self.troubles.iter().flatten().copied().collect();
        all.sort_by_key(|(at, _)| *at);
        all
    }

    pub fn of(seed: u64) -> Self {
        let chance = &mut SmallRng::seed_from_u64(seed);
        let theme = match chance.random_range(0..20) {
            0..3 => Theme::Calm,
            3..5 => Theme::Endpoints,
            5..8 => Theme::Kills,
            8 => Theme::Stalls,
            9..11 => Theme::Operators,
            11..13 => Theme::Gateways,
            _ => Theme::Everything,
        };
        let theme = match seed % 10 {
            4 | 9 => Theme::Aimed,
            7 => Theme::Slow,
            _ => theme,
        };
        let (balancers, workers) = (chance.random_range(1..=2), chance.random_range(2..=3));
        let spares = usize::from(matches!(theme, Theme::Operators | Theme::Everything));
        let mut plan = Self {
            seed,
            theme,
            balancers,
            workers,
            spares,
            gateways: gateways(chance, balancers, theme),
            devices: devices(chance),
            clocks: clocks(chance, workers + spares, balancers),
            store_delay: Duration::from_millis([0, 0, 2, 6][chance.random_range(0..4)]),
            troubles: Vec::new(),
            strikes: Vec::new(),
            items: Vec::new(),
            items_answer: false,
            endpoints_take: Default::default(),
            heard: MOST_HEAR,
            uplinks_end: UPLINKS_END,
            broken: None,
        };
        plan.troubles = troubles::draw(chance, &plan);
        if theme == Theme::Aimed {
            plan.strikes = troubles::aim(chance, &plan);
            plan.store_delay = Duration::from_millis([6, 20, 40][chance.random_range(0..3)]);
            for device in &mut plan.devices {
                let at = Duration::from_millis(chance.random_range(4_000..12_000));
                device.silent_from = chance.random::<bool>().then_some(at);
            }
        }
        let at = |chance: &mut SmallRng| Duration::from_millis(chance.random_range(1_500..12_000));
        let of = plan.devices.len();
        plan.items = (0..chance.random_range(0..7)).map(|_| (at(chance), chance.random_range(0..of))).collect();
        plan.items.sort_unstable();
        plan.items_answer = chance.random();
        plan.endpoints_take =
            std::array::from_fn(|_| Duration::from_millis([0, 0, 60, 200][chance.random_range(0..4)]));
        if theme == Theme::Aimed {
            plan.heard = [MOST_HEAR, 500, 300][chance.random_range(0..3)];
            plan.narrow(chance);
        }
        plan
    }

    /// Some plans do one thing only, so that nothing mends what it has done; and some application wants much of one device.
    fn narrow(&mut self, chance: &mut SmallRng) {
        let wanted = chance.random_range(0..self.devices.len());
        if chance.random() {
            self.items.iter_mut().for_each(|(_, device)| *device = wanted);
        }
        match chance.random_range(0..8) {
            0 => self.strikes.iter_mut().for_each(|s| (s.trouble, s.end) = (Trouble::KillMost, Trouble::PowerBack)),
            1 => self.strikes.iter_mut().for_each(|s| (s.trouble, s.end) = (Trouble::PowerCut, Trouble::PowerBack)),
            2 => {
                let worker = chance.random_range(0..self.workers);
                let ends = (Trouble::KillWorker(worker), Trouble::StartWorker(worker));
                self.strikes.iter_mut().for_each(|s| (s.trouble, s.end) = ends);
            }
            3 => {
                self.strikes.clear();
                self.troubles.extend((0..self.workers).map(troubles::forgets));
            }
            _ => {}
        }
    }
}

fn gateways(chance: &mut SmallRng, balancers: usize, theme: Theme) -> Vec<GatewayPlan> {
    let all_honest = chance.random_range(0..3) == 0;
    let mut habit = |index: usize| match chance.random_range(0..12) {
        _ if index == 0 || all_honest => Habit::Honest,
        0 => Habit::ReceivesOnly,
        1 => Habit::RefusesRx1,
        2 => Habit::RefusesAll,
        3 => Habit::Silent,
        4 => Habit::ForgetsTokens,
        _ => Habit::Honest,
    };
    let mut all: Vec<GatewayPlan> =
        (0..4).map(|index| GatewayPlan { balancer: index % balancers, habit: habit(index), added_at: None }).collect();
    all.truncate(chance.random_range(2..=4));
    let may_add = matches!(theme, Theme::Calm | Theme::Endpoints | Theme::Everything);
    if may_add && chance.random_range(0..3) == 0 {
        let at = Duration::from_millis(chance.random_range(3_000..8_000));
        all.iter_mut().skip(1).last().into_iter().for_each(|gateway| gateway.added_at = Some(at));
    }
    all
}

fn devices(chance: &mut SmallRng) -> Vec<DevicePlan> {
    let count = chance.random_range(3..=6);
    (0..count)
        .map(|index| {
            let (joins, confirmed) = (chance.random_range(0..3) == 0, index % 2 == 0);
            // A device waits for its windows before it sends again, but for those that want no answer.
            let every = if confirmed { 2_300..3_600 } else { 500..2_000 };
            let starts_again = chance.random_range(0..3) == 0;
            DevicePlan {
                joins,
                counts_nonces: chance.random(),
                confirmed,
                every: Duration::from_millis(chance.random_range(every)),
                is_deaf: confirmed && chance.random_range(0..3) == 0,
                starts_again_at: starts_again.then(|| {
                    Duration::from_millis(chance.random_range(if joins { 7_500..9_000 } else { 5_000..11_000 }))
                }),
                application: index / 2 % 2,
                silent_from: None,
            }
        })
        .collect()
}

/// Balancers' clocks differ by less than is borne between them; a worker's own decides nothing, so it may show anything.
fn clocks(chance: &mut SmallRng, workers: usize, balancers: usize) -> Vec<(i64, i64)> {
    let wild = chance.random_range(0..4) == 0;
    let most = |index: usize| if wild && index < workers { 8_000_000 } else { 300_000 };
    (0..workers + balancers)
        .map(|index| (chance.random_range(-most(index)..=most(index)), chance.random_range(-100..=100)))
        .collect()
}
