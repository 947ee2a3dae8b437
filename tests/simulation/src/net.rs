//! The network between the servers and to the gateways: datagrams that are late, lost, doubled or overtaken, and ways that are cut.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// How bad the network is. Shares are in thousandths of the datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A datagram takes so long at least, and up to twice that.
    pub delay: Duration,
    pub lost: u32,
    pub doubled: u32,
    /// Takes ten times as long, so that others overtake it.
    pub late: u32,
}

impl Weather {
    pub const FAIR: Self = Self { delay: Duration::from_millis(1), lost: 0, doubled: 0, late: 0 };
}

/// All sockets, and what is on its way between them.
#[derive(Clone, Debug)]
pub struct Network(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    now: Duration,
    chance: SmallRng,
    weather: Weather,
    /// From the one to the other nothing passes.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    sockets: BTreeMap<SocketAddr, Weak<Mailbox>>,
    /// By when they arrive, and the order in which they left.
    flying: BTreeMap<(Duration, u64), Flying>,
    sent: u64,
    wire: Vec<Sent>,
    ports: u16,
}

/// A datagram that left, arrive it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    pub at: Duration,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub length: usize,
    /// A hash of its bytes.
    pub content: u64,
}

#[derive(Clone, Debug)]
struct Flying {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Mailbox {
    come: Mutex<VecDeque<(SocketAddr, Vec<u8>)>>,
    waker: Mutex<Option<Waker>>,
}

/// What a socket's queue holds before more is dropped, as the kernel does.
const QUEUE: usize = 4096;

impl Network {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: Duration::ZERO,
            chance: SmallRng::seed_from_u64(seed),
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
            sockets: BTreeMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
            wire: Vec::new(),
            ports: 40_000,
        })))
    }

    /// All that was sent by anybody so far, in this order.
    pub fn wire(&self) -> Vec<Sent> {
        self.0.lock().wire.clone()
    }

    /// Since the simulation began.
    pub fn now(&self) -> Duration {
        self.0.lock().now
    }

    pub fn set_weather(&self, weather: Weather) {
        self.0.lock().weather = weather;
    }

    /// Cuts the way from one machine to another, or mends it.
    pub fn cut(&self, from: IpAddr, to: IpAddr, cut: bool) {
        let mut inner = self.0.lock();
        if cut {
            inner.cut.insert((from, to));
        } else {
            inner.cut.remove(&(from, to));
        }
    }

    /// Lets time pass, and delivers what arrives. Returns who has waited for it.
    pub fn advance(&self, to: Duration) -> BTreeSet<IpAddr> {
        let (mut arrived, mut woken) = (Vec::new(), BTreeSet::new());
        {
            let mut inner = self.0.lock();
            inner.now = to;
            while let Some(first) = inner.flying.first_entry().filter(|first| first.key().0 <= to) {
                let packet = first.remove();
                if let Some(mailbox) = inner.sockets.get(&packet.to).and_then(Weak::upgrade) {
                    arrived.push((mailbox, packet));
                }
            }
        }
        for (mailbox, packet) in arrived {
            let mut come = mailbox.come.lock();
            if come.len() < QUEUE {
                come.push_back((packet.from, packet.bytes));
            }
            drop(come);
            if let Some(waker) = mailbox.waker.lock().take() {
                waker.wake();
                woken.insert(packet.to.ip());
            }
        }
        woken
    }

    /// A socket; port 0 takes a free one.
    pub fn bind(&self, mut address: SocketAddr) -> io::Result<SimSocket> {
        let mut inner = self.0.lock();
        while address.port() == 0 {
            inner.ports = inner.ports.wrapping_add(1).max(40_000);
            let free = SocketAddr::new(address.ip(), inner.ports);
            if inner.sockets.get(&free).is_none_or(|socket| socket.strong_count() == 0) {
                address = free;
            }
        }
        if inner.sockets.get(&address).is_some_and(|socket| socket.strong_count() > 0) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let mailbox = Arc::new(Mailbox::default());
        inner.sockets.insert(address, Arc::downgrade(&mailbox));
        Ok(SimSocket { network: self.clone(), local: address, mailbox })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut inner = self.0.lock();
        let mut content = DefaultHasher::new();
        bytes.hash(&mut content);
        let sent = Sent { at: inner.now, from, to, length: bytes.len(), content: content.finish() };
        inner.wire.push(sent);
        let weather = inner.weather;
        let happens = |chance: &mut SmallRng, share| chance.random_range(0..1000) < share;
        if inner.cut.contains(&(from.ip(), to.ip())) || happens(&mut inner.chance, weather.lost) {
            return;
        }
        let copies = if happens(&mut inner.chance, weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let mut takes = weather.delay.mul_f64(1.0 + inner.chance.random::<f64>());
            if happens(&mut inner.chance, weather.late) {
                takes *= 10;
            }
            inner.sent += 1;
            let at = (inner.now + takes, inner.sent);
            inner.flying.insert(at, Flying { from, to, bytes: bytes.to_vec() });
        }
    }
}

/// A UDP socket on the simulated network.
#[derive(Debug)]
pub struct SimSocket {
    network: Network,
    local: SocketAddr,
    mailbox: Arc<Mailbox>,
}

impl SimSocket {
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    pub fn send_to(&self, to: SocketAddr, bytes: &[u8]) {
        self.network.send(self.local, to, bytes);
    }

    /// The next datagram that has come.
    pub fn take(&self) -> Option<(SocketAddr, Vec<u8>)> {
        self.mailbox.come.lock().pop_front()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        for part in transmit.contents.chunks(transmit.segment_size.unwrap_or(usize::MAX).max(1)) {
            self.send_to(transmit.destination, part);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some((from, bytes)) = self.take() else { break };
            let len = bytes.len().min(buffer.len());
            buffer.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
            *meta = RecvMeta { addr: from, len, stride: len, ..RecvMeta::default() };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        *self.mailbox.waker.lock() = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
