//! Ports that nobody uses.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range from which systems take ports for outgoing connections, so that none is taken between the moment
/// it is found free and the moment a process listens there.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback address whose port is free for UDP and TCP. Each is given out once by this process.
pub fn free_address() -> SocketAddr {
    // Test binaries that run at once start at different places.
    let start = (std::process::id() as u16).wrapping_mul(97) % COUNT;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} on");
}

pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_| free_address())
}
