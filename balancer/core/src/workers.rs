//! The workers that are connected.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use core::{net::SocketAddr, time::Duration};

use limpet_shared::{
    Now, UnixMicros,
    admin::Server,
    link::{Hello, WEIGHT_SLOT_SECS, Weight},
    ring::FULL_WEIGHT,
};

use crate::{
    action::WorkerId,
    health::{Verdict, Vitals, slow_start},
};

/// How long a worker that went is shown, and named as silent.
const GONE_SHOWN: Duration = Duration::from_secs(600);
const GONE_SUSPECT: Duration = Duration::from_secs(10);
const GONE_LIMIT: usize = 64;

/// One connected worker.
#[derive(Clone, Debug)]
pub struct Worker {
    pub name: String,
    pub instance: u64,
    /// The key of its certificate.
    pub key: String,
    pub software: String,
    pub http: String,
    pub started_at: UnixMicros,
    pub address: SocketAddr,
    /// What it said last.
    pub weight: Weight,
    /// The weight that counts now, and when (monotonic) the one that it said last will.
    pub counts: u32,
    pub counts_at: Option<Duration>,
    /// It asked for no more frames.
    pub leaving: bool,
    /// An operator asked it to drain.
    pub drained: bool,
    pub vitals: Vitals,
    /// It was taken out of the cluster; its link is closed at this time (monotonic), if it has not ended by then.
    pub removed_by: Option<Duration>,
    /// Frames that it says are in work.
    pub in_flight: u32,
    /// End of its slow start (monotonic); `None` while it may not get frames.
    pub full_at: Option<Duration>,
}

impl Worker {
    /// A worker that has just said hello.
    pub fn new(address: SocketAddr, hello: Hello, live: Duration) -> Self {
        let weight = hello.weight.unwrap_or_default();
        Self {
            name: hello.name,
            instance: hello.instance,
            key: hello.key,
            software: hello.software,
            http: hello.http,
            started_at: UnixMicros(hello.started_at),
            address,
            counts: weight.weight,
            counts_at: None,
            weight,
            leaving: false,
            drained: false,
            removed_by: None,
            vitals: Vitals::new(live),
            in_flight: 0,
            full_at: None,
        }
    }

    /// Whether it may get a share at all.
    pub fn eligible(&self) -> bool {
        self.weight.ready
            && self.weight.weight > 0
            && !self.leaving
            && !self.drained
            && self.removed_by.is_none()
            && self.vitals.verdict != Verdict::Ejected
    }

    /// It has said something newer. Another weight counts from the next slot on.
    pub fn says(&mut self, weight: Weight, now: Now) {
        self.weight = weight;
        self.counts_at = match self.counts == self.weight.weight {
            true => None,
            false => self.counts_at.or_else(|| Some(now.mono + to_next_slot(now.unix))),
        };
        self.settle_weight(now.mono);
    }

    /// Lets the weight count that it said last, if the time for that has come, or if it has no gateways now.
    pub fn settle_weight(&mut self, now: Duration) {
        if self.full_at.is_none() || !self.eligible() || self.counts_at.is_some_and(|at| at <= now) {
            self.counts = self.weight.weight;
            self.counts_at = None;
        }
    }

    /// Whether it can do more work than it has.
    pub fn has_room(&self, now: Duration) -> bool {
        let whole = self.counts_at.is_none() && self.full_at.is_some_and(|full_at| full_at <= now);
        self.weight.spare && whole && self.eligible() && self.vitals.verdict == Verdict::Well
    }

    /// Its weight on the ring, 0 to 100.
    pub fn share_weight(&self, now: Duration) -> u32 {
        match self.full_at {
            Some(full_at) if self.eligible() => (self.counts.min(FULL_WEIGHT) * slow_start(full_at, now) / 100).max(1),
            _ => 0,
        }
    }

    /// A word for its state, and why it is in it.
    pub fn state(&self) -> (&'static str, &str) {
        match self.vitals.verdict {
            Verdict::Ejected => ("ejected", "silent for too long"),
            Verdict::Suspect => ("suspect", "holds frames and acknowledges none"),
            Verdict::Well if self.removed_by.is_some() => ("draining", "it was removed from the cluster"),
            Verdict::Well if self.leaving => ("draining", "it is going"),
            Verdict::Well if self.drained => ("draining", "an operator asked for it"),
            Verdict::Well if !self.weight.ready => ("joining", &self.weight.reason),
            Verdict::Well if self.weight.overloaded => ("overloaded", &self.weight.reason),
            Verdict::Well => ("ready", &self.weight.reason),
        }
    }

