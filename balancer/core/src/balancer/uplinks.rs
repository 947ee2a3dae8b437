//! From a datagram to *done*.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use limpet_shared::{
    Eui64, Now,
    gwmp::{self, UpKind},
    link::{Ack, GatewaySeen, to_worker::Kind as ToWorker},
};

use super::Balancer;
use crate::{
    action::{Action, DropReason, Event, Redelivery, Route, Source, WorkerId},
    config::AckAt,
    header::{self, Header},
    health::Verdict,
    retention::{Frame, FrameId},
};

/// For how long a frame waits for a worker to come, or for the store of all of them: the longest total outage that is
/// survived, if memory lasts so long.
pub const WAIT_FOR_WORKER: Duration = Duration::from_secs(3_600);
/// Read but not stored for so long: one other worker is tried. The store may be slow, and double load helps no store.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// A frame that nobody finishes for so long is tried elsewhere, so that none can stay for ever.
pub const UNFINISHED: Duration = Duration::from_secs(30);
/// A frame whose workers failed more often than this is set aside.
pub const MAX_FAILURES: u8 = 10;

impl Balancer {
    /// A datagram came in: it was `read` from its socket then, and may have waited since. That time is its receive time;
    /// workers owe an answer only from `now` on.
    pub fn on_datagram(&mut self, now: Now, read: Now, source: Source, datagram: Bytes) {
        self.tick(now);
        let header = match Header::parse(&datagram) {
            Ok(header) => header,
            Err(reason) => return self.dropped(reason, None, Some(source.address)),
        };
        let taken = match header.kind {
            _ if self.stop_by.is_some() && header.kind != UpKind::TxAck => Err(DropReason::Stopping),
            _ => self.hear(now, read, &header, source),
        };
        let taken = taken.and_then(|()| match header.kind {
            UpKind::PushData => self.push_data(now, read, &header, source, datagram),
            UpKind::PullData => {
                self.push(Action::SendUdp {
                    to: source,
                    bytes: gwmp::pull_ack(header.version, header.token).to_vec().into(),
                });
                Ok(())
            }
            UpKind::TxAck => self.tx_ack(now, &header, datagram.get(header::LEN..).unwrap_or_default()),
        });
        if let Err(reason) = taken {
            self.dropped(reason, Some(header.gateway), Some(source.address));
        }
    }

    /// Lets the gateway in and tells whom it concerns.
    fn hear(&mut self, now: Now, read: Now, header: &Header, source: Source) -> Result<(), DropReason> {
        let gateway = header.gateway;
        let heard = match self.gateways.hear(read, header, source, &self.knowledge, &self.config) {
            Ok(heard) => heard,
            Err(reason) => {
                if reason == DropReason::UnknownGateway {
                    self.reject(read, gateway, source);
                }
                return Err(reason);
            }
        };
        self.event(Event::Received { kind: header::label(header.kind) });
        if let Some(evicted) = heard.evicted {
            self.push(Action::Unpublish { gateway: evicted });
        }
        if let Some(from) = heard.moved_from {
            self.event(Event::GatewayMoved { gateway, from, to: source.address });
        }
        if heard.asked {
            self.sightings.add(gateway, now.mono);
            self.tell_sightings(now);
        }
        let worker = self.worker_of(gateway);
        // Not the epoch of the choice: a redelivery may have made that before.
        let published = self.gateways.get(gateway).and_then(|entry| entry.published);
        if heard.tell || heard.rerouted || published != Some(self.routing.epoch()) {
            self.publish(gateway, worker);
        }
        if heard.tell
            && let Some(worker) = worker
        {
            let (address, version) = (alloc::format!("{}", source.address), u32::from(header.version));
            let seen = GatewaySeen { eui: gateway.0, address, at: read.unix.0, version };
            self.control(worker, ToWorker::GatewaySeen(seen));
        }
        Ok(())
    }

    /// Tells every worker which gateways have asked for downlinks here, once there is something to tell.
    pub(super) fn tell_sightings(&mut self, now: Now) {
        let Some(sightings) = self.sightings.take(now.mono) else { return };
        let everyone: Vec<WorkerId> = self.workers.iter().map(|(id, _)| id).collect();
        for id in everyone {
            self.control(id, ToWorker::Sightings(sightings.clone()));
        }
    }

