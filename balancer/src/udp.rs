//! The socket that gateways talk to: datagrams in batches, answers from the address that was asked.

use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use limpet_balancer_core::Source;
use limpet_link::host;
use limpet_shared::{Now, link::MAX_DATAGRAM};
use quinn::{
    AsyncUdpSocket,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use crate::{clock::Clock, muted::Muted};

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
    /// Its share of the queue.
    #[allow(dead_code, reason = "given back when it is dropped")]
    room: Option<OwnedSemaphorePermit>,
}

/// Where datagrams wait until they are looked at: so many and so many bytes of them, for one may be as long as a thousand
/// others.
pub struct Queue {
    sender: mpsc::Sender<Datagram>,
    room: Arc<Semaphore>,
    bytes: usize,
}

/// Nobody takes datagrams any more.
#[derive(Debug)]
pub struct Ended;

impl Queue {
    /// A queue of at most `count` datagrams and `bytes` bytes, at least [`MAX_DATAGRAM`].
    pub fn new(count: usize, bytes: usize) -> (Self, mpsc::Receiver<Datagram>) {
        let (sender, receiver) = mpsc::channel(count);
        let bytes = bytes.clamp(MAX_DATAGRAM, Semaphore::MAX_PERMITS);
        (Self { sender, room: Arc::new(Semaphore::new(bytes)), bytes }, receiver)
    }

    async fn put(&self, mut datagram: Datagram) -> Result<(), Ended> {
        let share = u32::try_from(datagram.bytes.len().min(self.bytes)).map_err(|_| Ended)?;
        datagram.room = Some(self.room.clone().acquire_many_owned(share).await.map_err(|_| Ended)?);
        self.sender.send(datagram).await.map_err(|_| Ended)
    }
}

/// A bound socket.
pub struct GatewaySocket {
    number: u16,
    io: Io,
    local: SocketAddr,
}

enum Io {
    Kernel { socket: UdpSocket, state: UdpSocketState },
    Simulated(Arc<dyn AsyncUdpSocket>),
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
        let socket = UdpSocket::from_std(socket.into())?;
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
            Io::Kernel { socket, state } => {
                socket.try_io(Interest::WRITABLE, || state.try_send(socket.into(), &transmit))
            }
            Io::Simulated(socket) => socket.try_send(&transmit),
        }
    }

    /// Reads until nobody takes the datagrams any more. When they are not taken fast enough, the kernel's buffer
    /// fills up, and what it drops is counted ([`Self::kernel_drops`]).
    pub async fn read(self: Arc<Self>, clock: Clock, muted: Muted, out: Queue) {
        let mut memory = vec![0; RECEIVE_BUFFER * BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            match self.read_batch(&mut memory, &mut metas).await {
                Ok(count) => {
                    let at = clock.now();
                    for (buffer, meta) in memory.chunks(RECEIVE_BUFFER).zip(&metas).take(count) {
                        for datagram in self.split(buffer, meta, at, &muted) {
                            if out.put(datagram).await.is_err() {
                                return;
                            }
                        }
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

    async fn read_batch(&self, memory: &mut [u8], metas: &mut [RecvMeta]) -> io::Result<usize> {
        let (socket, state) = match &self.io {
            Io::Kernel { socket, state } => (socket, state),
            Io::Simulated(socket) => {
                let mut buffers = parts(memory);
                return poll_fn(|context| socket.poll_recv(context, &mut buffers, metas)).await;
            }
        };
        loop {
            socket.readable().await?;
            let mut buffers = parts(memory);
            let read = socket.try_io(Interest::READABLE, || state.recv(socket.into(), &mut buffers, metas));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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
            room: None,
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
        let (queue, mut datagrams) = Queue::new(1_000, 2 * MAX_DATAGRAM);
        let source = Source { socket: 0, address: "127.0.0.1:1".parse().unwrap(), local: None };
        let datagram =
            |len: usize| Datagram { source, bytes: vec![0; len].into(), at: Clock::start().now(), room: None };
        queue.put(datagram(MAX_DATAGRAM)).await.unwrap();
        queue.put(datagram(MAX_DATAGRAM)).await.unwrap();
        let mut next = Box::pin(queue.put(datagram(100)));
        let waits = std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context).is_pending()));
        assert!(waits.await, "998 places and no bytes are free");
        drop(datagrams.recv().await.unwrap());
        next.await.unwrap();
        assert_eq!(datagrams.len(), 2);
        for _ in 0..500 {
            queue.put(datagram(100)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn datagrams_of_any_size_come_in_and_answers_leave_from_the_address_that_was_asked() {
        let socket = GatewaySocket::bind(3, "[::]:0".parse().unwrap()).unwrap();
        let (sender, mut datagrams) = Queue::new(16, 1 << 20);
        let muted = Muted::new(Arc::default(), Metrics::new("1").unwrap());
        let reader = tokio::spawn(socket.clone().read(Clock::start(), muted, sender));
        let gateway = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // A connected socket sees only answers from this very address.
        gateway.connect(("127.0.0.1", socket.local_addr().port())).await.unwrap();
        for len in [0, 1, 1_400, MAX_DATAGRAM] {
            let sent = vec![7; len];
            gateway.send(&sent).await.unwrap();
            let got = datagrams.recv().await.unwrap();
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
