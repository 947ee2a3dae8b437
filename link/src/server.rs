//! The balancer's side of the link: one UDP port on which workers link up and servers join.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use limpet_shared::{
    UnixMicros,
    admin::Role,
    link::{Ack, Hello, Refused, ToBalancer, ToWorker, VERSION, Welcome, to_balancer, to_worker},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::AbortHandle,
};

use crate::{
    authority::{Authority, AuthorityError},
    connection::{CODE_DONE, CODE_REFUSED, Ended, Link, PEER_REVOKED},
    door::{Admission, Door},
    endpoint, files, host,
    identity::{Identity, PeerName},
    join::{
        self, JoinError,
        server::{Joins, Newcomer},
    },
    name::NameState,
    outgoing::Queues,
    stream::{AckReceiver, CONTROL_PRIORITY, ControlReceiver, Receiver, write_all, write_one},
    time, tls,
    token::{Token, TokenError, ledger::Ledger},
};

/// A stranger has this long from its first packet to a whole Hello or join request.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Handshakes that were asked for and not looked at yet, and the bytes that are kept of each and of all.
const UNSEEN: (usize, u64, u64) = (4_096, 4 << 10, 4 << 20);
/// Workers that were let in and that the balancer has not taken up yet.
const ARRIVALS: usize = 256;
/// The longest first message of a stranger.
const INTRODUCTION_MAX: usize = 16 << 10;
/// Between two words of being taken for removed.
const TOLD_REMOVED: Duration = Duration::from_secs(60);
/// How often it is looked whether the certificate is due, or the CA before.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);
/// Other balancers that a join token names.
const ADDRESSES: usize = 8;

/// Tells what a server's name stands for; asked at each Hello, with the key of the certificate that was shown
/// ([`crate::identity::PeerName::key`]), and at each join, without one.
pub type Names = Arc<dyn Fn(&str, Option<&str>) -> NameState + Send + Sync>;

/// Where and as whom to listen.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// UDP address, `0.0.0.0:1701` by default.
    pub listen: SocketAddr,
    /// The balancer's own name.
    pub name: String,
    /// Folder of the cluster's keys, `DATA/cluster`.
    pub cluster: PathBuf,
    /// Link addresses to put into join tokens; empty: the one under which this machine is reached.
    pub advertise: Vec<String>,
}

/// Why the link cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on UDP {0} for the link: {1}")]
    Bind(SocketAddr, io::Error),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// The listening link. Dropping it ends all connections.
pub struct LinkServer {
    endpoint: Endpoint,
    authority: Arc<Authority>,
    advertise: Vec<String>,
    local: SocketAddr,
    key: String,
    /// What is shown now, and where it is kept.
    shown: Arc<Shown>,
    ledger: Arc<Ledger>,
    /// Link addresses of the other balancers, for join tokens.
    others: std::sync::Mutex<Vec<String>>,
    joins: Arc<Joins>,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    renewal: tokio::task::JoinHandle<()>,
}

