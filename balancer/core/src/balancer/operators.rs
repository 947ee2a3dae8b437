//! What operators ask of a balancer that it can answer itself.

use alloc::{format, string::String, vec::Vec};

use limpet_shared::{
    Eui64, Now,
    admin::{ErrorKind, Gateway, Reply, Request, RingReport, RingWorker, Server},
    link::{Drain, to_worker::Kind as ToWorker},
};

use super::Balancer;
use crate::{action::WorkerId, gateways, health::Verdict, workers::Worker};

/// Gateways named in one answer.
const MAX_LISTED: usize = 10_000;

impl Balancer {
    /// The answer, or `None` if others know it: the driver (join tokens) or a worker (what is in the store).
    pub fn admin(&mut self, now: Now, request: &Request) -> Option<Reply> {
        self.tick(now);
        match request {
            Request::Servers => Some(Reply::Servers { servers: self.servers(now) }),
            Request::Ring { eui } => Some(Reply::Ring(self.describe_ring(*eui))),
            Request::Drain { name, on, .. } => Some(self.drain(now, name, *on)),
            Request::GatewaysHeard { unknown: true, .. } => Some(Reply::gateways(self.rejected_gateways())),
            Request::GatewaysHeard { only, .. } => Some(Reply::gateways(self.heard_gateways(only))),
            _ => None,
        }
    }

    /// This balancer's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The worker to pass a question on to. One that is not ready (its store is away, its disk full) still knows itself and what it
    /// read last: `unready` lets it answer where no other can.
    pub fn admin_worker(&self, unready: bool) -> Option<WorkerId> {
        let one = |ready, verdict| {
            let may =
                move |w: &Worker| w.weight.ready == ready && w.removed_by.is_none() && w.vitals.verdict == verdict;
            self.workers.iter().find(move |(_, w)| may(w)).map(|(id, _)| id)
        };
        let ready = one(true, Verdict::Well).or_else(|| one(true, Verdict::Suspect));
        ready.or_else(|| unready.then(|| one(false, Verdict::Well)).flatten())
    }

    fn servers(&self, now: Now) -> Vec<Server> {
        let itself = Server {
            name: self.config.name.clone(),
            role: "balancer".into(),
            state: if self.stop_by.is_some() { "draining" } else { "ready" }.into(),
            http: self.config.admin.clone(),
            version: self.config.software.clone(),
            started_at: self.config.started_at,
            instance: self.config.instance,
            in_flight: u32::try_from(self.retention.held()).unwrap_or(u32::MAX),
            ..Server::default()
        };
        let mut servers = self.workers.describe(now.mono);
        for (name, _, share) in self.shares() {
            let connected = servers.iter_mut().find(|s| s.name == name && s.state != "gone");
            if let Some(server) = connected {
                server.share = share;
            }
        }
        servers.insert(0, itself);
        servers
    }

    /// Each worker of the ring, its weight and its share.
    fn shares(&self) -> impl Iterator<Item = (&str, u32, f64)> {
        // A sum of many parts may come out a little above one.
        self.routing.ring().shares().map(|(name, weight, share)| (name, weight, share.min(1.0)))
    }

    fn describe_ring(&self, eui: Option<Eui64>) -> RingReport {
        let shares = self.shares();
        let workers = shares.map(|(name, weight, share)| RingWorker { name: name.into(), weight, share }).collect();
        let mut ring = RingReport { epoch: self.routing.epoch(), workers, ..RingReport::default() };
        if let Some(eui) = eui {
            let order = self.routing.ring().order(eui, usize::MAX);
            ring.worker = order.first().map(|name| String::from(*name));
            ring.next = order.iter().skip(1).map(|name| String::from(*name)).collect();
            ring.why = Some(self.explain(eui, order.first().copied()));
        }
        ring
    }

    fn explain(&self, eui: Eui64, name: Option<&str>) -> String {
        let worker = name.and_then(|name| self.workers.get(self.workers.id_of(name)?));
        let (Some(name), Some(worker)) = (name, worker) else {
            return "no worker has a share of the ring: none is connected, ready and not draining".into();
        };
        if worker.vitals.verdict != Verdict::Well {
            return format!(
                "{name} has the first point after {eui} on the ring, but it is silent now: new frames go to the next one"
            );
        }
        format!("{name} has the first point after {eui} on the ring")
    }

    fn drain(&mut self, now: Now, name: &str, on: bool) -> Reply {
        let Some(id) = self.workers.id_of(name) else {
            if !on {
                self.drains.ask(name, false);
            }
            return Reply::Error { kind: ErrorKind::NotFound, message: format!("no worker named {name} is connected") };
        };
        self.drains.ask(name, on);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.drained = on;
        }
        self.control(id, ToWorker::Drain(Drain { on, ..Drain::default() }));
        self.announce(id);
        self.workers_changed(now);
        let message = if on {
            format!("{name} gets no new frames and finishes what it holds")
        } else {
            format!("{name} comes back to the ring")
        };
        Reply::Done { message }
    }

    /// Only these, if any are named.
    fn heard_gateways(&self, only: &[Eui64]) -> Vec<Gateway> {
        let listed = |(eui, entry, known): (Eui64, &gateways::Gateway, bool)| Gateway {
            online: None,
            eui,
            name: String::new(),
            known,
            address: entry.address.map(|address| format!("{address}")),
            last_seen: Some(entry.last_seen),
            worker: self.routing.ring().choose(eui).map(String::from),
            epoch: Some(self.routing.epoch()),
            // The store has it, and a worker tells.
            policy: None,
        };
        match only {
            [] => self.gateways.heard().take(MAX_LISTED).map(listed).collect(),
            only => only.iter().take(MAX_LISTED).filter_map(|&eui| self.gateways.heard_of(eui)).map(listed).collect(),
        }
    }

    fn rejected_gateways(&self) -> Vec<Gateway> {
        let rejected = self.gateways.rejected();
        rejected
            .map(|(eui, entry)| Gateway {
                eui,
                known: false,
                address: Some(format!("{}", entry.address)),
                last_seen: Some(entry.last_seen),
                ..Gateway::default()
            })
            .collect()
    }
}