    fn publish(&mut self, gateway: Eui64, worker: Option<WorkerId>) {
        let epoch = self.routing.epoch();
        let Some(entry) = self.gateways.get_mut(gateway) else { return };
        let Some(address) = entry.pull.map(|(source, _)| source.address).or(entry.address) else { return };
        entry.published = Some(epoch);
        let worker = worker.and_then(|id| self.workers.get(id)).map(|w| w.name.clone());
        let route = Route { address, worker, epoch, last_seen: entry.last_seen };
        self.push(Action::Publish { gateway, route });
    }

    fn reject(&mut self, now: Now, gateway: Eui64, source: Source) {
        if self.gateways.reject(now, gateway, source.address) {
            self.event(Event::UnknownGateway { gateway, address: source.address });
        }
    }

    fn push_data(
        &mut self,
        now: Now,
        read: Now,
        header: &Header,
        source: Source,
        datagram: Bytes,
    ) -> Result<(), DropReason> {
        let mut frame = Frame::new(header.gateway, source, header.version, header.token, datagram);
        frame.received_at = read.unix;
        frame.arrived = read.mono;
        let id = self.retention.admit(frame)?;
        if !self.deliver(now, id) {
            self.retention.set_deadline(id, now.mono + WAIT_FOR_WORKER);
        }
        Ok(())
    }

    /// Gives the frame to the best worker that does not have it yet; false if there is none.
    fn deliver(&mut self, now: Now, id: FrameId) -> bool {
        self.deliver_avoiding(now, id, &[])
    }

