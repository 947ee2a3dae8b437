//! The worker's side of the link.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use limpet_shared::{
    UnixMicros,
    link::{Hello, ToBalancer, ToWorker, UplinkFrame, Welcome, to_balancer, to_worker},
};
use quinn::{ClientConfig, Connection, Endpoint};

use crate::{
    connection::{CODE_REFUSED, Ended, Link, PEER_REVOKED},
    endpoint,
    identity::{Identity, PeerName},
    stream::{
        ACK_QUEUE, AckSender, CONTROL_PRIORITY, CONTROL_QUEUE, ControlReceiver, ControlSender, FrameReceiver, Receiver,
        write_one, writer,
    },
    time::{self, rfc3339},
    tls,
};

/// From the first packet to the answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The name in the TLS greeting. Nobody looks at it, since addresses are dialled and any balancer will do.
const SERVER_NAME: &str = "limpet";

/// Why a balancer could not be linked up with.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot find the address of {0:?}: {1}")]
    Resolve(String, String),
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("no answer from {0} (UDP) in time")]
    Timeout(String),
    #[error("{address}: {ended}")]
    Ended { address: String, ended: Ended },
    /// The balancer said no.
    #[error("{address} refuses this server: {reason}")]
    Refused {
        address: String,
        reason: String,
        /// Another try may have more luck.
        retry: bool,
    },
    /// The balancer has a link to this process already, at another address of it.
    #[error("{address} leads to a balancer that is linked at another address")]
    Linked {
        address: String,
        /// That balancer's instance.
        balancer: u64,
    },
    /// The balancer said no: the store of this worker is not that of the cluster.
    #[error("{address} refuses this server: {reason}")]
    OtherStore {
        address: String,
        reason: String,
        /// When the cluster's network began (Unix, s).
        began: u64,
    },
    #[error(
        "{address} is {name}, whose certificate is of a CA that the cluster gives up, and which was not known when it was changed"
    )]
    FormerCa { address: String, name: String },
    /// The balancer's certificate counts no more.
    #[error("{address} is {name}, which was removed from this cluster: its certificate is revoked")]
    Revoked { address: String, name: String },
    /// The balancer said no, for good: an operator has taken this server out of the cluster.
    #[error("{address} refuses this server: {reason}")]
    Removed { address: String, reason: String },
    #[error(
        "this server's certificate is valid from {} until {}, and this machine's clock says {}: {what}",
        rfc3339(*from), rfc3339(*until), rfc3339(*now)
    )]
    Time { from: UnixMicros, until: UnixMicros, now: UnixMicros, what: String },
    #[error("{0} does not speak the link's protocol: {1}")]
    Protocol(String, String),
}

/// A balancer that has let this worker in.
pub struct BalancerLink {
    pub welcome: Welcome,
    /// Whom TLS has verified.
    pub peer: PeerName,
    pub control_tx: ControlSender<ToBalancer>,
    pub control_rx: ControlReceiver<ToWorker>,
    pub frame_rx: FrameReceiver,
    pub ack_tx: AckSender,
    /// Dropping it ends the link.
    pub link: Link,
}

/// Links up with the balancer at `address` (`host:port`; of several addresses of a name, the first that answers).
pub async fn dial(address: &str, identity: &Identity, hello: Hello) -> Result<BalancerLink, DialError> {
    dial_unless(address, identity, hello, |_| false).await
}

/// The same, unless the certificate of the balancer there is revoked: then it hears nothing of this server.
pub async fn dial_unless(
    address: &str,
    identity: &Identity,
    hello: Hello,
    is_revoked: impl Fn(&PeerName) -> bool,
) -> Result<BalancerLink, DialError> {
    let now = time::now();
    let out_of_time = |what: &str| DialError::Time {
        from: identity.valid_from(),
        until: identity.expires_at(),
        now,
        what: what.to_owned(),
    };
    if now < identity.valid_from() {
        return Err(out_of_time("set the clock"));
    }
    if identity.is_expired(now) {
        return Err(out_of_time("if the clock is right, start it with a new --join TOKEN (`limpet ctl join-token`)"));
    }
    let config = tls::client(identity)?;
    let dialled = async {
        let (connection, endpoint) = connect(address, config, identity.reset_key()).await?;
        let peer = PeerName::shown(&connection)
            .ok_or_else(|| DialError::Protocol(address.to_owned(), "its certificate names no server".into()))?;
        if !identity.trust().counts(&peer) {
            connection.close(CODE_REFUSED, b"its certificate is of a CA that was given up");
            return Err(DialError::FormerCa { address: address.to_owned(), name: peer.name });
        }
        if is_revoked(&peer) {
            connection.close(CODE_REFUSED, PEER_REVOKED.as_bytes());
            return Err(DialError::Revoked { address: address.to_owned(), name: peer.name });
        }
        let introduced =
            tokio::time::timeout(DIAL_TIMEOUT, introduce((address, peer), connection, endpoint, hello)).await;
        introduced.map_err(|_| DialError::Timeout(address.to_owned()))?
    };
    match dialled.await {
        Err(DialError::Ended { ended: Ended::OurCertificateTime, .. }) => {
            Err(out_of_time(&format!("by the clock of {address} it is not valid now, so one of the clocks is wrong")))
        }
        other => other,
    }
}

