//! What a server has of its host: the wall clock, chance, processor time and UDP sockets. All of it comes from here, so
//! that a simulation can give each of the servers on its one thread another clock, a seeded chance and a network of its own.
//! Monotonic time is the asynchronous runtime's, which can be paused.

use std::{
    cell::RefCell,
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use limpet_shared::Rule;
use limpet_shared::UnixMicros;
use quinn::AsyncUdpSocket;
use tokio::task::JoinHandle;

use crate::quic;

/// The machine that a server runs on: the real one, unless [`simulate`] has put another in its place.
pub trait Host: fmt::Debug {
    /// The wall clock.
    fn now(&self) -> UnixMicros;
    /// Random bytes.
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()>;
    /// Processor time that the process has used.
    fn cpu_time(&self) -> Duration;
    /// The rule that this host's servers break, so that a simulation shows that its absence is noticed.
    fn broken(&self) -> Option<Rule>;
    /// A bound UDP socket.
    fn udp(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;
}

/// Whether the rule is kept: always, but by some servers of a simulation, in builds with debug assertions.
pub fn keeps(rule: Rule) -> bool {
    !cfg!(debug_assertions) || SIMULATED.with_borrow(|host| host.as_ref().and_then(|host| host.broken()) != Some(rule))
}

thread_local! {
    static SIMULATED: RefCell<Option<Arc<dyn Host>>> = const { RefCell::new(None) };
}

/// Puts a host in the real one's place for this thread, or takes it away. Only a simulation does.
pub fn simulate(host: Option<Arc<dyn Host>>) {
    SIMULATED.set(host);
}

/// The host that this thread is on, if it is a simulated one.
pub fn simulated() -> Option<Arc<dyn Host>> {
    SIMULATED.with_borrow(Clone::clone)
}

/// The wall clock now.
pub fn now() -> UnixMicros {
    SIMULATED.with_borrow(|host| host.as_ref().map(|host| host.now())).unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    })
}

/// Fills `bytes` with random ones.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    match simulated() {
        Some(host) => host.fill(bytes),
        None => getrandom::fill(bytes).map_err(|e| io::Error::other(e.to_string())),
    }
}

/// A random number.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Runs what blocks, on a disk or a long computation, beside the runtime's own threads. A simulated machine does it at once, for it
/// has one thread.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match simulated() {
        Some(_) => tokio::spawn(std::future::ready(work())),
        None => tokio::task::spawn_blocking(work),
    }
}

/// A UDP socket for QUIC on this address: `bind` makes it on the real machine. Needs a running tokio runtime.
pub(crate) fn udp(
    address: SocketAddr,
    bind: impl FnOnce(SocketAddr) -> io::Result<std::net::UdpSocket>,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    match simulated() {
        Some(host) => host.udp(address),
        None => quic::runtime()?.wrap_udp_socket(bind(address)?),
    }
}

pub(crate) fn no_runtime() -> io::Error {
    io::Error::other("no asynchronous runtime is running")
}
