//! The balancer's side of the link: one UDP port on which workers link up and servers join.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use limpet_shared::{
    UnixMicros,
    admin::Role,
    link::{Ack, Hello, Refused, ToBalancer, ToWorker, VERSION, Welcome, to_balancer, to_worker},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::{
    authority::{Authority, AuthorityError},
    connection::{CODE_DONE, CODE_REFUSED, Ended, Link},
    endpoint,
    identity::{self, Identity, PeerName},
    join::server::Joins,
    name::NameState,
    stream::{
        AckReceiver, CONTROL_PRIORITY, CONTROL_QUEUE, ControlReceiver, ControlSender, FRAME_QUEUE, FrameSender,
        Receiver, write_one, writer,
    },
    time, tls,
    token::{Token, TokenError, uses::TokenUses},
};

/// A stranger has this long from its first packet to a whole Hello or join request.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Strangers that introduce themselves at the same time; more wait in the kernel or are dropped.
const STRANGERS: usize = 64;
/// The longest first message of a stranger.
const INTRODUCTION_MAX: usize = 16 << 10;

/// Tells what a server's name stands for; asked at each Hello and each join.
pub type Names = Arc<dyn Fn(&str) -> NameState + Send + Sync>;

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
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    renewal: tokio::task::JoinHandle<()>,
}

impl LinkServer {
    /// Listens, as a balancer of the cluster of `authority`. Needs a running tokio runtime.
    pub fn bind(config: ServerConfig, authority: Arc<Authority>, names: Names) -> Result<Self, ServerError> {
        let folder = config.cluster.join("identity");
        let identity = authority.identity(&folder, &config.name, Role::Balancer)?;
        let uses = Arc::new(TokenUses::open(&config.cluster)?);
        let quic = quic_config(&identity)?;
        let bind_failed = |e| ServerError::Bind(config.listen, e);
        let endpoint = endpoint::bind(config.listen, identity.reset_key(), Some(quic)).map_err(bind_failed)?;
        let local = endpoint.local_addr().map_err(bind_failed)?;
        let advertise = match config.advertise.is_empty() {
            true => vec![endpoint::reachable(local).to_string()],
            false => config.advertise,
        };
        let joins = Joins {
            authority: authority.clone(),
            uses,
            names: names.clone(),
            own: config.name,
            given: Default::default(),
        };
        let joins = Arc::new(joins);
        let (sender, incoming) = mpsc::channel(STRANGERS);
        tokio::spawn(accept_all(endpoint.clone(), Door { names, joins, incoming: sender }));
        let renewal = tokio::spawn(renew(endpoint.clone(), authority.clone(), folder, identity));
        Ok(Self { endpoint, authority, advertise, local, incoming: Mutex::new(incoming), renewal })
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

    /// Makes a join token that leads to this balancer. `uses` is at least 1.
    pub fn token(&self, role: Role, expires_in: Duration, uses: u32) -> Result<Token, TokenError> {
        self.authority.token(role, time::now() + expires_in, uses, self.advertise.clone())
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

fn quic_config(identity: &Identity) -> Result<quinn::ServerConfig, tls::TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server(identity)?));
    config.transport_config(endpoint::transport());
    config.max_incoming(4 * STRANGERS);
    config.incoming_buffer_size(64 << 10);
    config.incoming_buffer_size_total(4 << 20);
    Ok(config)
}

/// Replaces the balancer's own certificate while it runs.
async fn renew(endpoint: Endpoint, authority: Arc<Authority>, folder: PathBuf, mut identity: Identity) {
    loop {
        tokio::time::sleep(identity::RENEWAL_CHECK).await;
        let renewed = authority.identity(&folder, identity.name(), Role::Balancer).map_err(ServerError::from);
        match renewed.and_then(|new| Ok((quic_config(&new)?, new))) {
            Ok((config, new)) if new.expires_at() != identity.expires_at() => {
                endpoint.set_server_config(Some(config));
                identity = new;
                tracing::info!(until = time::rfc3339(identity.expires_at()), "renewed the balancer's certificate");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot renew the balancer's certificate"),
        }
    }
}

/// Where strangers go.
#[derive(Clone)]
struct Door {
    names: Names,
    joins: Arc<Joins>,
    incoming: mpsc::Sender<Incoming>,
}

async fn accept_all(endpoint: Endpoint, door: Door) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    while let Some(stranger) = endpoint.accept().await {
        // Busy: whoever asks must first show that it owns its address, so that forged ones cost nothing.
        if strangers.available_permits() < STRANGERS / 2 && !stranger.remote_address_validated() && stranger.may_retry()
        {
            let _ = stranger.retry();
            continue;
        }
        let Ok(permit) = strangers.clone().acquire_owned().await else { return };
        let door = door.clone();
        tokio::spawn(async move {
            let address = stranger.remote_address();
            match tokio::time::timeout(INTRODUCTION, introduce(stranger, &door)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => tracing::debug!(%address, reason, "a server was not let in"),
                Err(_) => tracing::debug!(%address, reason = "it took too long", "a server was not let in"),
            }
            drop(permit);
        });
    }
}

