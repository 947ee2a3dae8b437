//! The state machine. Inputs are method calls with the time; outputs wait in a queue for [`Balancer::poll_action`].

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use limpet_shared::{Eui64, Now, Rule, link::Cluster};

use crate::{
    action::{Action, DropReason, Event, WorkerId},
    cluster::Knowledge,
    config::Config,
    downlink::Downlinks,
    drains::Drains,
    gateways::Gateways,
    health::{LiveClock, MassGuard},
    linked_network::LinkedNetwork,
    retention::Retention,
    routing::Routing,
    sightings::Sightings,
    workers::Workers,
};

mod delivery;
mod downlinks;
mod operators;
mod timers;
mod uplinks;
mod worker_messages;

/// After its start the balancer gives every worker its full share at once: there is no fleet to protect a newcomer's
/// caches from, and gateways would only move twice.
const START_UP: Duration = Duration::from_secs(5);
/// How long a stopping balancer waits for what it holds.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// One balancer. See the crate's page.
#[derive(Clone, Debug)]
pub struct Balancer {
    config: Config,
    knowledge: Knowledge,
    gateways: Gateways,
    workers: Workers,
    drains: Drains,
    network: LinkedNetwork,
    routing: Routing,
    retention: Retention,
    downlinks: Downlinks,
    sightings: Sightings,
    clock: LiveClock,
    guard: MassGuard,
    /// Whether verdicts are held back now, to say so once.
    held_back: bool,
    /// The names that workers were told to be silent.
    suspects_told: Vec<String>,
    /// The names that workers were told to have room.
    room_told: Vec<String>,
    started: Option<Duration>,
    /// Moments (monotonic; `judged` live) of the last input, and of what was last brought up to date.
    last_input: Duration,
    /// Inputs so far.
    steps: u64,
    judged: Duration,
    ring_built: Duration,
    suspects_at: Duration,
    /// When (monotonic) the last stall of the balancer itself ended.
    stalled_until: Duration,
    stop_by: Option<Duration>,
    actions: VecDeque<Action>,
}

/// Numbers for gauges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub retained_frames: usize,
    pub retained_bytes: usize,
    pub downlinks: usize,
    /// Gateways let in, and rejected ones remembered.
    pub gateways: usize,
    pub rejected_gateways: usize,
    /// Gateways that the network knows.
    pub known_gateways: usize,
    pub cluster_version: u64,
    pub ring_epoch: u64,
    /// Connected workers by state.
    pub workers: BTreeMap<&'static str, usize>,
}

impl Balancer {
    /// A balancer without workers. `cluster` is what it kept from an earlier run.
    pub fn new(config: Config, cluster: Option<&Cluster>) -> Self {
        let mut knowledge = Knowledge::default();
        if let Some(cluster) = cluster {
            knowledge.apply(cluster);
            // Also of a balancer that no worker has told of the network yet.
            knowledge.revoke(cluster.revoked_keys.iter().cloned());
        }
        let ring_key = knowledge.ring_key().unwrap_or(config.ring_key);
        Self {
            knowledge,
            gateways: Gateways::default(),
            workers: Workers::default(),
            drains: Drains::default(),
            network: LinkedNetwork::default(),
            routing: Routing::new(ring_key),
            retention: Retention::new(config.retained_bytes, config.unread_bytes),
            downlinks: Downlinks::new(config.ring_key),
            sightings: Sightings::default(),
            clock: LiveClock::default(),
            guard: MassGuard::default(),
            held_back: false,
            suspects_told: Vec::new(),
            room_told: Vec::new(),
            started: None,
            last_input: Duration::ZERO,
            steps: 0,
            judged: Duration::ZERO,
            ring_built: Duration::ZERO,
            suspects_at: Duration::ZERO,
            stalled_until: Duration::ZERO,
            stop_by: None,
            actions: VecDeque::new(),
            config,
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        debug_assert!(action.is_some() || self.retention.is_sound(self.steps), "{:#?}", self.retention);
        action
    }

    /// This address was held for a gateway when the balancer ran before ([`Action::Hold`]): so it is for the time that its
    /// policy says, from now on.
    pub fn restore_hold(&mut self, now: Now, gateway: Eui64, address: IpAddr) {
        self.gateways.hold(gateway, address, now.mono);
    }

    /// What the balancer knows of the network, to be kept for its next start.
    pub fn cluster(&self) -> Cluster {
        self.knowledge.to_cluster()
    }

    /// Whether a worker is there that may get frames.
    pub fn is_ready(&self) -> bool {
        self.stop_by.is_none() && !self.routing.is_empty()
    }

    /// Stop taking datagrams in. What is held is answered until [`Self::is_stopped`].
    pub fn on_shutdown(&mut self, now: Now) {
        self.tick(now);
        self.stop_by.get_or_insert(now.mono + STOP_WITHIN);
    }

    /// Whether everything is answered, or the time for it is up.
    pub fn is_stopped(&self, now: Now) -> bool {
        let nothing_held = self.retention.held() == 0 && self.downlinks.in_flight() == 0;
        self.stop_by.is_some_and(|by| nothing_held || now.mono >= by)
    }

    /// Numbers for gauges.
    pub fn stats(&self) -> Stats {
        let (gateways, rejected_gateways) = self.gateways.counts();
        let mut workers = BTreeMap::new();
        for (_, worker) in self.workers.iter() {
            *workers.entry(worker.state().0).or_insert(0) += 1;
        }
        Stats {
            retained_frames: self.retention.held(),
            retained_bytes: self.retention.bytes(),
            downlinks: self.downlinks.in_flight(),
            gateways,
            rejected_gateways,
            known_gateways: self.knowledge.gateways(),
            cluster_version: self.knowledge.version(),
            ring_epoch: self.routing.epoch(),
            workers,
        }
    }

    /// Every input begins with it: whether the balancer itself was asleep.
    fn tick(&mut self, now: Now) {
        self.started.get_or_insert(now.mono);
        self.last_input = self.last_input.max(now.mono);
        self.steps += 1;
        if let Some(late) = self.clock.tick(now.mono) {
            self.stalled_until = now.mono;
            self.event(Event::Stalled { late });
        }
    }

    fn live(&self, now: Now) -> Duration {
        if self.config.keeps(Rule::OwnStalls) { self.clock.live(now.mono) } else { now.mono }
    }

    fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn event(&mut self, event: Event) {
        self.push(Action::Event(event));
    }

    fn control(&mut self, worker: WorkerId, message: impl Into<limpet_shared::link::to_worker::Kind>) {
        self.push(Action::SendControl { worker, message: message.into() });
    }

    fn dropped(&mut self, reason: DropReason, gateway: Option<Eui64>, from: Option<SocketAddr>) {
        self.push(Action::Drop { reason, gateway, from });
    }

    /// The gateway's worker, from its entry if the ring has not changed since.
    fn worker_of(&mut self, gateway: Eui64) -> Option<WorkerId> {
        let epoch = self.routing.epoch();
        let entry = self.gateways.get_mut(gateway);
        if let Some((at, worker)) = entry.as_ref().and_then(|entry| entry.choice)
            && at == epoch
        {
            return worker;
        }
        let choice = self.routing.choose(gateway);
        if let Some(entry) = entry {
            entry.choice = Some((epoch, choice));
        }
        choice
    }
}
