//! Workers coming, speaking and going.

use alloc::{format, string::String, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use limpet_shared::{
    Now, Rule,
    link::{
        Clock, ClusterHave, Hello, Refused, Remove, RevokedKey, Spare, Suspects, VERSION, Weight, Welcome,
        to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker,
    },
};

use super::{Balancer, START_UP};
use crate::{
    action::{Action, Event, WorkerId},
    health::{SLOW_START, Verdict},
    retention::FrameId,
    routing::Member,
    sightings,
    workers::Worker,
};

/// A removed worker has this long to finish what it holds.
const REMOVAL: Duration = Duration::from_secs(20);

/// A link that is silent for so long gives its name up to a newcomer.
const NAME_HELD: Duration = Duration::from_millis(300);

impl Balancer {
    /// A worker said hello on a new connection. It is welcomed, or refused and closed.
    pub fn on_worker_connected(&mut self, now: Now, id: WorkerId, address: SocketAddr, hello: Hello) {
        self.tick(now);
        if let Some(refused) = self.refusal(now, &hello) {
            let reason = refused.reason.clone();
            // A worker that finds a second way to the same balancer has done nothing wrong.
            if refused.linked == 0 {
                self.event(Event::WorkerRefused { name: hello.name, reason: reason.clone() });
            }
            self.control(id, ToWorker::Refused(refused));
            return self.push(Action::CloseWorker { worker: id, reason });
        }
        if let Some(before) = self.workers.id_of(&hello.name) {
            self.push(Action::CloseWorker { worker: before, reason: "replaced by a newer connection".into() });
            self.forget_worker(now, before);
        }
        let welcome = Welcome {
            version: VERSION,
            name: self.config.name.clone(),
            instance: self.config.instance,
            cluster_version: self.knowledge.version(),
            cluster_digest: Some(self.knowledge.digest()),
            software: self.config.software.clone(),
            admin: self.config.admin.clone(),
            now: now.unix.0,
        };
        self.control(id, ToWorker::Welcome(welcome));
        for sightings in sightings::table(self.gateways.asking(now.mono), now.mono) {
            self.control(id, ToWorker::Sightings(sightings));
        }
        self.network.linked(&hello);
        let live = self.live(now);
        let says = hello.weight.as_ref().and_then(|weight| weight.drained);
        let (drained, tell) = self.drains.linked(&hello.name, hello.instance, says);
        self.workers.insert(id, Worker { drained, ..Worker::new(address, hello, live) });
        if let Some(drain) = tell {
            self.control(id, ToWorker::Drain(drain));
        }
        let names = self.workers.silent(now.mono);
        if !names.is_empty() && names == self.suspects_told {
            self.control(id, ToWorker::Suspects(Suspects { names }));
        }
        if !self.room_told.is_empty() {
            self.control(id, ToWorker::Spare(Spare { names: self.room_told.clone() }));
        }
        self.announce(id);
        self.workers_changed(now);
    }

    fn refusal(&self, now: Now, hello: &Hello) -> Option<Refused> {
        let refused = |reason: String, retry| Some(Refused { reason, retry, ..Refused::default() });
        if hello.version == 0 || hello.name.is_empty() {
            return refused("the hello names no version or no worker".into(), false);
        }
        if self.knowledge.is_key_revoked(&hello.key) {
            let reason = format!("{} was removed from this cluster, and its certificate is revoked", hello.name);
            return Some(Refused { reason, removed: true, ..Refused::default() });
        }
        if self.stop_by.is_some() {
            return refused("this balancer is stopping".into(), true);
        }
        if let Some(refused) = self.network.objection(hello) {
            return Some(refused);
        }
        let holder = self.workers.get(self.workers.id_of(&hello.name)?)?;
        if holder.instance == hello.instance && hello.linked.contains(&self.config.instance) {
            let reason = format!("{} has a link to this balancer already, at another of its addresses", hello.name);
            return Some(Refused { reason, retry: true, linked: self.config.instance, ..Refused::default() });
        }
        // A suspicion takes a tenth of that, and is false more often than not.
        let silent = holder.vitals.verdict == Verdict::Ejected || holder.vitals.silence(self.live(now)) > NAME_HELD;
        if silent || holder.instance == hello.instance {
            return None;
        }
        refused(format!("the name {} is taken by another live server", hello.name), true)
    }

    /// A worker's connection is closed, from whichever side.
    pub fn on_worker_closed(&mut self, now: Now, id: WorkerId) {
        self.tick(now);
        self.forget_worker(now, id);
        self.workers_changed(now);
    }

    fn forget_worker(&mut self, now: Now, id: WorkerId) {
        let Some(worker) = self.workers.remove(id, now.mono) else { return };
        let reason = if worker.leaving { "it left" } else { "its link closed" };
        self.event(Event::Worker { name: worker.name, state: "gone", reason: reason.into() });
        // The ring first: nothing may be handed to a worker that is gone.
        self.rebuild_ring(now);
        let orphans: Vec<FrameId> = self.retention.forget_worker(id);
        for frame in orphans {
            self.orphaned(now, frame);
        }
    }

    /// A message came on a worker's control stream. Admin messages are the driver's.
    pub fn on_control(&mut self, now: Now, id: WorkerId, message: ToBalancer) {
        self.tick(now);
        let live = self.live(now);
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.vitals.heard(live);
        match message {
            ToBalancer::Cluster(cluster) => {
                let changed = self.knowledge.apply(&cluster);
                self.knowledge_told(now, id, changed);
            }
            ToBalancer::ClusterDelta(delta) => {
                let changed = self.knowledge.apply_delta(&delta);
                self.knowledge_told(now, id, changed);
            }
            ToBalancer::Weight(weight) => self.weigh(now, id, weight),
            ToBalancer::Alive(alive) => {
                worker.in_flight = alive.in_flight;
                if alive.asked_at > 0 {
                    self.control(id, ToWorker::Clock(Clock { asked_at: alive.asked_at, now: now.unix.0 }));
                }
                self.alive(now, id);
            }
            ToBalancer::Downlink(downlink) => self.downlink(now, id, downlink),
            ToBalancer::Drain(drain) => {
                worker.leaving = drain.on;
                self.announce(id);
                self.workers_changed(now);
            }
            ToBalancer::Hello(_) | ToBalancer::Renew(_) | ToBalancer::Admin(_) | ToBalancer::AdminReply(_) => {}
        }
    }

    fn knowledge_told(&mut self, now: Now, from: WorkerId, changed: bool) {
        let version = self.knowledge.version();
        if changed {
            for gateway in self.gateways.reconcile(&self.knowledge, self.config.accept_unknown_gateways) {
                self.push(Action::Unpublish { gateway });
            }
            self.event(Event::ClusterChanged { version, gateways: self.knowledge.gateways() });
            self.push(Action::PersistCluster);
            self.workers_changed(now);
        }
        let digest = Some(self.knowledge.digest());
        self.control(from, ToWorker::ClusterHave(ClusterHave { version, digest }));
    }

    /// Certificates that count no more. Who is linked with one of them drains, ends, and is not let in again.
    pub fn revoke(&mut self, now: Now, servers: impl Iterator<Item = RevokedKey>) {
        self.tick(now);
        if !self.knowledge.revoke(servers) {
            return;
        }
        self.push(Action::PersistCluster);
        let going: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, w)| w.removed_by.is_none() && self.knowledge.is_key_revoked(&w.key))
            .map(|(id, _)| id)
            .collect();
        for &id in &going {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.removed_by = Some(now.mono + REMOVAL);
            }
            self.control(id, ToWorker::Remove(Remove {}));
            self.announce(id);
        }
        if !going.is_empty() {
            self.workers_changed(now);
        }
    }

    /// All certificates that count no more, as far as this balancer knows.
    pub fn revoked(&self) -> impl Iterator<Item = &RevokedKey> {
        self.knowledge.revoked()
    }

    /// Whoever was removed and has not ended by itself loses its link.
    pub(super) fn close_removed(&mut self, now: Now) {
        let overdue = |worker: &Worker| worker.removed_by.is_some_and(|at| at <= now.mono);
        let late: Vec<WorkerId> = self.workers.iter().filter(|(_, w)| overdue(w)).map(|(id, _)| id).collect();
        for &id in &late {
            self.push(Action::CloseWorker { worker: id, reason: "it was removed, and has not ended by itself".into() });
            self.forget_worker(now, id);
        }
        if !late.is_empty() {
            self.workers_changed(now);
        }
    }

    fn weigh(&mut self, now: Now, id: WorkerId, weight: Weight) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if weight.number <= worker.weight.number {
            return;
        }
        let shown = |w: &Worker| (w.state().0, w.weight.ready, w.weight.weight, w.weight.spare);
        let before = shown(worker);
        if let Some(drained) = self.drains.says(&worker.name, worker.instance, weight.drained) {
            worker.drained = drained;
        }
        worker.says(weight, now);
        let after = shown(worker);
        if before.0 != after.0 || before.1 != after.1 {
            self.announce(id);
        }
        if before != after {
            self.workers_changed(now);
        }
    }

    /// Its control loop runs. That says nothing of its frames, unless it has none.
    fn alive(&mut self, now: Now, id: WorkerId) {
        let ejected = self.workers.get(id).is_some_and(|w| w.vitals.verdict == Verdict::Ejected);
        if ejected || self.retention.unfinished_count(id) == 0 {
            self.recovered(now, id);
        }
    }

    /// A worker has shown that it lives: an end to any verdict against it.
    pub(super) fn recovered(&mut self, now: Now, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.vitals.verdict == Verdict::Well {
            return;
        }
        worker.vitals.verdict = Verdict::Well;
        let live = self.clock.live(now.mono);
        if self.retention.unfinished_count(id) > 0
            && let Some(worker) = self.workers.get_mut(id)
        {
            worker.vitals.acked(live);
        }
        self.announce(id);
        self.workers_changed(now);
    }

    /// Lets the ring, the workers and the frames that wait follow what has changed.
    pub(super) fn workers_changed(&mut self, now: Now) {
        self.rebuild_ring(now);
        self.tell_suspects(now);
        self.tell_room(now);
        self.rescue(now);
    }

    pub(super) fn rebuild_ring(&mut self, now: Now) {
        self.ring_built = now.mono;
        let young = now.mono < self.started.unwrap_or_default() + START_UP;
        let at_once = young || !self.config.keeps(Rule::SlowStart);
        let full_at = if at_once { now.mono } else { now.mono + SLOW_START };
        for (_, worker) in self.workers.iter_mut() {
            worker.settle_weight(now.mono);
            if !worker.eligible() {
                worker.full_at = None;
            } else {
                worker.full_at.get_or_insert(full_at);
            }
        }
        let mut members: Vec<Member> = self
            .workers
            .iter()
            .map(|(id, worker)| (worker.name.clone(), worker.share_weight(now.mono), id))
            .filter(|(_, weight, _)| *weight > 0)
            .collect();
        members.sort();
        let known = self.knowledge.ring_key().filter(|_| self.config.keeps(Rule::ClustersRing));
        let mut key = known.unwrap_or(self.config.ring_key);
        if !self.config.keeps(Rule::StickyRing) {
            key[0] ^= members.len() as u8;
        }
        if self.routing.update(key, members) {
            self.event(Event::RingChanged { epoch: self.routing.epoch() });
        }
    }

    pub(super) fn tell_suspects(&mut self, now: Now) {
        self.suspects_at = now.mono;
        let names = self.workers.silent(now.mono);
        if names == self.suspects_told {
            return;
        }
        self.suspects_told.clone_from(&names);
        let everyone: Vec<WorkerId> = self.workers.iter().map(|(id, _)| id).collect();
        for id in everyone {
            self.control(id, ToWorker::Suspects(Suspects { names: names.clone() }));
        }
    }

    /// Tells every worker who has room for more work.
    pub(super) fn tell_room(&mut self, now: Now) {
        let names = self.workers.with_room(now.mono);
        if names == self.room_told {
            return;
        }
        self.room_told.clone_from(&names);
        let everyone: Vec<WorkerId> = self.workers.iter().map(|(id, _)| id).collect();
        for id in everyone {
            self.control(id, ToWorker::Spare(Spare { names: names.clone() }));
        }
    }

    /// Says which state a worker is in now.
    pub(super) fn announce(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let (state, reason) = worker.state();
        let event = Event::Worker { name: worker.name.clone(), state, reason: reason.into() };
        self.event(event);
    }
}
