use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use limpet_balancer_core::{Action, Balancer, Config, DropReason, Event, Route, Source, WorkerId};
use limpet_shared::{
    Eui64, Now, UnixMicros,
    link::{
        Ack, Alive, Cluster, Downlink, Hello, KnownGateway, TxAck, UplinkFrame, VERSION, Weight, Window,
        to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker,
    },
};

pub const EPOCH: u64 = 1_700_000_000_000_000;
pub const KEY: [u8; 16] = [7; 16];

/// A worker in the test: says `received` at once, `stored` and `done` a little later, and repeats itself as the
/// link demands.
#[derive(Clone, Debug)]
pub struct SimWorker {
    pub name: String,
    pub frozen: bool,
    /// It leaves what it is sent unread, and acknowledges all the same.
    pub reads: bool,
    /// It never says `stored` (its database does not answer).
    pub stores: bool,
    pub inbox: Vec<(u64, UplinkFrame)>,
    pub seen: Vec<UplinkFrame>,
    pub control: Vec<ToWorker>,
    unstored: Vec<(u64, u64)>,
    undone: Vec<(u64, u64)>,
    received: u64,
    last_ack: u64,
}

pub const STORE_MS: u64 = 3;
pub const DONE_MS: u64 = 220;

pub struct World {
    pub ms: u64,
    pub balancer: Balancer,
    pub workers: BTreeMap<WorkerId, SimWorker>,
    pub udp: Vec<(u64, Source, Bytes)>,
    pub drops: Vec<(DropReason, Option<Eui64>)>,
    /// Where the dropped came from.
    pub dropped_from: Vec<SocketAddr>,
    pub events: Vec<Event>,
    pub routes: BTreeMap<Eui64, Route>,
    pub closed: Vec<(WorkerId, String)>,
    pub holds: BTreeMap<Eui64, IpAddr>,
    next_id: u64,
}

pub fn eui(n: u64) -> Eui64 {
    Eui64(0x0016_c001_0000_0000 + n)
}

pub fn source(n: u16) -> Source {
    Source { socket: 0, address: SocketAddr::from(([192, 0, 2, 1], n)), local: None }
}

pub fn gwmp(version: u8, token: u16, kind: u8, gateway: Eui64, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(version);
    out.put_u16(token);
    out.put_u8(kind);
    out.put_u64(gateway.0);
    out.put_slice(body);
    out.freeze()
}

pub fn cluster(version: u64, gateways: impl IntoIterator<Item = Eui64>) -> Cluster {
    Cluster {
        version,
        ring_key: Bytes::from_static(&KEY),
        gateways: gateways.into_iter().map(|g| KnownGateway { eui: g.0, ..KnownGateway::default() }).collect(),
        ..Cluster::default()
    }
}

impl World {
    /// A balancer that knows gateways 0 to 999, and has long been running.
    pub fn new(config: Config) -> Self {
        let known = cluster(1, (0..1_000).map(eui));
        let mut world = Self {
            ms: 0,
            balancer: Balancer::new(config, Some(&known)),
            workers: BTreeMap::new(),
            udp: Vec::new(),
            drops: Vec::new(),
            dropped_from: Vec::new(),
            events: Vec::new(),
            routes: BTreeMap::new(),
            closed: Vec::new(),
            holds: BTreeMap::new(),
            next_id: 0,
        };
        world.balancer.on_timeout(world.now());
        world
    }

    /// With these workers, settled.
    pub fn with_workers(names: &[&str]) -> Self {
        Self::with(Config::default(), names)
    }

    pub fn with(config: Config, names: &[&str]) -> Self {
        let mut world = Self::new(config);
        for name in names {
            world.connect(name);
        }
        world.run(10_000);
        world.events.clear();
        world
    }

    pub fn now(&self) -> Now {
        Self::at(self.ms)
    }

    fn at(ms: u64) -> Now {
        Now { mono: Duration::from_millis(ms), unix: UnixMicros(EPOCH + ms * 1_000) }
    }

