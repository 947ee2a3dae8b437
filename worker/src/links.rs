//! The worker's links: one to every balancer, dialled again whenever it ends; and which of them a downlink takes.

mod acks;
mod advertised;
mod clocks;
mod dialling;
mod routes;
mod session;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use limpet_link::{
    ControlSender, DialError, Identity,
    host::{self, Rule},
};
use limpet_shared::{
    Eui64, UnixMicros,
    admin::{ErrorKind, Reply, Request, RevokedServer},
    link::{self, Admin, Drain, Hello, ToBalancer, Weight, to_balancer},
};
use limpet_worker_core::load::Advice;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    beat::Beat,
    cluster::Network,
    load::StoredAfter,
    metrics::Metrics,
    pipeline::{Pipeline, Sweep},
    seams,
};
use advertised::Advertised;
use clocks::Clocks;
use routes::{Routes, Spread};

/// An operator's question to a balancer is answered within this.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// A balancer that does not say what it has is told again of the gateways after this.
const FEED_AGAIN: Duration = Duration::from_secs(1);

/// Only what lasts for so long is a difference, and a balancer is sent everything for it at most this often.
const DIFFERS_FOR: Duration = Duration::from_secs(3);
const REPLACE_AGAIN: Duration = Duration::from_secs(30);

/// A balancer that was removed has this long to answer what it holds and to end.
const REMOVAL: Duration = Duration::from_secs(20);

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{0}; to join again it needs a new --join TOKEN (made by `limpet ctl join-token`)")]
    Removed(String),
}

/// A balancer that is connected now.
struct Peer {
    /// Which run of which balancer it is.
    instance: u64,
    /// Of the link's messages that it speaks.
    version: u32,
    /// The balancer's name.
    name: String,
    /// Of its certificate.
    key: String,
    /// What is wrong with this machine's clock, if the balancer's is right.
    skew: Option<String>,
    control: ControlSender<ToBalancer>,
    /// Version of the cluster snapshot that it says it has.
    have: watch::Sender<u64>,
    /// What it says of the gateways in it; a version before says nothing.
    digest: Option<u64>,
    /// Since when it has had another set under the same number, and which two those are.
    differs: Option<(u64, u64, tokio::time::Instant)>,
    /// When it was last sent everything for that.
    replaced: Option<tokio::time::Instant>,
    /// From and to which version it was told last, and when.
    fed: Option<(u64, u64, tokio::time::Instant)>,
    suspects: HashSet<String>,
    /// Names of workers that have room for more work.
    spare: Vec<String>,
    /// Which change of the cluster's CA it has told of; 0 for none.
    trust: u64,
}

impl Peer {
    /// See [`Links::differs`].
    fn differs(&mut self, version: u64, digest: u64) -> bool {
        let theirs = self.digest.filter(|theirs| *theirs != digest && *self.have.borrow() == version);
        let Some(theirs) = theirs else {
            self.differs = None;
            return false;
        };
        let same = self.differs.filter(|(one, other, _)| (*one, *other) == (theirs, digest));
        let (.., since) = *self.differs.insert(same.unwrap_or((theirs, digest, tokio::time::Instant::now())));
        since.elapsed() >= DIFFERS_FOR && self.replaced.is_none_or(|at| at.elapsed() >= REPLACE_AGAIN)
    }
}

/// What this worker tells balancers about itself.
#[derive(Clone)]
pub struct Introduction {
    pub name: String,
    pub instance: u64,
    pub http: String,
    pub started_at: u64,
    /// The weight that the operator gave it, 1 to 100.
    pub weight: u32,
    pub network: Network,
    /// What its store is, without secrets.
    pub store: String,
}

/// All links of one worker.
pub struct Links {
    /// Of all that this worker does now and then.
    pub beat: Beat,
    me: Introduction,
    metrics: Metrics,
    identity: RwLock<Identity>,
    /// By the address that was dialled.
    peers: Mutex<HashMap<String, Peer>>,
    routes: Mutex<Routes>,
    spread: Mutex<Spread>,
    clocks: Mutex<Clocks>,
    advertised: Mutex<Advertised>,
    /// How long frames take until they are stored.
    pub stored_after: StoredAfter,
    draining: AtomicBool,
    asked: AtomicU64,
    answers: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    /// Told of everything that balancers send and that is not a frame.
    notices: mpsc::Sender<Notice>,
    /// Keys of certificates that count no more.
    revoked: watch::Sender<HashSet<String>>,
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
    /// The cluster's CA was changed, or the change is finished.
    Trust(link::Trust),
}

