//! UDP sockets and QUIC parameters of the link, alike on both sides.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{host, quic};

/// QUIC gives a silent connection up after this long: a backstop behind the acks of the link, which say so earlier.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// What is asked of the kernel for each direction.
pub const SOCKET_BUFFER: usize = 4 << 20;
/// Bytes in flight per stream: at 10 ms of round trip enough for 200 MB/s.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes that a stranger may send before it is known: more than the longest introduction.
const STRANGERS_WINDOW: u32 = 32 << 10;

/// The QUIC parameters of every connection.
pub(crate) fn transport() -> Arc<TransportConfig> {
    Arc::new(parameters())
}

/// The same at a balancer, where anyone may knock: until [`trust`], little is kept of what comes.
pub(crate) fn transport_for_strangers() -> Arc<TransportConfig> {
    let mut config = parameters();
    config.receive_window(VarInt::from_u32(STRANGERS_WINDOW));
    config.max_concurrent_bidi_streams(VarInt::from_u32(1));
    Arc::new(config)
}

/// The connection is that of a server of the cluster.
pub(crate) fn trust(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
}

fn parameters() -> TransportConfig {
    let mut config = TransportConfig::default();
    // QUIC counts in milliseconds and 3 s fit; there is no error to report.
    config.max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.max_concurrent_bidi_streams(VarInt::from_u32(2));
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.datagram_receive_buffer_size(None);
    config.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    config.receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    config.send_window(u64::from(CONNECTION_WINDOW));
    // Links are inside a data centre or a country; the default of 333 ms would delay the first retransmission.
    config.initial_rtt(Duration::from_millis(100));
    config
}

/// Binds a UDP socket and starts a QUIC endpoint on it. `server` lets it accept connections.
pub(crate) fn bind(
    address: SocketAddr,
    reset_key: hmac::Key,
    server: Option<quinn::ServerConfig>,
) -> io::Result<Endpoint> {
    let socket = host::udp(address, socket)?;
    let seed = random_key()?;
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(ConnectionIds { key: seed.clone(), count: 0 }));
    let mut chance = [0; 32];
    host::fill(&mut chance)?;
    config.rng_seed(Some(chance));
    Endpoint::new_with_abstract_socket(config, server, socket, quic::runtime()?)
}

/// A client endpoint that can reach `peer`.
pub(crate) fn bind_client(peer: SocketAddr, reset_key: hmac::Key) -> io::Result<Endpoint> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    bind(SocketAddr::new(any, 0), reset_key, None)
}

/// A reset key for an endpoint that has no identity yet.
pub(crate) fn random_key() -> io::Result<hmac::Key> {
    let mut bytes = [0; 32];
    host::fill(&mut bytes)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Without its full buffers the link still works, with more losses in bursts.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    warn_if_clamped(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn warn_if_clamped(socket: &Socket) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    let (Ok(receive), Ok(send)) = (socket.recv_buffer_size(), socket.send_buffer_size()) else { return };
    if receive.min(send) < SOCKET_BUFFER {
        WARNED.call_once(|| {
            tracing::warn!(
                receive,
                send,
                wanted = SOCKET_BUFFER,
                "the kernel clamps the buffers of UDP sockets; set net.core.rmem_max and net.core.wmem_max to {SOCKET_BUFFER}"
            );
        });
    }
}

/// Connection ids that nobody can guess: a counter under a random key.
struct ConnectionIds {
    key: hmac::Key,
    count: u64,
}

impl ConnectionIds {
    const LEN: usize = 8;
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let tag = hmac::sign(&self.key, &self.count.to_be_bytes());
        ConnectionId::new(&tag.as_ref()[..Self::LEN])
    }
    fn cid_len(&self) -> usize {
        Self::LEN
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The address under which others reach what listens on `listen`: itself, or for an unspecified address the one
/// that this machine would use to reach the world; without a network, loopback.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    // Connecting a UDP socket sends nothing: it only makes the kernel choose a route. The addresses are reserved for documents.
    let (any, world, loopback): (IpAddr, IpAddr, IpAddr) = match listen {
        SocketAddr::V4(_) => {
            (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::LOCALHOST.into())
        }
        SocketAddr::V6(_) => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::LOCALHOST.into(),
        ),
    };
    let routed = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((world, 9))?;
        socket.local_addr()
    });
    let ip = routed.map(|local| local.ip()).ok().filter(|ip| !ip.is_unspecified());
    SocketAddr::new(ip.unwrap_or(loopback), listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_becomes_one_that_can_be_dialled() {
        let fixed: SocketAddr = "10.1.2.3:1701".parse().unwrap();
        assert_eq!(reachable(fixed), fixed);
        for any in ["0.0.0.0:1701", "[::]:1701"] {
            let found = reachable(any.parse().unwrap());
            assert!(!found.ip().is_unspecified());
            assert_eq!(found.port(), 1701);
        }
    }

    #[test]
    fn connection_ids_do_not_repeat() {
        let mut ids = ConnectionIds { key: random_key().unwrap(), count: 0 };
        let mut all: Vec<_> = (0..1000).map(|_| ids.generate_cid().to_vec()).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }
}
