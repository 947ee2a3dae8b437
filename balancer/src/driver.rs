//! The one task that owns the core: it feeds it and does what it says.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_balancer_core::{Action, Balancer, Event, Stats, WorkerId};
use limpet_link::{
    Alarm, LinkServer, SendError,
    host::{self, Rule},
    machine::Usage,
};
use limpet_shared::{
    admin::{Reply, Request},
    link::{Ack, Cluster, Hello, to_balancer, to_worker},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    holds::Holds,
    logs::{self, DropLog},
    metrics::Metrics,
    muted::Mutes,
    registry::Registry,
    udp::{Batch, GatewaySocket},
    worker_links::Outbox,
};

mod ca;
mod operators;

/// Inputs waited for at once.
const BATCH: usize = 256;
/// Of datagrams that were read together no more are taken before timers have their turn.
const BATCHES: usize = 8;

/// How often it is written down what is known of the network: all of it is copied for that, and while many gateways are
/// provisioned each is news.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What comes to the driver besides datagrams.
pub enum Input {
    /// A worker introduces itself.
    Hello {
        id: WorkerId,
        address: SocketAddr,
        hello: Hello,
        /// Of the certificate that it has shown.
        issuer: Vec<u8>,
        outbox: Outbox,
    },
    Control {
        id: WorkerId,
        message: Box<to_balancer::Kind>,
    },
    Acks {
        id: WorkerId,
        acks: Vec<Ack>,
    },
    /// A worker's link has ended.
    Closed {
        id: WorkerId,
        why: String,
    },
    /// An operator asks.
    Ask {
        request: Request,
        whom: Whom,
        answer: oneshot::Sender<Reply>,
    },
    /// The metrics are read.
    Stats {
        answer: oneshot::Sender<Stats>,
    },
}

/// Who may answer an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This balancer alone, as well as it can.
    ThisBalancer,
    /// Who knows most of those that are there.
    Anybody,
    /// The same, but no worker that does not know now what is in the store.
    ReadyWorker,
}

/// What the driver works with.
pub struct Parts {
    pub core: Balancer,
    pub clock: Clock,
    pub socket: Arc<GatewaySocket>,
    pub server: Arc<LinkServer>,
    pub metrics: Metrics,
    pub registry: Arc<Registry>,
    pub ready: Arc<AtomicBool>,
    pub kept: watch::Sender<Cluster>,
    pub holds: Holds,
    pub muted: Arc<Mutes>,
    /// The folder of this balancer.
    pub data: PathBuf,
    pub inputs: mpsc::Receiver<Input>,
    pub datagrams: mpsc::UnboundedReceiver<Batch>,
}

/// A worker's connection.
struct Linked {
    name: String,
    /// The key of its certificate.
    key: String,
    outbox: Outbox,
    /// Since which change of the CA its certificate counts.
    certified: u64,
    /// The last change of the CA in which its certificate of the one before was found to count.
    counted: u64,
    /// What it was told of the CA.
    told: Option<ca::Told>,
}

/// The task's state.
pub struct Driver {
    parts: Parts,
    workers: HashMap<WorkerId, Linked>,
    drops: DropLog,
    /// Questions that were passed on to a worker.
    asked: HashMap<u64, oneshot::Sender<Reply>>,
    questions: u64,
    /// What a worker has told of the store.
    store_note: String,
    usage: Usage,
    /// This balancer was taken out of the cluster: it ends.
    removed: bool,
    /// When what is known of the network was handed over to be kept, and when it is next, if it has changed.
    kept_at: Option<Instant>,
    unkept: Option<Instant>,
}