impl Links {
    pub fn new(me: Introduction, identity: Identity, metrics: Metrics, notices: mpsc::Sender<Notice>) -> Arc<Self> {
        let advertised = Mutex::new(Advertised::new(me.weight));
        Arc::new(Self {
            beat: Beat::start(),
            me,
            metrics,
            identity: RwLock::new(identity),
            peers: Mutex::default(),
            routes: Mutex::default(),
            spread: Mutex::default(),
            clocks: Mutex::new(Clocks::new()),
            advertised,
            stored_after: StoredAfter::default(),
            draining: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answers: Mutex::default(),
            notices,
            revoked: watch::Sender::default(),
        })
    }

    /// Servers that were taken out of the cluster: no balancer among them is dialled, obeyed, or kept for long.
    pub fn revoke(&self, servers: &[RevokedServer]) {
        let new = |known: &HashSet<String>| servers.iter().any(|server| !known.contains(&server.key));
        self.revoked.send_if_modified(|known| {
            let changed = new(known);
            known.extend(servers.iter().map(|server| server.key.clone()));
            changed
        });
    }

    /// Whether a balancer that was removed is linked still.
    pub fn has_revoked(&self) -> bool {
        self.peers.lock().values().any(|peer| self.is_revoked(&peer.key))
    }

    /// Whether the certificate with this key is revoked.
    fn is_revoked(&self, key: &str) -> bool {
        self.revoked.borrow().contains(key)
    }

    /// Returns when the certificate with this key is revoked, and its server has had time to end by itself.
    async fn removal(&self, key: &str) {
        let mut revoked = self.revoked.subscribe();
        if revoked.wait_for(|revoked| revoked.contains(key)).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(REMOVAL).await;
    }