impl LinkServer {
    /// Listens, as a balancer of the cluster of `authority`. Needs a running tokio runtime.
    pub fn bind(config: ServerConfig, authority: Arc<Authority>, names: Names) -> Result<Self, ServerError> {
        let folder = config.cluster.join("identity");
        let identity = authority.identity(&folder, &config.name, Role::Balancer)?;
        let ledger = Arc::new(Ledger::open(&config.cluster, &config.name)?);
        let key = identity.key_id().to_owned();
        let quic = quic_config(&authority, &identity)?;
        let bind_failed = |e| ServerError::Bind(config.listen, e);
        let endpoint = endpoint::bind(config.listen, identity.reset_key(), Some(quic)).map_err(bind_failed)?;
        let local = endpoint.local_addr().map_err(bind_failed)?;
        let advertise = match config.advertise.is_empty() {
            true => vec![endpoint::reachable(local).to_string()],
            false => config.advertise,
        };
        let joins = Joins {
            authority: authority.clone(),
            ledger: ledger.clone(),
            names: names.clone(),
            own: config.name,
            newcomers: Default::default(),
            given: Default::default(),
        };
        let joins = Arc::new(joins);
        let newcomers = joins.clone();
        let (sender, incoming) = mpsc::channel(ARRIVALS);
        let kept_at = config.cluster.join("known.txt");
        let (door, known) = (Door::new(Instant::now(), known_before(&kept_at)), watch::channel(Vec::new()));
        let hall = Hall { names, joins, incoming: sender, known: known.0, told_removed: Arc::default() };
        tokio::spawn(accept_all(endpoint.clone(), hall, door));
        tokio::spawn(files::keep(kept_at, "the addresses of the cluster's servers", known.1, |known| {
            lines(known.as_slice())
        }));
        let shown = Shown { endpoint: endpoint.clone(), authority: authority.clone(), folder, now: identity.into() };
        let shown = Arc::new(shown);
        let renewal = tokio::spawn(renew(shown.clone()));
        let (incoming, others) = (Mutex::new(incoming), Default::default());
        Ok(Self {
            endpoint,
            authority,
            advertise,
            local,
            key,
            shown,
            ledger,
            others,
            joins: newcomers,
            incoming,
            renewal,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next worker that has introduced itself, its name and version checked; `None` after [`Self::close`].
    /// Servers that join with a token are served without further ado.
    pub async fn accept(&self) -> Option<Incoming> {
        self.incoming.lock().await.recv().await
    }

    /// The cluster's authority, to renew certificates.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Where others reach it: the addresses that its join tokens name first.
    pub fn advertised(&self) -> &[String] {
        &self.advertise
    }

    /// The key of its own certificate.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Shows, and asks for, what the authority has by now. Blocks on the disk. Links that are up stay.
    pub fn follow_authority(&self) -> Result<(), ServerError> {
        self.shown.refresh().map(drop)
    }

    /// Changes the CA to what another balancer has changed it to, which has made this token. False if that was done before.
    pub async fn adopt(&self, token: &Token) -> Result<bool, JoinError> {
        let identity = self.shown.now();
        let change = join::fetch_change(token, &identity).await?;
        let (authority, own, shown) = (self.authority.clone(), self.key.clone(), self.shown.clone());
        let adopted = host::blocking(move || {
            let adopted = authority.adopt(change, &own)?;
            shown.refresh().map_err(|error| JoinError::Protocol(String::from("this balancer"), error.to_string()))?;
            Ok::<bool, JoinError>(adopted)
        });
        adopted.await.unwrap_or_else(|e| Err(JoinError::Protocol(String::from("this balancer"), e.to_string())))
    }

    /// Link addresses of the other balancers: a join token leads to them too.
    pub fn set_others(&self, others: Vec<String>) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    /// Balancers that joined here of late: workers that are there must hear of them. Those with a name that is `told` have been
    /// heard of, and are forgotten here.
    pub fn newcomers(&self, told: impl Fn(&str) -> bool) -> Vec<Newcomer> {
        let mut newcomers = self.joins.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        newcomers.retain(|newcomer| !told(&newcomer.name));
        newcomers.iter().cloned().collect()
    }

    /// The join tokens of the cluster. Its methods that write block on the disk.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Makes a join token that leads to this balancer, then to the others. `uses` is at least 1. Blocks on the disk.
    pub fn token(&self, role: Role, expires_in: Duration, uses: u32) -> Result<Token, TokenError> {
        let mut addresses = self.advertise.clone();
        for other in self.others.lock().unwrap_or_else(PoisonError::into_inner).iter().take(ADDRESSES) {
            if !addresses.contains(other) {
                addresses.push(other.clone());
            }
        }
        let now = time::now();
        let token = self.authority.token(role, now + expires_in, uses, addresses)?;
        self.ledger.made(&token, now)?;
        Ok(token)
    }

    /// Closes all connections, and waits up to 1 s until the peers know it.
    pub async fn close(&self, reason: &str) {
        self.endpoint.close(CODE_DONE, reason.as_bytes());
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl Drop for LinkServer {
    fn drop(&mut self) {
        self.renewal.abort();
        self.endpoint.close(CODE_DONE, b"stopped");
    }
}

fn quic_config(authority: &Authority, identity: &Identity) -> Result<quinn::ServerConfig, ServerError> {
    let tls = tls::server(identity, &authority.to_newcomers(identity)?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(endpoint::transport_for_strangers());
    config.max_incoming(UNSEEN.0);
    config.incoming_buffer_size(UNSEEN.1);
    config.incoming_buffer_size_total(UNSEEN.2);
    Ok(config)
}

/// The balancer's own certificate while it runs.
struct Shown {
    endpoint: Endpoint,
    authority: Arc<Authority>,
    folder: PathBuf,
    now: std::sync::Mutex<Identity>,
}

impl Shown {
    fn now(&self) -> Identity {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a newer certificate, or asks for those of other CAs; false if there is nothing new.
    fn refresh(&self) -> Result<bool, ServerError> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.authority.identity(&self.folder, now.name(), Role::Balancer)?;
        let changed = new.expires_at() != now.expires_at() || new.trust() != now.trust();
        if changed {
            self.endpoint.set_server_config(Some(quic_config(&self.authority, &new)?));
            *now = new;
        }
        Ok(changed)
    }
}

/// Renews the certificate, and ends a change of the CA that has lasted for long enough.
async fn renew(shown: Arc<Shown>) {
    loop {
        tokio::time::sleep(RENEWAL_LOOK).await;
        let shown = shown.clone();
        let work = host::blocking(move || {
            match shown.authority.finish_old_change(time::now()) {
                Ok(true) => {
                    tracing::warn!(
                        "the change of the cluster's CA has lasted for a day: the one before counts no more"
                    );
                }
                Ok(false) => {}
                // The certificate is renewed all the same.
                Err(error) => {
                    tracing::error!(%error, "cannot give up the CA before the present one; it is tried again")
                }
            }
            Ok::<_, ServerError>(shown.refresh()?.then(|| shown.now().expires_at()))
        });
        match work.await {
            Ok(Ok(Some(until))) => tracing::info!(until = time::rfc3339(until), "renewed the balancer's certificate"),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::error!(%error, "cannot renew the balancer's certificate"),
            Err(error) => tracing::error!(%error, "renewing the balancer's certificate broke off"),
        }
    }
}

/// Where strangers go.
#[derive(Clone)]
struct Hall {
    names: Names,
    joins: Arc<Joins>,
    incoming: mpsc::Sender<Incoming>,
    /// Addresses of the cluster's servers, whenever there is a new one.
    known: watch::Sender<Vec<IpAddr>>,
    /// When it was last said that workers take this balancer for removed.
    told_removed: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl Hall {
    /// A worker of the cluster, or somebody with its certificate, says that this balancer was removed. It dials again and again.
    fn refused_itself(&self, address: SocketAddr) {
        let told = &mut *self.told_removed.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() > TOLD_REMOVED) {
            *told = Some(Instant::now());
            tracing::warn!(
                %address,
                "a worker refuses this balancer, for it was removed from the cluster and its certificate is revoked: stop it, and \
                 delete its folder, which holds keys of the cluster"
            );
        }
    }
}

/// The addresses that an earlier run has known; what cannot be read is learnt again.
fn known_before(path: &Path) -> Vec<IpAddr> {
    let text = files::read(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the addresses of the cluster's servers");
        None
    });
    text.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect()
}

fn lines(addresses: &[IpAddr]) -> Vec<u8> {
    addresses.iter().map(|address| format!("{address}\n")).collect::<String>().into_bytes()
}

/// Introductions that go on, by their number at the door.
type Guests = std::sync::Mutex<(Door, HashMap<u64, AbortHandle>)>;

/// Nothing here waits for a stranger.
async fn accept_all(endpoint: Endpoint, hall: Hall, door: Door) {
    let guests = Arc::new(Guests::new((door, HashMap::new())));
    while let Some(stranger) = endpoint.accept().await {
        // Whoever asks must first show that it owns its address: forged ones cost a packet and no memory.
        if !stranger.remote_address_validated() && stranger.may_retry() {
            let _ = stranger.retry();
            continue;
        }
        let (door, going_on) = &mut *guests.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Admission { id, evicted }) = door.knock(Instant::now(), stranger.remote_address()) else {
            // It sends again if it is serious.
            stranger.ignore();
            continue;
        };
        evicted.and_then(|evicted| going_on.remove(&evicted)).iter().for_each(AbortHandle::abort);
        let (hall, over) = (hall.clone(), guests.clone());
        let task = tokio::spawn(async move {
            let good = receive(stranger, &hall).await;
            let (door, going_on) = &mut *over.lock().unwrap_or_else(PoisonError::into_inner);
            if door.ended(Instant::now(), id, good) {
                hall.known.send_replace(door.known());
            }
            going_on.remove(&id);
        });
        going_on.insert(id, task.abort_handle());
    }
}

/// Whether it was a server of the cluster, or has become one.
async fn receive(stranger: quinn::Incoming, hall: &Hall) -> bool {
    let address = stranger.remote_address();
    let reason = match tokio::time::timeout(INTRODUCTION, introduce(stranger, hall)).await {
        Ok(Ok(())) => return true,
        Ok(Err(reason)) => reason,
        Err(_) => "it took too long".into(),
    };
    if reason == Ended::ByPeer(PEER_REVOKED.into()).to_string() {
        hall.refused_itself(address);
    }
    tracing::debug!(%address, reason, "a server was not let in");
    false
}

async fn introduce(stranger: quinn::Incoming, hall: &Hall) -> Result<(), String> {
    let connection = stranger.accept().map_err(|e| Ended::from(e).to_string())?;
    let connection = connection.await.map_err(|e| Ended::from(e).to_string())?;
    let protocol = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol);
    if protocol.as_deref() == Some(limpet_shared::link::ALPN_JOIN) {
        return hall.joins.serve(connection).await;
    }
    let peer = match PeerName::shown(&connection) {
        Some(peer) if peer.role == Role::Worker => peer,
        Some(_) => return Err(turn_away(&connection, "only workers link up with balancers")),
        None => {
            return Err(turn_away(
                &connection,
                "the link needs a certificate of this cluster: join with a token first",
            ));
        }
    };
    let incoming = Incoming::hear(connection, peer).await?;
    let objection = incoming.objection(&hall.names).or_else(|| incoming.is_of_former_ca(&hall.joins.authority));
    if let Some(refused) = objection {
        let reason = refused.reason.clone();
        incoming.refuse(refused).await;
        return Err(reason);
    }
    endpoint::trust(&incoming.connection);
    hall.incoming.send(incoming).await.map_err(|_| "the balancer is stopping".to_owned())
}

/// Why a server with a revoked certificate is refused.
pub fn removed(name: &str) -> String {
    format!("{name:?} was removed from this cluster, and its certificate is revoked")
}

fn turn_away(connection: &Connection, reason: &str) -> String {
    connection.close(CODE_REFUSED, reason.as_bytes());
    reason.to_owned()
}

/// A worker at the door: its certificate is of this cluster, its name is the one in it and not revoked.
pub struct Incoming {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// What it said.
    pub hello: Hello,
    /// When its Hello was read.
    pub at: UnixMicros,
    certified: PeerName,
    connection: Connection,
    send: SendStream,
    receive: Receiver<ToBalancer>,
}

impl Incoming {
    async fn hear(connection: Connection, peer: PeerName) -> Result<Self, String> {
        let (send, receive): (SendStream, RecvStream) =
            connection.accept_bi().await.map_err(|e| Ended::from(e).to_string())?;
        let mut receive = Receiver::<ToBalancer>::with_limit(receive, INTRODUCTION_MAX);
        let first = receive.recv().await.map_err(|e| e.to_string())?;
        let Some(ToBalancer { kind: Some(to_balancer::Kind::Hello(mut hello)) }) = first else {
            return Err(turn_away(&connection, "the first message must be Hello"));
        };
        hello.key = peer.key.clone();
        // What the stream brings now may be a cluster snapshot.
        let receive = receive.trust();
        let address = connection.remote_address();
        let (name, at) = (hello.name.clone(), time::now());
        Ok(Self { name, address, hello, at, certified: peer, connection, send, receive })
    }

    fn objection(&self, names: &Names) -> Option<Refused> {
        let Hello { version, name, key, .. } = &self.hello;
        let refused = |reason| Some(Refused { reason, ..Refused::default() });
        if version.abs_diff(VERSION) > 1 {
            let reason =
                format!("the worker speaks version {version} of the link, this balancer {VERSION}: upgrade in steps");
            return refused(reason);
        }
        if *name != self.certified.name {
            let name: String = name.chars().take(80).collect();
            return refused(format!("the certificate is for {:?}, not for {name:?}", self.certified.name));
        }
        let revoked = names(name, Some(key)) == NameState::Revoked;
        revoked.then(|| Refused { reason: removed(name), removed: true, ..Refused::default() })
    }

    /// While the CA is changed: somebody whom nobody knew when that began.
    fn is_of_former_ca(&self, authority: &Authority) -> Option<Refused> {
        (!authority.trust().counts(&self.certified)).then(|| {
            let reason = format!(
                "the certificate of {:?} is of a CA that the cluster gives up, and it was not known when that began: it must join \
                 anew",
                self.certified.name
            );
            Refused { reason, ..Refused::default() }
        })
    }

    /// The CA that has signed its certificate.
    pub fn issuer(&self) -> &[u8] {
        &self.certified.issuer
    }

    /// Lets the worker in; it gets what is in `queues`, and control messages have priority over frames.
    pub async fn welcome(mut self, welcome: Welcome, queues: Queues) -> Result<WorkerLink, Ended> {
        let lost = |_| Ended::Failed("the worker went away".into());
        let _ = self.send.set_priority(CONTROL_PRIORITY);
        write_one(&mut self.send, &ToWorker::from(to_worker::Kind::Welcome(welcome))).await.map_err(lost)?;
        let (mut frames, acks) = self.connection.open_bi().await?;
        // A stream exists for the peer only once something was sent on it: an empty message opens it.
        frames.write_all(&0_u32.to_be_bytes()).await.map_err(lost)?;
        let writers =
            vec![tokio::spawn(write_all(queues.control, self.send)), tokio::spawn(write_all(queues.frames, frames))];
        Ok(WorkerLink {
            control_rx: self.receive,
            ack_rx: Receiver::<Ack>::new(acks),
            link: Link::new(self.connection, writers, None),
        })
    }

    /// Sends the worker away, and says why.
    pub async fn refuse(mut self, refused: Refused) {
        let reason = refused.reason.clone();
        let told = async {
            let message = ToWorker::from(to_worker::Kind::Refused(refused));
            if write_one(&mut self.send, &message).await.is_ok() && self.send.finish().is_ok() {
                let _ = self.send.stopped().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
        self.connection.close(CODE_REFUSED, reason.as_bytes());
    }
}

/// A worker that was let in.
pub struct WorkerLink {
    pub control_rx: ControlReceiver<ToBalancer>,
    pub ack_rx: AckReceiver,
    /// Dropping it ends the link.
    pub link: Link,
}
