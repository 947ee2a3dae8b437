//! A packet forwarder with a concentrator, as the server sees it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use limpet_shared::{
    Eui64,
    gwmp::{self, Rxpk, Stat, TxError, Txpk},
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use crate::lock;

mod concentrator;
mod config;
mod tasks;

use concentrator::Concentrator;
pub use config::{GatewayConfig, Judge, Refuse, TxAckFrom, TxAckStyle};

/// A running gateway; dropping it stops it and closes its sockets.
#[derive(Debug)]
pub struct VirtualGateway {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    config: GatewayConfig,
    sockets: watch::Sender<Sockets>,
    started: Instant,
    token: AtomicU16,
    waiting: Mutex<HashMap<u16, Waiting>>,
    counters: Mutex<Counters>,
    concentrator: Mutex<Concentrator>,
    downlinks: Mutex<Vec<mpsc::UnboundedSender<Downlink>>>,
    on_air: Mutex<Vec<mpsc::UnboundedSender<OnAir>>>,
}

/// Up and down, each connect()ed to the server: an answer from any other address is never seen.
#[derive(Clone, Debug)]
struct Sockets {
    server: SocketAddr,
    up: Arc<UdpSocket>,
    down: Arc<UdpSocket>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    told: oneshot::Sender<Duration>,
    datagram: Vec<u8>,
}

/// What a gateway did and saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// PUSH_DATA sent.
    pub pushed: u64,
    /// PUSH_ACKs for a token that was waiting.
    pub push_acked: u64,
    /// PUSH_ACKs that nothing waited for: a second one, or one for another token.
    pub push_acks_unasked: u64,
    /// PULL_DATA sent.
    pub pulled: u64,
    /// PULL_ACKs received.
    pub pull_acked: u64,
    /// PULL_RESPs that a forwarder takes for a downlink.
    pub downlinks: u64,
    /// PULL_RESPs that it drops without a word, and datagrams that are no GWMP.
    pub junk: u64,
    /// Downlinks refused, by the word of the TX_ACK.
    pub refused: std::collections::BTreeMap<String, u64>,
}

/// A PULL_RESP as it arrived.
#[derive(Clone, Debug)]
pub struct Downlink {
    pub gateway: Eui64,
    pub token: u16,
    pub txpk: Txpk,
    pub arrived: Instant,
    /// How far ahead of its `tmst` it came, us; negative if it is in the past. 0 without `tmst`.
    pub lead: i64,
    pub answer: Answer,
}

/// What the concentrator made of a downlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Queued,
    Refused(TxError),
}

/// A downlink while it is transmitted.
#[derive(Clone, Debug)]
pub struct OnAir {
    pub gateway: Eui64,
    /// The concentrator's counter at its start.
    pub tmst: u32,
    pub txpk: Txpk,
}

/// A PUSH_DATA that was sent.
#[derive(Debug)]
pub struct Push {
    pub token: u16,
    told: oneshot::Receiver<Duration>,
}

impl Push {
    /// Waits for the PUSH_ACK: how long after the PUSH_DATA it came, or `None` if it did not come in time, or the
    /// gateway stopped, or used the token again.
    pub async fn acked(self, within: Duration) -> Option<Duration> {
        tokio::time::timeout(within, self.told).await.ok()?.ok()
    }
}

