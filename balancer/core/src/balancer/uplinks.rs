//! From a datagram to a retained frame.

use alloc::vec::Vec;

use bytes::Bytes;
use limpet_shared::{
    Eui64, Now,
    gwmp::{self, UpKind},
    link::{GatewaySeen, to_worker::Kind as ToWorker},
};

use super::Balancer;
use crate::{
    action::{Action, DropReason, Event, Route, Source, WorkerId},
    addresses::Place,
    gateways::{Cost, Refusal},
    header::{self, Header},
    retention::RetainedFrame,
};

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
            kind => {
                let packets = if kind == UpKind::PushData { header::packets(&datagram) } else { 1 };
                let bytes = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
                self.hear(now, read, (&header, Cost { packets, bytes }), source)
            }
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
            UpKind::TxAck => self.tx_ack(now, &header, source, datagram.get(header::LEN..).unwrap_or_default()),
        });
        if let Err(reason) = taken {
            self.dropped(reason, Some(header.gateway), Some(source.address));
        }
    }

    /// Lets the gateway in and tells whom it concerns.
    fn hear(&mut self, now: Now, read: Now, (header, cost): (&Header, Cost), source: Source) -> Result<(), DropReason> {
        let gateway = header.gateway;
        let admitted = match self.gateways.hear(read, (header, cost), source, &self.knowledge, &self.config) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.refused(read, gateway, source, refusal);
                return Err(refusal.reason);
            }
        };
        self.event(Event::Received { kind: header::label(header.kind) });
        if let Some(address) = admitted.held {
            self.push(Action::Hold { gateway, address });
        }
        if let Some(evicted) = admitted.evicted {
            self.push(Action::Unpublish { gateway: evicted });
        }
        if let Some(from) = admitted.moved_from {
            self.event(Event::GatewayMoved { gateway, from, to: source.address });
        }
        if admitted.tell_all {
            self.sightings.add(gateway, now.mono);
            self.tell_sightings(now);
        }
        let worker = self.worker_of(gateway);
        // Not the epoch of the choice: a redelivery may have made that before.
        let published = self.gateways.get(gateway).and_then(|entry| entry.published);
        if admitted.tell_worker || admitted.rerouted || published != Some(self.routing.epoch()) {
            self.publish(gateway, worker);
        }
        if admitted.tell_worker
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
        let Some(address) = entry.addresses.last_asked().map(|source| source.address).or(entry.address) else { return };
        entry.published = Some(epoch);
        let worker = worker.and_then(|id| self.workers.get(id)).map(|w| w.name.clone());
        let route = Route { address, worker, epoch, last_seen: entry.last_seen };
        self.push(Action::Publish { gateway, route });
    }

    fn refused(&mut self, now: Now, gateway: Eui64, source: Source, refusal: Refusal) {
        let Refusal { reason, until } = refusal;
        if reason == DropReason::UnknownGateway && self.gateways.reject(now, gateway, source.address) {
            self.event(Event::UnknownGateway { gateway, address: source.address });
        }
        if let Some(until) = until {
            self.push(Action::Mute { gateway, address: source.address.ip(), until, reason });
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
        let mut frame = RetainedFrame::new(header.gateway, source, header.version, header.token, datagram);
        frame.received_at = read.unix;
        frame.arrived = read.mono;
        let entry = self.gateways.get(header.gateway);
        let place = entry.map(|entry| entry.addresses.place(source.address.ip(), header.kind, now.mono));
        frame.place = place.unwrap_or(Place::Elsewhere);
        self.deliver_first(now, frame)
    }
}