/// Opens a connection, trying each address that the name has.
pub(crate) async fn connect(
    address: &str,
    tls: quinn::crypto::rustls::QuicClientConfig,
    reset_key: ring::hmac::Key,
) -> Result<(Connection, Endpoint), DialError> {
    let resolve_failed = |e: String| DialError::Resolve(address.to_owned(), e);
    let found = tokio::net::lookup_host(address).await.map_err(|e| resolve_failed(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(endpoint::transport());
    let mut last = resolve_failed("it has none".into());
    for peer in found.take(8) {
        match connect_one(address, peer, config.clone(), reset_key.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(
    address: &str,
    peer: SocketAddr,
    config: ClientConfig,
    reset_key: ring::hmac::Key,
) -> Result<(Connection, Endpoint), DialError> {
    let endpoint = endpoint::bind_client(peer, reset_key)?;
    let connecting = endpoint
        .connect_with(config, peer, SERVER_NAME)
        .map_err(|e| DialError::Protocol(address.to_owned(), e.to_string()))?;
    match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok((connection, endpoint)),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(DialError::Timeout(address.to_owned())),
        Ok(Err(e)) => Err(DialError::Ended { address: address.to_owned(), ended: e.into() }),
    }
}

async fn introduce(
    (address, peer): (&str, PeerName),
    connection: Connection,
    endpoint: Endpoint,
    hello: Hello,
) -> Result<BalancerLink, DialError> {
    let protocol = |what: &str| DialError::Protocol(address.to_owned(), what.to_owned());
    // A refusal by TLS comes after the handshake, so that any step may be the one that hears of it.
    let why = |fallback: String| match connection.close_reason() {
        Some(reason) => DialError::Ended { address: address.to_owned(), ended: reason.into() },
        None => DialError::Protocol(address.to_owned(), fallback),
    };
    let (mut control, receive) = connection.open_bi().await.map_err(|e| why(e.to_string()))?;
    let _ = control.set_priority(CONTROL_PRIORITY);
    let hello = ToBalancer::from(to_balancer::Kind::Hello(hello));
    write_one(&mut control, &hello).await.map_err(|e| why(e.to_string()))?;
    let mut control_rx = Receiver::<ToWorker>::new(receive);
    let first = control_rx.recv().await.map_err(|e| why(e.to_string()))?;
    let welcome = match first.and_then(|message| message.kind) {
        Some(to_worker::Kind::Welcome(welcome)) => welcome,
        Some(to_worker::Kind::Refused(refused)) if refused.linked != 0 => {
            return Err(DialError::Linked { address: address.to_owned(), balancer: refused.linked });
        }
        Some(to_worker::Kind::Refused(refused)) => {
            let (address, reason, retry) = (address.to_owned(), refused.reason, refused.retry);
            return Err(match (refused.removed, refused.network_began) {
                (true, _) => DialError::Removed { address, reason },
                (false, 0) => DialError::Refused { address, reason, retry },
                (false, began) => DialError::OtherStore { address, reason, began },
            });
        }
        _ => return Err(protocol("its first message is no answer to Hello")),
    };
    let (acks, frames) = connection.accept_bi().await.map_err(|e| why(e.to_string()))?;
    let mut frame_rx = Receiver::<UplinkFrame>::new(frames);
    // The empty message that opened the stream.
    match frame_rx.body().await.map_err(|e| why(e.to_string()))? {
        Some(body) if body.is_empty() => {}
        _ => return Err(protocol("its frame stream does not begin with an empty message")),
    }
    let (control_tx, control_writer) = writer(control, CONTROL_QUEUE);
    let (ack_tx, ack_writer) = writer(acks, ACK_QUEUE);
    let link = Link::new(connection, vec![control_writer, ack_writer], Some(endpoint));
    Ok(BalancerLink { welcome, peer, control_tx, control_rx, frame_rx, ack_tx, link })
}