    /// Who this worker says that it is.
    pub fn introduction(&self) -> &Introduction {
        &self.me
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
            weight: Some(self.advertised.lock().weight.clone()),
            linked: self.peers.lock().values().map(|peer| peer.instance).collect(),
            key: String::new(),
            network: self.me.network.id(),
            network_began: self.me.network.began(),
            store: self.me.store.clone(),
        }
    }

    /// Keeps a link to every balancer behind these names (`host:port`; a name may have several addresses) until told to
    /// stop. Ends early only when a balancer says that trying again cannot help.
    pub async fn keep_all(
        self: Arc<Self>,
        names: Vec<String>,
        pipeline: Arc<Pipeline>,
        sweep: Sweep,
        stop: CancellationToken,
    ) -> Result<(), LinkError> {
        dialling::Dialler { links: self, pipeline, sweep, stop }.run(names).await
    }

    /// Tells every balancer whether this worker may get frames.
    pub fn set_ready(&self, ready: bool, reason: &str) {
        let changed = self.advertised.lock().ready(ready, reason);
        self.metrics.set_ready(ready);
        self.tell(changed);
    }

    /// Tells every balancer how many gateways this worker wants.
    pub fn advise(&self, advice: Advice) {
        let changed = self.advertised.lock().load(advice);
        self.tell(changed);
    }

    /// An operator wants this worker to get no frames, or frames again: all balancers follow what one was asked. Returns
    /// whether that is news.
    fn drained_by_operator(&self, drain: &Drain) -> bool {
        let (weight, news) = self.advertised.lock().drained(drain);
        if host::keeps(Rule::TellOfDrains) {
            self.tell(Some(weight));
        }
        news
    }

    fn tell(&self, changed: Option<Weight>) {
        if let Some(weight) = changed {
            self.broadcast(to_balancer::Kind::Weight(weight));
        }
    }

    /// Whether a balancer knows of another worker that would take more gateways.
    pub fn others_have_room(&self) -> bool {
        self.peers.lock().values().any(|peer| peer.spare.iter().any(|name| *name != self.me.name))
    }

    /// What changed since Hello was written: it may have become ready, or been told to stop.
    fn catch_up(&self, control: &ControlSender<ToBalancer>) {
        let weight = to_balancer::Kind::Weight(self.advertised.lock().weight.clone());
        let drain = self.is_draining().then_some(to_balancer::Kind::Drain(Drain { on: true, ..Drain::default() }));
        for kind in [Some(weight), drain].into_iter().flatten() {
            // A queue that is full or closed this early is of a link that ends now.
            let _ = control.try_send(ToBalancer::from(kind));
        }
    }

    /// Asks all balancers for no new frames (or for frames again).
    pub fn drain(&self, on: bool) {
        self.draining.store(on, Ordering::Relaxed);
        self.broadcast(to_balancer::Kind::Drain(Drain { on, ..Drain::default() }));
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// An operator has asked for no more frames.
    pub fn is_drained(&self) -> bool {
        self.advertised.lock().weight.drained == Some(true)
    }

    /// Whether a balancer of this name has a link, whatever its address.
    pub fn is_linked_by_name(&self, balancer: &str) -> bool {
        self.peers.lock().values().any(|peer| peer.name == balancer)
    }

    /// What balancers find wrong with this machine's clock.
    pub fn skew(&self) -> Option<String> {
        let peers = self.peers.lock();
        peers.values().find_map(|peer| Some(format!("{} ({})", peer.skew.clone()?, peer.name)))
    }

    /// Frames in work.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.metrics.in_flight().get()).unwrap_or_default()
    }

    /// Whether this worker says that it may get frames, and if not, why.
    pub fn readiness(&self) -> (bool, String) {
        let advertised = self.advertised.lock();
        (advertised.weight.ready, advertised.weight.reason.clone())
    }

    pub fn is_linked(&self) -> bool {
        !self.peers.lock().is_empty()
    }

    /// Whether there is a link to this run of a balancer.
    pub fn is_linked_to(&self, balancer: u64) -> bool {
        self.peers.lock().values().any(|peer| peer.instance == balancer)
    }

    /// Whether this worker needs a certificate of another CA, and whoever is linked would accept it.
    pub fn wants_new_ca(&self, identity: &Identity) -> bool {
        let trust = identity.trust();
        let peers = self.peers.lock();
        let all = || peers.values().all(|peer| peer.trust >= trust.since);
        !identity.is_of_present_ca() && !peers.is_empty() && (trust.former.is_none() || all())
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

    /// Sends one balancer, or all, what `message` makes for whoever has some older version of the snapshot than this. Each
    /// answers with the version it has then; who has not answered yet gets it again after a while.
    pub fn feed(&self, version: u64, only: Option<&str>, message: impl Fn(u64) -> to_balancer::Kind) {
        for (address, peer) in self.peers.lock().iter_mut() {
            let have = *peer.have.borrow();
            let sent =
                peer.fed.is_some_and(|(from, to, at)| (from, to) == (have, version) && at.elapsed() < FEED_AGAIN);
            if only.is_none_or(|a| a == address) && have < version && !sent {
                let fed = peer.control.try_send(ToBalancer::from(message(have)));
                peer.fed = fed.is_ok().then(|| (have, version, tokio::time::Instant::now()));
            }
        }
    }

    /// Whether a balancer has had another set of gateways under this number for a while: while many are provisioned two workers may
    /// know the same number with more or less of what comes next.
    pub fn differs(&self, version: u64, digest: u64) -> bool {
        self.peers.lock().values_mut().any(|peer| peer.differs(version, digest))
    }

    /// Sends everything to those that differ.
    pub fn replace(&self, version: u64, digest: u64, whole: impl Fn() -> link::Cluster) {
        let mut peers = self.peers.lock();
        for (address, peer) in peers.iter_mut() {
            if !peer.differs(version, digest) {
                continue;
            }
            tracing::warn!(%address, version, "a balancer knows other gateways under this number than the store: it gets them all");
            let sent = peer.control.try_send(ToBalancer::from(to_balancer::Kind::Cluster(whole())));
            peer.replaced = sent.is_ok().then(tokio::time::Instant::now);
        }
    }

    /// The highest version of the snapshot that a connected balancer has said that it has.
    pub fn newest_snapshot(&self) -> Option<u64> {
        self.peers.lock().values().map(|peer| *peer.have.borrow()).max()
    }

    /// Waits until every connected balancer has said that it has this version; false if `limit` has passed before.
    pub async fn until_fed(&self, version: u64, limit: Duration) -> bool {
        let mut waiting: Vec<_> = self.peers.lock().values().map(|p| p.have.subscribe()).collect();
        let all = async {
            for have in &mut waiting {
                // An error means that this balancer is gone: nothing to wait for.
                let _ = have.wait_for(|v| *v >= version).await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
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

    /// Asks every connected balancer, for so long. What has answered by then is returned.
    pub async fn ask_all(&self, request: &Request, limit: Duration) -> Vec<Reply> {
        self.ask_each(request, limit).await.into_iter().map(|(_, reply)| reply).collect()
    }

    /// The same, each with the key of its certificate.
    pub async fn ask_each(&self, request: &Request, limit: Duration) -> Vec<(String, Reply)> {
        let Ok(request) = serde_json::to_string(request) else { return Vec::new() };
        let mut waiting = Vec::new();
        for peer in self.peers.lock().values() {
            let id = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let (sender, receiver) = oneshot::channel();
            self.answers.lock().insert(id, sender);
            let question = to_balancer::Kind::Admin(Admin { id, request: request.clone() });
            // A queue that is full or closed is of a balancer that does not answer now.
            let _ = peer.control.try_send(ToBalancer::from(question));
            waiting.push((id, peer.key.clone(), receiver));
        }
        let until = tokio::time::Instant::now() + limit;
        let mut replies = Vec::new();
        for (id, key, receiver) in waiting {
            let reply = tokio::time::timeout_at(until, receiver).await.ok().and_then(Result::ok);
            replies.extend(reply.map(|reply| (key, reply)));
            self.answers.lock().remove(&id);
        }
        replies
    }

    /// Hands it to the best balancer that takes it; false if there is none.
    fn send_by_route(&self, downlink: &link::Downlink, clock: u64) -> bool {
        let routes: Vec<u64> = self.routes.lock().to(Eui64(downlink.gateway)).collect();
        let peers = self.peers.lock();
        let mut known = routes.iter().filter_map(|balancer| peers.values().find(|peer| peer.instance == *balancer));
        known.any(|peer| peer.control.try_send(self.downlink_for(peer, downlink, clock)).is_ok())
    }

    /// As that balancer's clock has it. `clock` is the one that its windows are on.
    fn downlink_for(&self, peer: &Peer, downlink: &link::Downlink, clock: u64) -> ToBalancer {
        let mut downlink = downlink.clone();
        let clocks = self.clocks.lock();
        for window in &mut downlink.windows {
            window.at = clocks.between(clock, peer.instance, UnixMicros(window.at)).0;
        }
        if peer.version < 2 {
            // Such a balancer passes on what it is given.
            downlink.write_pull_resps();
        }
        ToBalancer::from(to_balancer::Kind::Downlink(downlink))
    }

    /// Without a way any balancer may have one: the others answer NO_ROUTE.
    fn send_by_all(&self, downlink: &link::Downlink, clock: u64) {
        let gateway = Eui64(downlink.gateway);
        let peers = self.peers.lock();
        if peers.is_empty() {
            tracing::warn!(%gateway, "a downlink is lost: no balancer is connected");
            return self.metrics.dropped("downlink_without_balancer");
        }
        // An answer may come before the last one is asked.
        let mut spread = self.spread.lock();
        let send = |peer: &&Peer| peer.control.try_send(self.downlink_for(peer, downlink, clock)).is_ok();
        let asked = peers.values().filter(send).count();
        if asked == 0 {
            tracing::warn!(%gateway, "a downlink was not sent: the links are full");
            self.metrics.dropped("downlink_link_full");
        } else if asked > 1 {
            spread.asked(downlink, asked);
        }
    }
}

impl seams::Link for Links {
    fn send(&self, downlink: link::Downlink, clock: u64) {
        if !self.send_by_route(&downlink, clock) {
            self.send_by_all(&downlink, clock);
        }
    }

    fn now_at(&self, balancer: u64) -> Option<UnixMicros> {
        self.clocks.lock().now_at(balancer)
    }

    fn asks(&self, gateway: Eui64) -> bool {
        let linked = |balancer| self.is_linked_to(balancer);
        self.routes.lock().asks(gateway, tokio::time::Instant::now(), linked)
    }

    fn is_suspect(&self, worker: &str) -> bool {
        self.peers.lock().values().any(|p| p.suspects.contains(worker))
    }
}
