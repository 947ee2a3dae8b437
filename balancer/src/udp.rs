//! The socket that gateways talk to: datagrams in batches, answers from the address that was asked.

use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use bytes::Bytes;
use limpet_balancer_core::Source;
use limpet_link::{host, quic, watched::watched};
use limpet_shared::{Now, link::MAX_DATAGRAM};
use quinn::{
    AsyncUdpSocket,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use crate::{
    clock::Clock,
    muted::Muted,
    pace::{Pace, Rest},
};

/// What is asked of the kernel for each direction.
const SOCKET_BUFFER: usize = 4 << 20;
/// The kernel may hand over several datagrams of one sender in one buffer (GRO), never more than this.
const RECEIVE_BUFFER: usize = MAX_DATAGRAM + 28;

/// One datagram, and when it was read.
#[derive(Debug)]
pub struct Datagram {
    pub source: Source,
    pub bytes: Bytes,
    pub at: Now,
}

/// Datagrams that were read together.
#[derive(Debug)]
pub struct Batch {
    pub datagrams: Vec<Datagram>,
    /// Their share of the queue.
    #[allow(dead_code, reason = "given back when it is dropped")]
    room: OwnedSemaphorePermit,
}

/// Where datagrams wait until they are looked at: so many bytes of them, for one may be as long as a thousand others.
pub struct Queue {
    sender: mpsc::UnboundedSender<Batch>,
    room: Arc<Semaphore>,
    bytes: usize,
}

/// What a datagram costs besides its bytes.
const OVERHEAD: usize = 512;

/// Nobody takes datagrams any more.
#[derive(Debug)]
pub struct Ended;

impl Queue {
    /// A queue of at most `bytes` bytes with what each datagram costs besides; or of one batch, however long.
    pub fn new(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Batch>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        (Self { sender, room: Arc::new(Semaphore::new(bytes)), bytes }, receiver)
    }

    async fn put(&self, datagrams: Vec<Datagram>) -> Result<(), Ended> {
        let cost: usize = datagrams.iter().map(|datagram| datagram.bytes.len() + OVERHEAD).sum();
        let share = u32::try_from(cost.min(self.bytes)).map_err(|_| Ended)?;
        let room = self.room.clone().acquire_many_owned(share).await.map_err(|_| Ended)?;
        self.sender.send(Batch { datagrams, room }).map_err(|_| Ended)
    }
}

/// A bound socket.
pub struct GatewaySocket {
    number: u16,
    io: Io,
    local: SocketAddr,
}

enum Io {
    Kernel { socket: std::net::UdpSocket, state: UdpSocketState },
    Simulated(Arc<dyn AsyncUdpSocket>),
}

/// Whether the kernel tells of datagrams as they come.
enum Ear<'a> {
    Deaf,
    Open(AsyncFd<BorrowedFd<'a>>),
}

impl GatewaySocket {
    /// Binds; `[::]` takes IPv4 too.
    pub fn bind(number: u16, address: SocketAddr) -> io::Result<Arc<Self>> {
        if let Some(host) = host::simulated() {
            let io = Io::Simulated(host.udp(address)?);
            return Ok(Arc::new(Self { number, io, local: address }));
        }
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        // The balancer works with smaller buffers too; it only loses more in a burst.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        warn_if_clamped(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Arc::new(Self { number, io: Io::Kernel { socket, state }, local }))
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends without waiting: what the kernel has no room for now is lost, as UDP may.
    pub fn send(&self, to: Source, bytes: &[u8]) -> io::Result<()> {
        let destination = match (to.address.ip(), self.local.is_ipv6()) {
            (IpAddr::V4(ip), true) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.address.port()),
            _ => to.address,
        };
        let transmit = Transmit { destination, ecn: None, contents: bytes, segment_size: None, src_ip: to.local };
        match &self.io {
            Io::Kernel { socket, state } => state.try_send(socket.into(), &transmit),
            Io::Simulated(socket) => socket.try_send(&transmit),
        }
    }

    /// Reads until nobody takes the datagrams any more. When they are not taken fast enough, the kernel's buffer
    /// fills up, and what it drops is counted ([`Self::kernel_drops`]).
    pub async fn read(self: Arc<Self>, clock: Clock, muted: Muted, out: Queue) {
        let mut memory = vec![0; RECEIVE_BUFFER * BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let (mut ear, mut pace) = (Ear::Deaf, Pace::default());
        let mut rest = Rest::new(matches!(self.io, Io::Kernel { .. }));
        loop {
            match self.read_batch(&mut memory, &mut metas, &mut ear).await {
                Ok(count) => {
                    let at = clock.now();
                    let datagrams =
                        metas.iter().take(count).map(|meta| meta.len.div_ceil(meta.stride.max(1)).max(1)).sum();
                    let filled = memory.chunks(RECEIVE_BUFFER).zip(&metas).take(count);
                    let heard: Vec<Datagram> =
                        filled.flat_map(|(buffer, meta)| self.split(buffer, meta, at, &muted)).collect();
                    if !heard.is_empty() && out.put(heard).await.is_err() {
                        return;
                    }
                    let rests = pace.rests(at.mono, datagrams);
                    if count == metas.len() {
                        // There is more already; but others have their turn, also where it is a flood that is thrown away.
                        tokio::task::yield_now().await;
                    } else if rests {
                        // Not even woken by what comes meanwhile.
                        ear = Ear::Deaf;
                        rest.wait().await;
                    }
                }
                // An ICMP message about an answer we sent; nothing is wrong with the socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::error!(%error, "cannot read from the gateways' socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn read_batch<'a>(
        &'a self,
        memory: &mut [u8],
        metas: &mut [RecvMeta],
        ear: &mut Ear<'a>,
    ) -> io::Result<usize> {
        let (socket, state) = match &self.io {
            Io::Kernel { socket, state } => (socket, state),
            Io::Simulated(socket) => {
                let mut buffers = parts(memory);
                return poll_fn(|context| socket.poll_recv(context, &mut buffers, metas)).await;
            }
        };
        let (places, mut buffers) = (metas.len(), parts(memory));
        let mut read = || state.recv(socket.into(), &mut buffers, metas);
        loop {
            let count = match ear {
                Ear::Open(ear) => {
                    ear.readable().await?.retain_ready();
                    quic::read_all(places, |read| ear.try_io(Interest::READABLE, |_| read()), &mut read)
                }
                Ear::Deaf => read(),
            };
            match count {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *ear = Ear::Open(watched(socket.as_fd())?);
                }
                other => return other,
            }
        }
    }

    fn split<'a>(
        &self,
        buffer: &'a [u8],
        meta: &RecvMeta,
        at: Now,
        muted: &'a Muted,
    ) -> impl Iterator<Item = Datagram> + use<'a> {
        let address = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
        let source = Source { socket: self.number, address, local: meta.dst_ip };
        let filled = buffer.get(..meta.len).unwrap_or(buffer);
        // An empty datagram has no chunks; it is dropped where all others are, and counted.
        let empty = filled.is_empty().then_some(filled);
        // Copied to their own size: a frame may be retained for long, and must not hold the whole buffer.
        let heard = move |bytes: &&[u8]| !muted.drops(bytes, address.ip(), at.mono);
        filled.chunks(meta.stride.max(1)).chain(empty).filter(heard).map(move |bytes| Datagram {
            source,
            bytes: Bytes::copy_from_slice(bytes),
            at,
        })
    }

    /// Datagrams that the kernel dropped for this socket since it was bound; `None` where the system does not tell.
    pub fn kernel_drops(&self) -> Option<u64> {
        let Io::Kernel { socket, .. } = &self.io else { return None };
        let inode = rustix::fs::fstat(socket).ok()?.st_ino.to_string();
        ["/proc/net/udp", "/proc/net/udp6"].iter().find_map(|table| {
            let table = std::fs::read_to_string(table).ok()?;
            drops_of(&table, &inode)
        })
    }
}

fn parts(memory: &mut [u8]) -> Vec<IoSliceMut<'_>> {
    memory.chunks_mut(RECEIVE_BUFFER).map(IoSliceMut::new).collect()
}