impl Driver {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            workers: HashMap::new(),
            drops: DropLog::default(),
            asked: HashMap::new(),
            questions: 0,
            store_note: String::new(),
            usage: Usage::default(),
            removed: false,
            kept_at: None,
            unkept: None,
        }
    }

    /// Runs until it was told to stop and has answered what it held.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut inputs, mut datagrams) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCHES));
        let mut stopped = std::pin::pin!(stop.cancelled());
        let (mut stopping, mut alarm) = (false, Alarm::default());
        loop {
            self.perform();
            self.keep(false);
            let timeout = self.parts.core.next_timeout().map(|at| self.parts.clock.instant(at));
            alarm.set(timeout.into_iter().chain(self.unkept).min());
            tokio::select! {
                biased;
                () = &mut stopped, if !stopping => {
                    stopping = true;
                    tracing::info!("stopping: answering what is held");
                    self.parts.core.on_shutdown(self.parts.clock.now());
                }
                _ = self.parts.inputs.recv_many(&mut inputs, BATCH) => {}
                _ = self.parts.datagrams.recv_many(&mut datagrams, BATCHES) => {}
                () = alarm.fires() => {}
            }
            if self.removed && !stopping {
                stopping = true;
                tracing::warn!("this balancer was removed from the cluster: answering what is held, then ending");
                self.parts.core.on_shutdown(self.parts.clock.now());
            }
            // What workers have said comes first: a timer must not find somebody silent who was only not heard yet.
            self.take(&mut inputs);
            self.feed(&mut datagrams);
            let now = self.parts.clock.now();
            if timeout.is_some_and(|at| at <= Instant::now()) {
                self.parts.core.on_timeout(now);
            }
            if stopping && self.parts.core.is_stopped(now) {
                self.perform();
                return self.keep(true);
            }
        }
    }

    /// Everything that is there by now, however much: whoever's word is still in the queue would be found silent.
    fn take(&mut self, inputs: &mut Vec<Input>) {
        for input in inputs.drain(..) {
            self.input(input);
            self.perform();
        }
        for _ in 0..self.parts.inputs.len() {
            let Ok(input) = self.parts.inputs.try_recv() else { break };
            self.input(input);
            self.perform();
        }
    }

    fn feed(&mut self, batches: &mut Vec<Batch>) {
        while batches.len() < BATCHES
            && let Ok(batch) = self.parts.datagrams.try_recv()
        {
            batches.push(batch);
        }
        let now = self.parts.clock.now();
        for datagram in batches.drain(..).flat_map(|batch| batch.datagrams) {
            self.parts.core.on_datagram(now, datagram.at, datagram.source, datagram.bytes);
        }
        self.perform();
    }

    fn input(&mut self, input: Input) {
        let now = self.parts.clock.now();
        match input {
            Input::Hello { id, address, hello, issuer, outbox } => {
                let trust = self.parts.server.authority().trust();
                let certified = if trust.is_present(&issuer) { trust.since } else { 0 };
                let (name, key) = (hello.name.clone(), hello.key.clone());
                // TLS has let it in by what counts now.
                let counted = trust.since;
                self.workers.insert(id, Linked { name, key, outbox, certified, counted, told: None });
                self.parts.core.on_worker_connected(now, id, address, hello);
            }
            Input::Control { id, mut message } => {
                if let (false, to_balancer::Kind::Downlink(downlink)) =
                    (host::keeps(Rule::OncePerWindow), &mut *message)
                {
                    downlink.key = host::random().unwrap_or_default();
                }
                self.control(id, *message);
            }
            Input::Acks { id, mut acks } => {
                if !host::keeps(Rule::RetainUntilDone) {
                    acks.iter_mut().for_each(|ack| ack.done.clone_from(&ack.stored));
                }
                acks.iter().for_each(|ack| self.parts.core.on_ack(now, id, ack));
            }
            Input::Closed { id, why } => {
                if let Some(linked) = self.workers.remove(&id) {
                    tracing::debug!(worker = linked.name, why, "a link ended");
                }
                self.parts.core.on_worker_closed(now, id);
            }
            Input::Ask { request, whom, answer } => self.ask(request, whom, answer),
            Input::Stats { answer } => {
                let _ = answer.send(self.parts.core.stats());
            }
        }
    }

    /// Does what the core says.
    fn perform(&mut self) {
        while let Some(action) = self.parts.core.poll_action() {
            match action {
                Action::SendUdp { to, bytes } => {
                    if let Err(error) = self.parts.socket.send(to, &bytes) {
                        self.parts.metrics.send_failed();
                        tracing::debug!(to = %to.address, %error, "cannot send to a gateway");
                    }
                }
                Action::SendFrame { frame, .. } if frame.attempt > 0 && !host::keeps(Rule::Redeliver) => {}
                // A send fails when the link has just ended; that it did will be told to the core.
                Action::SendFrame { worker, frame } => {
                    let _ = self.workers.get(&worker).map(|linked| linked.outbox.outgoing.frames.send(frame));
                }
                Action::WithdrawFrame { worker, seq } => {
                    let _ = self.workers.get(&worker).map(|linked| linked.outbox.outgoing.frames.withdraw(seq));
                }
                Action::SendControl { worker, message } => self.tell(worker, message),
                Action::CloseWorker { worker, reason } => {
                    if let Some(linked) = self.workers.remove(&worker) {
                        let _ = linked.outbox.close.send(reason);
                    }
                }
                Action::Publish { gateway, route } => self.parts.registry.publish(gateway, route),
                Action::Unpublish { gateway } => {
                    self.parts.registry.unpublish(gateway);
                    self.parts.holds.set(gateway, None);
                }
                Action::Hold { gateway, address } => self.parts.holds.set(gateway, address),
                Action::Mute { gateway, address, until, reason } => {
                    self.parts.muted.add((gateway, address), until, reason, self.parts.clock.now().mono);
                }
                Action::PersistCluster => self.learned(),
                Action::Drop { reason, gateway, from } => {
                    self.parts.metrics.dropped(reason);
                    self.drops.say(self.parts.clock.now().unix, reason, gateway, from);
                }
                Action::Event(event) => self.event(&event),
            }
        }
        self.parts.ready.store(self.parts.core.is_ready(), Ordering::Relaxed);
    }

    /// Sends a control message. A worker that has left so many unread that there is no room has no use for its link.
    fn tell(&mut self, worker: WorkerId, message: to_worker::Kind) {
        let Some(linked) = self.workers.get(&worker) else { return };
        if linked.outbox.outgoing.control.try_send(message) != Err(SendError::Full) {
            return;
        }
        if let Some(Linked { name, outbox, .. }) = self.workers.remove(&worker) {
            let why = "it does not read what it is told";
            tracing::warn!(worker = name, "closing a worker's link: {why}");
            let _ = outbox.close.send(why.into());
            self.parts.core.on_worker_closed(self.parts.clock.now(), worker);
        }
    }

    /// Something is new that the network's workers have told.
    fn learned(&mut self) {
        let core = &self.parts.core;
        self.parts.registry.revoke(core.revoked());
        self.removed = core.revoked().any(|revoked| revoked.key == self.parts.server.key());
        self.unkept.get_or_insert_with(|| self.kept_at.map_or_else(Instant::now, |at| at + KEEP_EVERY));
    }

    /// Hands over what is known of the network to be kept, if it is time for that.
    fn keep(&mut self, is_last: bool) {
        if self.unkept.is_some_and(|due| is_last || due <= Instant::now()) {
            (self.unkept, self.kept_at) = (None, Some(Instant::now()));
            self.parts.kept.send_replace(self.parts.core.cluster());
        }
    }

    fn event(&self, event: &Event) {
        let metrics = &self.parts.metrics;
        match event {
            Event::Received { kind } => metrics.received(kind),
            Event::PushAcked { after } => metrics.push_acked(*after),
            Event::PushAckWithheld { .. } => metrics.push_ack_withheld(),
            Event::Redelivered { why, .. } => metrics.redelivered(*why),
            Event::DownlinkSent { .. } => metrics.pull_resp(),
            Event::DownlinkSettled { error, .. } => metrics.downlink(error),
            Event::Worker { name, state, .. } => self.parts.registry.worker(name, state),
            Event::WorkerRefused { .. } => metrics.worker_refused(),
            Event::Spilled { .. } => metrics.spilled(),
            Event::RingChanged { .. } => metrics.ring_changed(),
            Event::VerdictsHeld { .. } => metrics.verdicts_held(),
            Event::Stalled { .. } => metrics.stalled(),
            Event::GatewayMoved { .. } => metrics.gateway_moved(),
            Event::UnknownGateway { .. } | Event::ClusterChanged { .. } => {}
        }
        logs::event(event);
    }
}