async fn introduce(stranger: quinn::Incoming, door: &Door) -> Result<(), String> {
    let connection = stranger.accept().map_err(|e| Ended::from(e).to_string())?;
    let connection = connection.await.map_err(|e| Ended::from(e).to_string())?;
    let protocol = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol);
    if protocol.as_deref() == Some(limpet_shared::link::ALPN_JOIN) {
        return door.joins.serve(connection).await;
    }
    let peer = match peer(&connection) {
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
    if let Some((reason, retry)) = incoming.objection(&door.names) {
        incoming.refuse(&reason, retry).await;
        return Err(reason);
    }
    door.incoming.send(incoming).await.map_err(|_| "the balancer is stopping".to_owned())
}

fn turn_away(connection: &Connection, reason: &str) -> String {
    connection.close(CODE_REFUSED, reason.as_bytes());
    reason.to_owned()
}

/// Whom TLS has verified.
fn peer(connection: &Connection) -> Option<PeerName> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PeerName::of(chain.first()?)
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
    certified: String,
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
        let Some(ToBalancer { kind: Some(to_balancer::Kind::Hello(hello)) }) = first else {
            return Err(turn_away(&connection, "the first message must be Hello"));
        };
        // What the stream brings now may be a cluster snapshot.
        let receive = receive.trust();
        let address = connection.remote_address();
        let (name, at) = (hello.name.clone(), time::now());
        Ok(Self { name, address, hello, at, certified: peer.name, connection, send, receive })
    }

    fn objection(&self, names: &Names) -> Option<(String, bool)> {
        let Hello { version, name, .. } = &self.hello;
        if version.abs_diff(VERSION) > 1 {
            let reason =
                format!("the worker speaks version {version} of the link, this balancer {VERSION}: upgrade in steps");
            return Some((reason, false));
        }
        if *name != self.certified {
            let name: String = name.chars().take(80).collect();
            return Some((format!("the certificate is for {:?}, not for {name:?}", self.certified), false));
        }
        let revoked = names(name) == NameState::Revoked;
        revoked.then(|| (format!("{name:?} was removed from this cluster"), false))
    }

    /// Lets the worker in. Control messages have priority over frames.
    pub async fn welcome(mut self, welcome: Welcome) -> Result<WorkerLink, Ended> {
        let lost = |_| Ended::Failed("the worker went away".into());
        let _ = self.send.set_priority(CONTROL_PRIORITY);
        write_one(&mut self.send, &ToWorker::from(to_worker::Kind::Welcome(welcome))).await.map_err(lost)?;
        let (mut frames, acks) = self.connection.open_bi().await?;
        // A stream exists for the peer only once something was sent on it: an empty message opens it.
        frames.write_all(&0_u32.to_be_bytes()).await.map_err(lost)?;
        let (control_tx, control_writer) = writer(self.send, CONTROL_QUEUE);
        let (frame_tx, frame_writer) = writer(frames, FRAME_QUEUE);
        Ok(WorkerLink {
            control_tx,
            control_rx: self.receive,
            frame_tx,
            ack_rx: Receiver::<Ack>::new(acks),
            link: Link::new(self.connection, vec![control_writer, frame_writer], None),
        })
    }

    /// Sends the worker away. `retry` says that another try may have more luck.
    pub async fn refuse(self, reason: &str, retry: bool) {
        self.refuse_as(Refused { reason: reason.to_owned(), retry, linked: 0 }).await;
    }

    /// Sends the worker away with this message.
    pub async fn refuse_as(mut self, refused: Refused) {
        let reason = refused.reason.clone();
        let refused = to_worker::Kind::Refused(refused);
        let told = async {
            if write_one(&mut self.send, &ToWorker::from(refused)).await.is_ok() && self.send.finish().is_ok() {
                let _ = self.send.stopped().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
        self.connection.close(CODE_REFUSED, reason.as_bytes());
    }
}

/// A worker that was let in.
pub struct WorkerLink {
    pub control_tx: ControlSender<ToWorker>,
    pub control_rx: ControlReceiver<ToBalancer>,
    pub frame_tx: FrameSender,
    pub ack_rx: AckReceiver,
    /// Dropping it ends the link.
    pub link: Link,
}