    pub fn connect(&mut self, name: &str) -> WorkerId {
        self.connect_as(name, self.next_id + 1)
    }

    pub fn connect_as(&mut self, name: &str, instance: u64) -> WorkerId {
        self.connect_with(name, instance, "")
    }

    /// With this key in its certificate.
    pub fn connect_with(&mut self, name: &str, instance: u64, key: &str) -> WorkerId {
        self.next_id += 1;
        let id = WorkerId(self.next_id);
        let hello = Hello {
            version: VERSION,
            name: name.into(),
            instance,
            key: key.into(),
            weight: Some(Weight { number: 1, weight: 100, ready: true, ..Weight::default() }),
            ..Hello::default()
        };
        let worker = SimWorker {
            name: name.into(),
            frozen: false,
            reads: true,
            stores: true,
            inbox: Vec::new(),
            seen: Vec::new(),
            control: Vec::new(),
            unstored: Vec::new(),
            undone: Vec::new(),
            received: 0,
            last_ack: 0,
        };
        self.workers.insert(id, worker);
        self.balancer.on_worker_connected(self.now(), id, SocketAddr::from(([198, 51, 100, 1], 9)), hello);
        self.drain();
        id
    }

    /// kill -9, noticed by the link.
    pub fn close(&mut self, id: WorkerId) {
        self.workers.remove(&id);
        self.balancer.on_worker_closed(self.now(), id);
        self.drain();
    }

    pub fn control(&mut self, id: WorkerId, message: ToBalancer) {
        self.balancer.on_control(self.now(), id, message);
        self.drain();
    }

    pub fn ack(&mut self, id: WorkerId, ack: &Ack) {
        self.balancer.on_ack(self.now(), id, ack);
        self.drain();
    }

    pub fn datagram(&mut self, from: Source, bytes: Bytes) {
        self.datagram_read(self.ms, from, bytes);
    }

    /// It was read from the socket at that time, and the balancer gets to it now.
    pub fn datagram_read(&mut self, ms: u64, from: Source, bytes: Bytes) {
        self.balancer.on_datagram(self.now(), Self::at(ms), from, bytes);
        self.drain();
    }

    pub fn push(&mut self, gateway: u64, token: u16) {
        self.datagram(source(1_000 + gateway as u16), gwmp(2, token, 0, eui(gateway), b"{\"rxpk\":[]}"));
    }

    pub fn pull(&mut self, version: u8, gateway: u64) {
        self.datagram(source(20_000 + gateway as u16), gwmp(version, 77, 2, eui(gateway), b""));
    }

    pub fn tx_ack(&mut self, from: Source, gateway: u64, token: u16, body: &str) {
        self.datagram(from, gwmp(2, token, 5, eui(gateway), body.as_bytes()));
    }