    fn deliver_avoiding(&mut self, now: Now, id: FrameId, besides: &[WorkerId]) -> bool {
        let Some(frame) = self.retention.frame(id) else { return false };
        let gateway = frame.gateway;
        let held_by = frame.holders.iter().map(|h| h.worker);
        let mut avoid: Vec<WorkerId> = held_by.chain(besides.iter().copied()).collect();
        let held = !frame.holders.is_empty();
        let own = self.worker_of(gateway);
        let well = |id: &WorkerId| self.workers.get(*id).is_some_and(|w| w.vitals.verdict == Verdict::Well);
        let chosen = match own.filter(|id| well(id) && !avoid.contains(id)) {
            Some(own) => Some(own),
            None => {
                avoid.extend(self.workers.iter().map(|(id, _)| id).filter(|id| !well(id)));
                // With nobody else there, its own worker, which is silent for a moment.
                self.routing.choose_avoiding(gateway, &avoid).or(own.filter(|_| !held))
            }
        };
        let Some(worker) = chosen else { return false };
        let Some(message) = self.retention.assign(id, worker, now.mono) else { return false };
        let (stored, patient) = self.retention.frame(id).map_or((false, false), |f| (f.stored, f.patience_used));
        self.retention.set_deadline(id, now.mono + if stored || patient { UNFINISHED } else { PATIENCE });
        let live = self.live(now);
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.vitals.busy(live, stored);
        }
        self.push(Action::SendFrame { worker, frame: message });
        true
    }

    /// Gives the frame to another worker, unless a healthy one has it; after too many failures it is given up.
    pub(super) fn redeliver(&mut self, now: Now, id: FrameId, why: Redelivery) {
        self.redeliver_avoiding(now, id, why, &[]);
    }

    fn redeliver_avoiding(&mut self, now: Now, id: FrameId, why: Redelivery, besides: &[WorkerId]) {
        let Some(frame) = self.retention.frame_mut(id) else { return };
        frame.failures = frame.failures.saturating_add(1);
        if frame.failures > MAX_FAILURES {
            return self.give_up(id, DropReason::Poison);
        }
        let (gateway, attempt) = (frame.gateway, frame.deliveries);
        let unheld = frame.holders.is_empty();
        if self.deliver_avoiding(now, id, besides) {
            self.event(Event::Redelivered { gateway, attempt, why });
        } else if unheld {
            self.retention.set_deadline(id, now.mono + WAIT_FOR_WORKER);
        } else {
            self.retention.set_deadline(id, now.mono + UNFINISHED);
        }
    }

    /// A worker acknowledges frames.
    pub fn on_ack(&mut self, now: Now, worker: WorkerId, ack: &Ack) {
        self.tick(now);
        let live = self.live(now);
        let Some(sender) = self.workers.get_mut(worker) else { return };
        sender.vitals.acked(live);
        let push_acks = self.retention.on_ack(worker, ack, self.config.ack == AckAt::Received);
        for due in push_acks {
            self.push(Action::SendUdp { to: due.to, bytes: gwmp::push_ack(due.version, due.token).to_vec().into() });
            self.event(Event::PushAcked { after: now.mono.saturating_sub(due.arrived) });
        }
        self.settle_idle();
        self.recovered(now, worker);
        if self.held_back {
            self.judge(now);
        }
    }

    /// A worker that holds nothing owes no acknowledgement, and one whose frames are stored owes it less often, whoever
    /// did that.
    pub(super) fn settle_idle(&mut self) {
        for (id, worker) in self.workers.iter_mut() {
            if self.retention.unfinished_count(id) == 0 {
                worker.vitals.idle();
            } else if self.retention.unstored_since(id).is_none() {
                worker.vitals.calm();
            }
        }
    }

    /// Frames that no healthy worker has, while one may be there to take them.
    pub(super) fn rescue(&mut self, now: Now) {
        let waiting: Vec<FrameId> = self.retention.waiting().collect();
        for id in waiting {
            if !self.deliver(now, id) && self.routing.is_empty() {
                break;
            }
        }
        let silent: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.vitals.verdict != Verdict::Well).map(|(id, _)| id).collect();
        for worker in silent {
            let stuck: Vec<FrameId> = self.retention.unfinished(worker).collect();
            for id in stuck.into_iter().filter(|&id| !self.in_good_hands(id)).collect::<Vec<_>>() {
                self.hand_over(now, id, Redelivery::Silent, &[]);
            }
        }
    }

    /// Whether a healthy worker has the frame.
    pub(super) fn in_good_hands(&self, id: FrameId) -> bool {
        let Some(frame) = self.retention.frame(id) else { return true };
        let well = |id| self.workers.get(id).is_some_and(|w| w.vitals.verdict == Verdict::Well);
        frame.holders.iter().any(|holder| well(holder.worker))
    }

    /// Like [`Self::redeliver`], but to none of `besides`, and counts as a failure only if somebody takes it; false if
    /// nobody can.
    fn hand_over(&mut self, now: Now, id: FrameId, why: Redelivery, besides: &[WorkerId]) -> bool {
        let Some(frame) = self.retention.frame_mut(id) else { return false };
        let unwell = self.workers.iter().filter(|(_, w)| w.vitals.verdict != Verdict::Well).map(|(id, _)| id);
        let holders = frame.holders.iter().map(|h| h.worker);
        let avoid: Vec<WorkerId> = holders.chain(unwell).chain(besides.iter().copied()).collect();
        let taken = self.routing.choose_avoiding(frame.gateway, &avoid).is_some();
        if taken {
            frame.patience_used |= why == Redelivery::Slow;
            self.redeliver_avoiding(now, id, why, besides);
        }
        taken
    }

    /// A frame's moment has come.
    pub(super) fn on_frame_due(&mut self, now: Now, id: FrameId) {
        let Some(frame) = self.retention.frame(id) else { return };
        let heard_by = self.stalled_until + PATIENCE;
        if !frame.holders.is_empty() && now.mono < heard_by && self.stalled_until > Duration::ZERO {
            // What workers said while the balancer did not run is still to be read.
            self.retention.set_deadline(id, heard_by);
        } else if !frame.holders.is_empty() {
            self.on_slow(now, id);
        } else {
            self.give_up(id, DropReason::NoWorker);
        }
    }

    /// Its workers are well and do not get it stored, or done. Another one is asked, but not one that gets nothing stored
    /// either: then it is the store that is slow, and the same work once more would make it slower.
    fn on_slow(&mut self, now: Now, id: FrameId) {
        let Some(frame) = self.retention.frame_mut(id) else { return };
        let stored = frame.stored;
        if stored && now.mono < frame.arrived + UNFINISHED {
            // It was stored since the deadline was set.
            let finished_by = frame.arrived + UNFINISHED;
            return self.retention.set_deadline(id, finished_by);
        }
        let late = |given| given + PATIENCE <= now.mono;
        let workers = self.workers.iter().map(|(id, _)| id);
        let behind = workers.filter(|worker| self.retention.unstored_since(*worker).is_some_and(late));
        let behind: Vec<WorkerId> = behind.collect();
        if !self.hand_over(now, id, Redelivery::Slow, &behind) {
            let again = if stored { UNFINISHED } else { PATIENCE };
            self.retention.set_deadline(id, now.mono + again);
        }
    }

    fn give_up(&mut self, id: FrameId, reason: DropReason) {
        if let Some(frame) = self.retention.release(id) {
            self.dropped(reason, Some(frame.gateway), Some(frame.source.address));
            self.settle_idle();
        }
    }
}