    fn describe(&self, now: Duration) -> Server {
        let (state, reason) = self.state();
        Server {
            name: self.name.clone(),
            role: "worker".into(),
            state: state.into(),
            address: alloc::format!("{}", self.address),
            http: self.http.clone(),
            version: self.software.clone(),
            started_at: self.started_at,
            weight: self.share_weight(now),
            share: 0.0,
            in_flight: self.in_flight,
            reason: reason.into(),
            instance: self.instance,
            key: self.key.clone(),
            ..Server::default()
        }
    }
}

/// How long it is until the weights of the next slot count.
fn to_next_slot(now: UnixMicros) -> Duration {
    let slot = WEIGHT_SLOT_SECS * 1_000_000;
    Duration::from_micros(slot - now.0 % slot)
}

/// A worker that was connected.
#[derive(Clone, Debug)]
struct Gone {
    at: Duration,
    /// It went without a word.
    silent: bool,
    server: Server,
}

/// All connected workers, and those that went lately.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    connected: BTreeMap<WorkerId, Worker>,
    by_name: BTreeMap<String, WorkerId>,
    gone: VecDeque<Gone>,
}

impl Workers {
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.connected.get(&id)
    }

    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.connected.get_mut(&id)
    }

    pub fn id_of(&self, name: &str) -> Option<WorkerId> {
        self.by_name.get(name).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.connected.iter().map(|(&id, worker)| (id, worker))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (WorkerId, &mut Worker)> {
        self.connected.iter_mut().map(|(&id, worker)| (id, worker))
    }

    /// Takes a worker in; nobody else may have its name.
    pub fn insert(&mut self, id: WorkerId, worker: Worker) {
        self.gone.retain(|gone| gone.server.name != worker.name);
        self.by_name.insert(worker.name.clone(), id);
        self.connected.insert(id, worker);
    }

    /// Takes a worker out and remembers it for a while.
    pub fn remove(&mut self, id: WorkerId, now: Duration) -> Option<Worker> {
        let worker = self.connected.remove(&id)?;
        if self.by_name.get(&worker.name) == Some(&id) {
            self.by_name.remove(&worker.name);
        }
        if self.gone.len() >= GONE_LIMIT {
            self.gone.pop_front();
        }
        let mut server = worker.describe(now);
        server.state = "gone".into();
        server.weight = 0;
        server.in_flight = 0;
        server.reason = if worker.leaving { "it left" } else { "its link closed" }.into();
        self.gone.push_back(Gone { at: now, silent: !worker.leaving, server });
        Some(worker)
    }

    /// Names of the workers that are silent now, in order: also those whose link has just closed.
    pub fn silent(&self, now: Duration) -> Vec<String> {
        let connected = self.connected.values().filter(|w| w.vitals.verdict != Verdict::Well).map(|w| &w.name);
        let gone = self.gone.iter().filter(|g| g.silent && now < g.at + GONE_SUSPECT).map(|g| &g.server.name);
        let mut names: Vec<String> = connected.chain(gone).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Names of the workers that have room for more work, in order.
    pub fn with_room(&self, now: Duration) -> Vec<String> {
        let mut names: Vec<String> =
            self.connected.values().filter(|w| w.has_room(now)).map(|w| w.name.clone()).collect();
        names.sort();
        names
    }

    /// When the list of the silent gets shorter by itself.
    pub fn next_forgiven(&self, now: Duration) -> Option<Duration> {
        self.gone.iter().map(|g| g.at + GONE_SUSPECT).find(|&at| at > now)
    }

    /// Everybody, for an operator.
    pub fn describe(&self, now: Duration) -> Vec<Server> {
        let gone = self.gone.iter().filter(|g| now < g.at + GONE_SHOWN).map(|g| g.server.clone());
        let mut servers: Vec<Server> = self.connected.values().map(|w| w.describe(now)).chain(gone).collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        servers
    }
}