    /// Lets time pass in steps of 1 ms, longer ones while nobody has anything to do.
    pub fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            let busy = self.workers.values().any(|w| !(w.frozen || w.inbox.is_empty() && w.undone.is_empty()));
            let due = self.balancer.next_timeout().map_or(end, |at| at.as_micros().div_ceil(1_000) as u64);
            let alive = (self.ms + 1).next_multiple_of(100);
            self.ms = if busy { self.ms + 1 } else { due.min(alive).clamp(self.ms + 1, end) };
            let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
            for id in ids {
                self.run_worker(id);
            }
            self.fire();
        }
    }

    fn fire(&mut self) {
        if self.balancer.next_timeout().is_some_and(|at| at <= self.now().mono) {
            self.balancer.on_timeout(self.now());
            self.drain();
        }
    }

    /// The balancer does not run for a while, nor does anybody hear from it.
    pub fn stall(&mut self, ms: u64) {
        self.stall_with(ms, &[]);
    }

    /// Meanwhile these come in: each is read from its socket so long after the beginning, and waits. Then the balancer
    /// takes what workers have said, the datagrams, and what is due, in this order.
    pub fn stall_with(&mut self, ms: u64, datagrams: &[(u64, Source, Bytes)]) {
        self.balancer.next_timeout();
        let began = self.ms;
        self.ms += ms;
        let ids: Vec<WorkerId> = self.workers.iter().filter(|(_, worker)| !worker.frozen).map(|(id, _)| *id).collect();
        for id in ids {
            let in_flight = self.workers[&id].undone.len() as u32;
            self.control(id, ToBalancer::Alive(Alive { in_flight, ..Alive::default() }));
        }
        for (after, from, bytes) in datagrams {
            self.datagram_read(began + after.min(&ms), *from, bytes.clone());
        }
        self.fire();
    }

    fn run_worker(&mut self, id: WorkerId) {
        let now = self.ms;
        let Some(worker) = self.workers.get_mut(&id).filter(|w| !w.frozen) else { return };
        let inbox = if worker.reads { std::mem::take(&mut worker.inbox) } else { Vec::new() };
        let got_some = !inbox.is_empty();
        for (_, frame) in inbox {
            assert!(frame.seq > worker.received, "numbers in order");
            worker.received = frame.seq;
            worker.unstored.push((now + STORE_MS, frame.seq));
            worker.undone.push((now + DONE_MS, frame.seq));
            worker.seen.push(frame);
        }
        let mut ack = Ack { received: worker.received, ..Ack::default() };
        if worker.stores {
            let due = |list: &mut Vec<(u64, u64)>| -> Vec<u64> {
                let (out, rest) = list.iter().partition(|(at, _)| *at <= now);
                *list = rest;
                let out: Vec<(u64, u64)> = out;
                out.into_iter().map(|(_, seq)| seq).collect()
            };
            ack.stored = due(&mut worker.unstored);
            ack.done = due(&mut worker.undone);
        }
        let repeat = !(worker.undone.is_empty() && worker.inbox.is_empty()) && now >= worker.last_ack + 10;
        let in_flight = worker.undone.len() as u32;
        if got_some || repeat || !ack.stored.is_empty() || !ack.done.is_empty() {
            worker.last_ack = now;
            self.ack(id, &ack);
        }
        if now.is_multiple_of(100) {
            self.control(id, ToBalancer::Alive(Alive { in_flight, ..Alive::default() }));
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.balancer.poll_action() {
            match action {
                Action::SendUdp { to, bytes } => self.udp.push((self.ms, to, bytes)),
                Action::SendFrame { worker, frame } => {
                    // A worker that was killed is known to the balancer until its link is seen to close.
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.inbox.push((self.ms, frame));
                    }
                }
                Action::WithdrawFrame { worker, seq } => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.inbox.retain(|(_, frame)| frame.seq != seq);
                    }
                }
                Action::SendControl { worker, message } => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.control.push(message);
                    }
                }
                Action::CloseWorker { worker, reason } => {
                    self.workers.remove(&worker);
                    self.closed.push((worker, reason));
                }
                Action::Publish { gateway, route } => drop(self.routes.insert(gateway, route)),
                Action::Unpublish { gateway } => drop(self.routes.remove(&gateway)),
                Action::Drop { reason, gateway, from } => {
                    self.drops.push((reason, gateway));
                    self.dropped_from.extend(from);
                }
                Action::Event(event) => self.events.push(event),
                Action::Hold { gateway, address: Some(address) } => drop(self.holds.insert(gateway, address)),
                Action::Hold { gateway, address: None } => drop(self.holds.remove(&gateway)),
                Action::Mute { until, .. } => assert!(until > self.now().mono),
                Action::PersistCluster => {}
            }
        }
    }

    /// PUSH_ACKs sent so far, by token.
    pub fn push_acks(&self) -> Vec<u16> {
        self.answers(1)
    }

    fn answers(&self, kind: u8) -> Vec<u16> {
        self.udp.iter().filter(|(_, _, b)| b[3] == kind).map(|(_, _, b)| u16::from_be_bytes([b[1], b[2]])).collect()
    }

    /// PULL_RESPs sent so far: when, where to, token, JSON.
    pub fn pull_resps(&self) -> Vec<(u64, Source, u16, String)> {
        let resps = self.udp.iter().filter(|(_, _, b)| b[3] == 3);
        resps
            .map(|(at, to, b)| {
                (*at, *to, u16::from_be_bytes([b[1], b[2]]), String::from_utf8(b[4..].to_vec()).unwrap())
            })
            .collect()
    }

    /// PULL_RESPs that went there, byte by byte.
    pub fn pull_resps_to(&self, to: Source) -> Vec<Vec<u8>> {
        let resps = self.udp.iter().filter(|(_, at, b)| b[3] == 3 && *at == to);
        resps.map(|(_, _, b)| b.to_vec()).collect()
    }

    pub fn seen(&self, id: WorkerId) -> Vec<Eui64> {
        self.workers[&id].seen.iter().map(|f| f.gateway).collect()
    }

    /// Everything that a worker was told of downlinks.
    pub fn tx_acks(&self, id: WorkerId) -> Vec<TxAck> {
        let control = self.workers[&id].control.iter();
        control.filter_map(|m| if let ToWorker::TxAck(ack) = m { Some(ack.clone()) } else { None }).collect()
    }

    pub fn suspects(&self, id: WorkerId) -> Option<Vec<String>> {
        let control = self.workers[&id].control.iter();
        control.filter_map(|m| if let ToWorker::Suspects(s) = m { Some(s.names.clone()) } else { None }).next_back()
    }

    pub fn redelivered(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Redelivered { .. })).count()
    }

    /// The worker whose share the gateway is in.
    pub fn owner(&mut self, gateway: u64) -> WorkerId {
        let now = self.now();
        let request = limpet_shared::admin::Request::Ring { eui: Some(eui(gateway)) };
        let Some(limpet_shared::admin::Reply::Ring(ring)) = self.balancer.admin(now, &request) else { panic!() };
        let name = ring.worker.expect("somebody has a share");
        *self.workers.iter().find(|(_, w)| w.name == name).expect("it is connected").0
    }

    /// Bytes that a worker was sent and has not read.
    pub fn unread(&self, id: WorkerId) -> usize {
        self.workers[&id].inbox.iter().map(|(_, frame)| frame.datagram.len()).sum()
    }

    /// A gateway that this worker has.
    pub fn gateway_of(&mut self, id: WorkerId) -> u64 {
        (0..1_000).find(|&g| self.owner(g) == id).expect("each worker has some")
    }

    pub fn window(&self, number: u32, in_ms: u64) -> Window {
        Window {
            number,
            at: EPOCH + (self.ms + in_ms) * 1_000,
            json: Bytes::from(format!("{{\"txpk\":{{\"window\":{number}}}}}")),
            transmission: None,
        }
    }

    pub fn downlink(&mut self, from: WorkerId, key: u64, gateway: u64, windows: Vec<Window>) {
        let context = Bytes::from_static(b"context");
        let phy = Bytes::from_static(b"phy");
        let downlink = Downlink { key, gateway: eui(gateway).0, windows, context, phy, others: false };
        self.control(from, ToBalancer::Downlink(downlink));
    }

    /// Another gateway can be asked as well.
    pub fn downlink_of_several(&mut self, from: WorkerId, key: u64, gateway: u64, windows: Vec<Window>) {
        let gateway = eui(gateway).0;
        let downlink = Downlink { key, gateway, windows, others: true, ..Downlink::default() };
        self.control(from, ToBalancer::Downlink(downlink));
    }

    pub fn states(&mut self) -> Vec<(String, String, u32)> {
        let now = self.now();
        let Some(limpet_shared::admin::Reply::Servers { servers }) =
            self.balancer.admin(now, &limpet_shared::admin::Request::Servers)
        else {
            panic!()
        };
        servers.into_iter().skip(1).map(|s| (s.name, s.state, s.weight)).collect()
    }
}
