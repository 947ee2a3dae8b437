//! What both sides do alike with a connection: end it, and say why it ended.

use std::{fmt, time::Duration};

use limpet_shared::UnixMicros;
use quinn::{Connection, ConnectionError, Endpoint, TransportErrorCode, VarInt};
use tokio::task::JoinHandle;

use crate::time::rfc3339;

/// A connection ended in good order.
pub(crate) const CODE_DONE: VarInt = VarInt::from_u32(0);
/// The peer was not let in.
pub(crate) const CODE_REFUSED: VarInt = VarInt::from_u32(1);
/// What a worker says to a balancer that was removed.
pub(crate) const PEER_REVOKED: &str = "its certificate is revoked";
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
    /// By the peer's clock our certificate is not valid now.
    OurCertificateTime,
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
            Self::OurCertificateTime => f.write_str(
                "by the peer's clock our certificate is not valid now: it has expired, or the clocks differ",
            ),
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
            other => tls_cause(&other).unwrap_or_else(|| Self::Failed(other.to_string())),
        }
    }
}

/// What TLS alerts mean here (RFC 8446, 6.2; QUIC adds 0x100 to them).
fn tls_cause(error: &ConnectionError) -> Option<Ended> {
    let (code, ours) = match error {
        ConnectionError::TransportError(error) => (error.code, Some(&error.reason)),
        ConnectionError::ConnectionClosed(close) => (close.error_code, None),
        _ => return None,
    };
    let is = |alert| code == TransportErrorCode::crypto(alert);
    let failed = |why: &str| Some(Ended::Failed(why.to_owned()));
    match ours {
        Some(_) if is(48) || is(42) => failed(
            "the peer is no balancer of this cluster, or the cluster's CA was changed while this server was away (then it needs a new --join TOKEN)",
        ),
        Some(reason) if is(45) => Some(Ended::Failed(not_valid_now(reason))),
        None if is(48) || is(42) => failed(
            "the peer does not accept our certificate: it is of another cluster, or its CA was changed while this server was away (then it needs a new --join TOKEN)",
        ),
        None if is(45) => Some(Ended::OurCertificateTime),
        _ => None,
    }
}

/// The peer's certificate is not valid by our clock. rustls writes both times into its reason, as Unix seconds.
fn not_valid_now(reason: &str) -> String {
    let mut numbers = reason.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    let seconds = |at: u64| rfc3339(UnixMicros(at.saturating_mul(1_000_000)));
    match (numbers.next(), numbers.next()) {
        (Some(now), Some(limit)) if now < limit => format!(
            "the peer's certificate is not valid before {}, but this machine's clock says {}: set the clock",
            seconds(limit),
            seconds(now)
        ),
        (Some(now), Some(limit)) => format!(
            "the peer's certificate expired at {}, and this machine's clock says {}: is the clock right?",
            seconds(limit),
            seconds(now)
        ),
        _ => "the peer's certificate has expired, or the clocks differ".into(),
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

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use rustls_pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_out_of_its_time_is_told_with_both_times() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let early = CertificateError::NotValidYetContext { time: at(1_700_000_000), not_before: at(1_700_000_600) };
        assert_eq!(
            not_valid_now(&rustls::Error::InvalidCertificate(early).to_string()),
            "the peer's certificate is not valid before 2023-11-14T22:23:20Z, but this machine's clock says \
             2023-11-14T22:13:20Z: set the clock"
        );
        let late = CertificateError::ExpiredContext { time: at(1_700_000_600), not_after: at(1_700_000_000) };
        let late = not_valid_now(&rustls::Error::InvalidCertificate(late).to_string());
        assert!(late.contains("expired at 2023-11-14T22:13:20Z, and this machine's clock says 2023-11-14T22:23:20Z"));
        assert!(not_valid_now("something else").contains("or the clocks differ"));
    }
}
