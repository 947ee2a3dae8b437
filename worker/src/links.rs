//! The worker's links: one to every balancer, dialled again whenever it ends.

mod acks;
mod session;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use limpet_link::{ControlSender, DialError, Identity, dial};
use limpet_shared::{
    Eui64,
    admin::{ErrorKind, Reply, Request},
    link::{self, Admin, Cluster, Drain, Hello, ToBalancer, Weight, to_balancer},
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    pipeline::{Pipeline, Sweep},
    seams,
};

/// Gateways whose balancer is remembered. More, and all are learned again from their next frame.
const ROUTES: usize = 1_000_000;
/// Pauses between two dials: doubled from the first up to the second.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A name that is taken is asked for this often before the worker gives up.
const NAME_TRIES: u32 = 20;
/// An operator's question to a balancer is answered within this.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// A balancer that is connected now.
struct Peer {
    control: ControlSender<ToBalancer>,
    /// Version of the cluster snapshot that it says it has.
    have: watch::Sender<u64>,
    suspects: HashSet<String>,
}

/// What this worker tells balancers about itself.
#[derive(Clone)]
pub struct Introduction {
    pub name: String,
    pub instance: u64,
    pub http: String,
    pub started_at: u64,
}

/// All links of one worker.
pub struct Links {
    me: Introduction,
    metrics: Metrics,
    identity: RwLock<Identity>,
    peers: Mutex<HashMap<String, Peer>>,
    routes: Mutex<HashMap<Eui64, String>>,
    weight: Mutex<Weight>,
    draining: AtomicBool,
    asked: AtomicU64,
    answers: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    /// Told of everything that balancers send and that is not a frame.
    notices: mpsc::Sender<Notice>,
}

/// What a balancer tells besides frames.
#[derive(Debug)]
pub enum Notice {
    TxAck(link::TxAck),
    GatewaySeen(link::GatewaySeen),
    /// A new link: it needs the cluster snapshot if it has an older one than this.
    Linked {
        address: String,
    },
    /// A question for this worker; the answer goes back the same way.
    Ask {
        request: Request,
        answer: oneshot::Sender<Reply>,
    },
    Drain(bool),
    Remove,
    Renewed(String),
}

impl Links {
    pub fn new(me: Introduction, identity: Identity, metrics: Metrics, notices: mpsc::Sender<Notice>) -> Arc<Self> {
        let weight = Weight { number: 1, weight: 100, ready: false, reason: "starting".into() };
        Arc::new(Self {
            me,
            metrics,
            identity: RwLock::new(identity),
            peers: Mutex::default(),
            routes: Mutex::default(),
            weight: Mutex::new(weight),
            draining: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answers: Mutex::default(),
            notices,
        })
    }

    /// Random, new at each start.
    pub fn instance(&self) -> u64 {
        self.me.instance
    }

    fn hello(&self) -> Hello {
        Hello {
            version: link::VERSION,
            name: self.me.name.clone(),
            instance: self.me.instance,
            software: env!("CARGO_PKG_VERSION").into(),
            http: self.me.http.clone(),
            started_at: self.me.started_at,
            weight: Some(self.weight.lock().clone()),
        }
    }