impl VirtualGateway {
    /// Opens the sockets, sends a first PULL_DATA and goes on until it is dropped.
    pub async fn start(config: GatewayConfig) -> io::Result<Self> {
        let concentrator = Concentrator::new(config.refuse.clone(), config.queue, config.collisions);
        let (sockets, _) = watch::channel(Sockets::open(config.server).await?);
        let inner = Arc::new(Inner {
            sockets,
            started: Instant::now(),
            token: AtomicU16::new((config.eui.0 as u16).wrapping_mul(251)),
            waiting: Mutex::default(),
            counters: Mutex::default(),
            concentrator: Mutex::new(concentrator),
            downlinks: Mutex::default(),
            on_air: Mutex::default(),
            config,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(tasks::keep_alive(inner.clone()));
        tasks.spawn(tasks::read(inner.clone(), tasks::Side::Up));
        tasks.spawn(tasks::read(inner.clone(), tasks::Side::Down));
        if let Some(interval) = inner.config.status_interval {
            tasks.spawn(tasks::report(inner.clone(), interval));
        }
        Ok(Self { inner, _tasks: tasks })
    }

    pub fn eui(&self) -> Eui64 {
        self.inner.config.eui
    }

    /// What the concentrator's counter shows at this time.
    pub fn tmst(&self, at: Instant) -> u32 {
        self.inner.tmst(at)
    }

    /// Reports received packets as they are; see [`VirtualGateway::tmst`] for their `tmst`.
    pub async fn send_uplink(&self, packets: &[Rxpk]) -> io::Result<Push> {
        self.inner.push(&gwmp::push_data_json(packets, None)).await
    }

    /// Reports the gateway's status.
    pub async fn send_status(&self, stat: &Stat) -> io::Result<Push> {
        self.inner.push(&gwmp::push_data_json(&[], Some(stat))).await
    }

    /// Sends any JSON in a PUSH_DATA.
    pub async fn send_json(&self, json: &[u8]) -> io::Result<Push> {
        self.inner.push(json).await
    }

    /// Sends a PULL_DATA now, besides those that the keep-alive sends.
    pub async fn pull(&self) -> io::Result<()> {
        self.inner.pull().await
    }

    /// Goes on from new source ports, as behind a NAT that forgot the old ones. The server learns the new one for
    /// downlinks from the next PULL_DATA, as always.
    pub async fn rebind(&self) -> io::Result<()> {
        let server = self.inner.sockets.borrow().server;
        self.inner.sockets.send_replace(Sockets::open(server).await?);
        Ok(())
    }

    /// Sends to another server from now on, beginning with a PULL_DATA. What the one before still answers is heard.
    pub async fn move_to(&self, server: SocketAddr) -> io::Result<()> {
        self.inner.sockets.send_replace(Sockets::open(server).await?);
        self.inner.pull().await
    }

    /// Sends every PUSH_DATA again that has no PUSH_ACK yet and that somebody still waits for, as forwarders do that keep
    /// what was not acknowledged. Returns how many these were.
    pub async fn send_again(&self) -> io::Result<usize> {
        let unanswered = |waiting: &Waiting| (!waiting.told.is_closed()).then(|| waiting.datagram.clone());
        let datagrams: Vec<Vec<u8>> = lock(&self.inner.waiting).values().filter_map(unanswered).collect();
        let socket = self.inner.sockets.borrow().up.clone();
        for datagram in &datagrams {
            ignore_refused(socket.send(datagram).await)?;
        }
        Ok(datagrams.len())
    }

    /// The source ports now: of PUSH_DATA, of PULL_DATA.
    pub fn local_addrs(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let sockets = self.inner.sockets.borrow();
        Ok((sockets.up.local_addr()?, sockets.down.local_addr()?))
    }

    /// Changes which downlinks are refused on purpose.
    pub fn refuse(&self, refuse: Refuse) {
        lock(&self.inner.concentrator).set_refuse(refuse);
    }

    /// Every downlink that arrives from now on, taken or refused.
    pub fn downlinks(&self) -> mpsc::UnboundedReceiver<Downlink> {
        subscribe(&self.inner.downlinks)
    }

    /// Every downlink that is transmitted from now on, at the time it is.
    pub fn on_air(&self) -> mpsc::UnboundedReceiver<OnAir> {
        subscribe(&self.inner.on_air)
    }

    pub fn counters(&self) -> Counters {
        lock(&self.inner.counters).clone()
    }
}

fn subscribe<T>(to: &Mutex<Vec<mpsc::UnboundedSender<T>>>) -> mpsc::UnboundedReceiver<T> {
    let (send, receive) = mpsc::unbounded_channel();
    lock(to).push(send);
    receive
}

/// Tells all who listen, and forgets those who stopped.
fn publish<T: Clone>(to: &Mutex<Vec<mpsc::UnboundedSender<T>>>, what: &T) {
    lock(to).retain(|listener| listener.send(what.clone()).is_ok());
}

impl Sockets {
    async fn open(server: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let one = || async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(server).await?;
            io::Result::Ok(Arc::new(socket))
        };
        Ok(Self { server, up: one().await?, down: one().await? })
    }
}

impl Inner {
    fn tmst(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.started).as_micros() as u32;
        self.config.tmst_start.wrapping_add(since)
    }

    fn next_token(&self) -> u16 {
        self.token.fetch_add(1, Ordering::Relaxed)
    }

    async fn push(&self, json: &[u8]) -> io::Result<Push> {
        let token = self.next_token();
        let datagram = gwmp::push_data(self.config.version, token, self.config.eui, json);
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { since: Instant::now(), told: tell, datagram: datagram.clone() };
        lock(&self.waiting).insert(token, waiting);
        let socket = self.sockets.borrow().up.clone();
        lock(&self.counters).pushed += 1;
        ignore_refused(socket.send(&datagram).await)?;
        Ok(Push { token, told })
    }

    async fn pull(&self) -> io::Result<()> {
        let socket = self.sockets.borrow().down.clone();
        lock(&self.counters).pulled += 1;
        ignore_refused(socket.send(&gwmp::pull_data(self.config.version, self.next_token(), self.config.eui)).await)
    }
}

/// A server that is not there yet, or no more, is nothing that a gateway stops for.
fn ignore_refused(sent: io::Result<usize>) -> io::Result<()> {
    match sent {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}
