//! What both sides do alike with a connection: end it, and say why it ended.

use std::{fmt, time::Duration};

use quinn::{Connection, ConnectionError, Endpoint, TransportErrorCode, VarInt};
use tokio::task::JoinHandle;

/// A connection ended in good order.
pub(crate) const CODE_DONE: VarInt = VarInt::from_u32(0);
/// The peer was not let in.
pub(crate) const CODE_REFUSED: VarInt = VarInt::from_u32(1);
/// How long [`Link::close`] waits for what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it and said why.
    ByPeer(String),
    /// We closed it.
    ByUs,
    /// The peer was restarted and does not know the connection.
    Reset,
    /// Nothing was heard for [`crate::endpoint::IDLE_TIMEOUT`].
    Silent,
    /// Anything else, such as a violation of the protocol.
    Failed(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer(reason) => write!(f, "closed by the peer: {reason}"),
            Self::ByUs => f.write_str("closed by this side"),
            Self::Reset => f.write_str("the peer was restarted"),
            Self::Silent => f.write_str("the peer is silent"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::ByPeer(String::from_utf8_lossy(&close.reason).into_owned())
            }
            ConnectionError::LocallyClosed => Self::ByUs,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::Silent,
            other => Self::Failed(tls_cause(&other).map_or_else(|| other.to_string(), str::to_owned)),
        }
    }
}

/// What TLS alerts mean here (RFC 8446, 6.2; QUIC adds 0x100 to them).
fn tls_cause(error: &ConnectionError) -> Option<&'static str> {
    let (code, ours) = match error {
        ConnectionError::TransportError(error) => (error.code, true),
        ConnectionError::ConnectionClosed(close) => (close.error_code, false),
        _ => return None,
    };
    let is = |alert| code == TransportErrorCode::crypto(alert);
    match ours {
        true if is(48) || is(42) => Some("the peer is no balancer of this cluster"),
        true if is(45) => Some("the peer's certificate has expired, or the clocks differ"),
        false if is(48) || is(42) => Some("the peer does not accept our certificate: it is of another cluster"),
        false if is(45) => Some("the peer does not accept our certificate: it has expired, or the clocks differ"),
        _ => None,
    }
}

/// One side of a link. Dropping it ends the connection at once, with whatever is still queued.
pub struct Link {
    connection: Connection,
    writers: Vec<JoinHandle<()>>,
    /// A worker's endpoint lives for one link.
    endpoint: Option<Endpoint>,
}

impl Link {
    pub(crate) fn new(connection: Connection, writers: Vec<JoinHandle<()>>, endpoint: Option<Endpoint>) -> Self {
        Self { connection, writers, endpoint }
    }

    /// Waits until the connection has ended, for whatever reason.
    pub async fn closed(&self) -> Ended {
        self.connection.closed().await.into()
    }

    /// Round-trip time as QUIC measures it.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// The peer's address.
    pub fn remote(&self) -> std::net::SocketAddr {
        self.connection.remote_address()
    }

    /// Ends the link in good order: waits up to 1 s until the peer has all that was queued, then closes.
    /// Drop the senders before, or the second passes in vain.
    pub async fn close(mut self, reason: &str) {
        let writers = std::mem::take(&mut self.writers);
        let written = async {
            for writer in writers {
                let _ = writer.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
        self.connection.close(CODE_DONE, reason.as_bytes());
        if let Some(endpoint) = self.endpoint.take() {
            // The farewell is sent by the endpoint's task, which needs a moment of the runtime.
            let _ = tokio::time::timeout(LAST_WORDS, endpoint.wait_idle()).await;
        }
    }

    /// Ends the link at once.
    pub fn abort(&self, reason: &str) {
        self.connection.close(CODE_DONE, reason.as_bytes());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The first reason counts, so this changes nothing after `close` and `abort`.
        self.connection.close(CODE_DONE, b"stopped");
    }
}