    /// Keeps a link to the balancer at `address` until told to stop. Ends early only when the balancer says that
    /// trying again cannot help.
    pub async fn keep(
        self: Arc<Self>,
        address: String,
        pipeline: Arc<Pipeline>,
        sweep: Sweep,
        stop: CancellationToken,
    ) -> Result<(), LinkError> {
        let (mut pause, mut refused) = (REDIAL.0, 0);
        while !stop.is_cancelled() {
            let identity = self.identity.read().clone();
            let Some(dialled) = stop.run_until_cancelled(dial(&address, &identity, self.hello())).await else { break };
            match dialled {
                Ok(link) => {
                    (pause, refused) = (REDIAL.0, 0);
                    tracing::info!(balancer = link.welcome.name, %address, "linked");
                    let ended = session::run(&self, &address, link, &pipeline, &stop).await;
                    tracing::info!(%address, %ended, "the link ended");
                    // It may have been the balancer that died, with frames that it retained.
                    sweep.ask();
                }
                Err(error) => {
                    if let DialError::Refused { retry, .. } = &error {
                        refused += 1;
                        if !retry || refused >= NAME_TRIES {
                            return Err(error.into());
                        }
                    }
                    tracing::warn!(%address, %error, "no link; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(REDIAL.1);
        }
        Ok(())
    }

    /// Tells every balancer whether this worker may get frames.
    pub fn set_ready(&self, ready: bool, reason: &str) {
        let weight = {
            let mut weight = self.weight.lock();
            if weight.ready == ready && weight.reason == reason {
                return;
            }
            weight.number += 1;
            weight.ready = ready;
            weight.reason = reason.to_owned();
            weight.clone()
        };
        self.metrics.set_ready(ready);
        self.broadcast(to_balancer::Kind::Weight(weight));
    }

    /// What changed since Hello was written: it may have become ready, or been told to stop.
    fn catch_up(&self, control: &ControlSender<ToBalancer>) {
        let weight = to_balancer::Kind::Weight(self.weight.lock().clone());
        let drain = self.is_draining().then_some(to_balancer::Kind::Drain(Drain { on: true }));
        for kind in [Some(weight), drain].into_iter().flatten() {
            // A queue that is full or closed this early is of a link that ends now.
            let _ = control.try_send(ToBalancer::from(kind));
        }
    }

    /// Asks all balancers for no new frames (or for frames again).
    pub fn drain(&self, on: bool) {
        self.draining.store(on, Ordering::Relaxed);
        self.broadcast(to_balancer::Kind::Drain(Drain { on }));
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn is_linked(&self) -> bool {
        !self.peers.lock().is_empty()
    }

    /// The certificate that the next dial shows.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write() = identity;
    }

    pub fn identity(&self) -> Identity {
        self.identity.read().clone()
    }

    pub fn broadcast(&self, kind: to_balancer::Kind) {
        for (address, peer) in self.peers.lock().iter() {
            if let Err(error) = peer.control.try_send(ToBalancer::from(kind.clone())) {
                tracing::warn!(%address, %error, "a message for a balancer was not sent");
            }
        }
    }

    /// Sends the snapshot to one balancer, or to all. Each answers with the version it has then.
    pub fn feed(&self, cluster: &Cluster, only: Option<&str>) {
        for (address, peer) in self.peers.lock().iter() {
            if only.is_none_or(|a| a == address) && *peer.have.borrow() < cluster.version {
                let _ = peer.control.try_send(ToBalancer::from(to_balancer::Kind::Cluster(cluster.clone())));
            }
        }
    }

    /// Has any connected balancer an older snapshot?
    pub fn anyone_behind(&self, version: u64) -> bool {
        self.peers.lock().values().any(|p| *p.have.borrow() < version)
    }

    /// Waits until every connected balancer has said that it has this version, or `limit` has passed.
    pub async fn until_fed(&self, version: u64, limit: Duration) {
        let mut waiting: Vec<_> = self.peers.lock().values().map(|p| p.have.subscribe()).collect();
        let all = async {
            for have in &mut waiting {
                // An error means that this balancer is gone: nothing to wait for.
                let _ = have.wait_for(|v| *v >= version).await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("a balancer has not said in time that it knows the gateways; it will");
        }
    }

    /// Passes an operator's question to a balancer.
    pub async fn ask(&self, request: Request) -> Reply {
        let unavailable = |message: &str| Reply::Error { kind: ErrorKind::Unavailable, message: message.to_owned() };
        let Ok(request) = serde_json::to_string(&request) else {
            return unavailable("the question cannot be written down");
        };
        let id = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.answers.lock().insert(id, sender);
        let sent = {
            let peers = self.peers.lock();
            let kind = || to_balancer::Kind::Admin(Admin { id, request: request.clone() });
            peers.values().any(|peer| peer.control.try_send(ToBalancer::from(kind())).is_ok())
        };
        let reply = if sent {
            let answer = tokio::time::timeout(ASK_LIMIT, receiver).await;
            answer.ok().and_then(Result::ok).unwrap_or_else(|| unavailable("the balancer did not answer in time"))
        } else {
            unavailable("no balancer is connected")
        };
        self.answers.lock().remove(&id);
        reply
    }

    fn note_route(&self, gateway: Eui64, address: &str) {
        let mut routes = self.routes.lock();
        if routes.get(&gateway).is_some_and(|a| a == address) {
            return;
        }
        if routes.len() >= ROUTES {
            routes.clear();
        }
        routes.insert(gateway, address.to_owned());
    }
}

impl seams::Link for Links {
    fn send(&self, downlink: link::Downlink) {
        let route = self.routes.lock().get(&Eui64(downlink.gateway)).cloned();
        let peers = self.peers.lock();
        let known = route.and_then(|address| peers.get(&address));
        let message = || ToBalancer::from(to_balancer::Kind::Downlink(downlink.clone()));
        // Without a route any balancer may have one: the others answer NO_ROUTE.
        let targets: Vec<&Peer> = known.map_or_else(|| peers.values().collect(), |peer| vec![peer]);
        if targets.is_empty() {
            tracing::warn!(gateway = %Eui64(downlink.gateway), "a downlink is lost: no balancer is connected");
            self.metrics.dropped("downlink_without_balancer");
        }
        for peer in targets {
            if let Err(error) = peer.control.try_send(message()) {
                tracing::warn!(gateway = %Eui64(downlink.gateway), %error, "a downlink was not sent");
                self.metrics.dropped("downlink_link_full");
            }
        }
    }

    fn is_suspect(&self, worker: &str) -> bool {
        self.peers.lock().values().any(|p| p.suspects.contains(worker))
    }
}