/// The last column of the socket's line; its inode is the tenth.
fn drops_of(table: &str, inode: &str) -> Option<u64> {
    let line = table.lines().skip(1).find(|line| line.split_whitespace().nth(9) == Some(inode))?;
    line.split_whitespace().next_back()?.parse().ok()
}

fn warn_if_clamped(socket: &Socket) {
    let (Ok(receive), Ok(send)) = (socket.recv_buffer_size(), socket.send_buffer_size()) else { return };
    if receive.min(send) < SOCKET_BUFFER {
        tracing::warn!(
            receive,
            send,
            wanted = SOCKET_BUFFER,
            "the kernel clamps the buffers of the gateways' socket; set net.core.rmem_max and net.core.wmem_max to {SOCKET_BUFFER}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn drops_are_found_by_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            7: 0100007F:06A4 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0000000000000000 42\n";
        assert_eq!(drops_of(table, "4711"), Some(42));
        assert_eq!(drops_of(table, "42"), None);
    }

    #[tokio::test]
    async fn long_datagrams_wait_in_the_kernel_when_their_bytes_fill_the_queue() {
        let (queue, mut batches) = Queue::new(2 * (MAX_DATAGRAM + OVERHEAD));
        let source = Source { socket: 0, address: "127.0.0.1:1".parse().unwrap(), local: None };
        let datagrams = |count: usize, len: usize| -> Vec<Datagram> {
            let datagram = || Datagram { source, bytes: vec![0; len].into(), at: Clock::start().now() };
            (0..count).map(|_| datagram()).collect()
        };
        queue.put(datagrams(1, MAX_DATAGRAM)).await.unwrap();
        queue.put(datagrams(1, MAX_DATAGRAM)).await.unwrap();
        let mut next = Box::pin(queue.put(datagrams(1, 100)));
        let waits = std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context).is_pending()));
        assert!(waits.await, "no byte is free");
        drop(batches.recv().await.unwrap());
        next.await.unwrap();
        assert_eq!(batches.len(), 2);
        drop((batches.recv().await.unwrap(), batches.recv().await.unwrap()));
        queue.put(datagrams(32, MAX_DATAGRAM)).await.unwrap();
        assert_eq!(batches.recv().await.unwrap().datagrams.len(), 32, "what was read together fits an empty queue");
    }

    #[tokio::test]
    async fn datagrams_of_any_size_come_in_and_answers_leave_from_the_address_that_was_asked() {
        let socket = GatewaySocket::bind(3, "[::]:0".parse().unwrap()).unwrap();
        let (sender, mut batches) = Queue::new(1 << 20);
        let muted = Muted::new(Arc::default(), Metrics::new("1").unwrap());
        let reader = tokio::spawn(socket.clone().read(Clock::start(), muted, sender));
        let gateway = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // A connected socket sees only answers from this very address.
        gateway.connect(("127.0.0.1", socket.local_addr().port())).await.unwrap();
        for len in [0, 1, 1_400, MAX_DATAGRAM] {
            let sent = vec![7; len];
            gateway.send(&sent).await.unwrap();
            let got = batches.recv().await.unwrap().datagrams.remove(0);
            assert_eq!(got.bytes, sent);
            assert_eq!(got.source.address, gateway.local_addr().unwrap());
            socket.send(got.source, b"answer").unwrap();
            let mut answer = [0; 16];
            assert_eq!(gateway.recv(&mut answer).await.unwrap(), 6);
        }
        assert_eq!(socket.kernel_drops(), Some(0));
        reader.abort();
    }
}
