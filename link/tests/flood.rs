//! Strangers at the balancer's door, over loopback, from many of its addresses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use limpet_link::{Authority, BalancerLink, LinkServer, NameState, ServerConfig, WorkerLink, dial, outgoing};
use limpet_shared::{
    admin::Role,
    link::{ALPN_JOIN, Hello, VERSION, Welcome},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::time::timeout;

/// Long enough for any machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

struct Balancer {
    server: LinkServer,
    authority: Arc<Authority>,
    folder: TempDir,
}

impl Balancer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("cluster");
        let authority = Arc::new(Authority::open(&cluster).unwrap());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = ServerConfig { listen, name: "edge-1".into(), cluster, advertise: Vec::new() };
        let server = LinkServer::bind(config, authority.clone(), Arc::new(|_, _| NameState::Free)).unwrap();
        Self { server, authority, folder }
    }

    /// A worker of the cluster links up from another address than all others.
    async fn link(&self, name: &str) -> (WorkerLink, BalancerLink) {
        let identity = self.authority.identity(&self.folder.path().join(name), name, Role::Worker).unwrap();
        let hello = Hello { version: VERSION, name: name.into(), ..Hello::default() };
        let address = self.server.local_addr().to_string();
        let (_outgoing, queues) = outgoing();
        let both = async {
            tokio::join!(
                async { self.server.accept().await.unwrap().welcome(Welcome::default(), queues).await },
                dial(&address, &identity, hello)
            )
        };
        let (worker, balancer) = timeout(PATIENCE, both).await.unwrap();
        (worker.unwrap(), balancer.unwrap())
    }

    /// As a server that is about to join.
    fn stranger(&self) -> quinn::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
        let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
        quinn::ClientConfig::new(Arc::new(config))
    }
}

fn endpoint(address: [u8; 4]) -> quinn::Endpoint {
    quinn::Endpoint::client(SocketAddr::new(Ipv4Addr::from(address).into(), 0)).unwrap()
}

#[tokio::test]
async fn strangers_that_say_nothing_keep_no_worker_out() {
    let balancer = Balancer::start();
    let (config, to) = (balancer.stranger(), balancer.server.local_addr());
    let (mut endpoints, mut silent) = (Vec::new(), Vec::new());
    for address in 1..=16 {
        let endpoint = endpoint([127, 0, 9, address]);
        let dials = (0..6).map(|_| endpoint.connect_with(config.clone(), to, "edge-1").unwrap());
        for dial in dials.collect::<Vec<_>>() {
            silent.push(timeout(PATIENCE, dial).await.unwrap().unwrap());
        }
        endpoints.push(endpoint);
    }
    let _linked = balancer.link("w").await;
    let waiting = silent.iter().filter(|stranger| stranger.close_reason().is_none()).count();
    assert!(waiting > 64, "the worker had to wait until all but {waiting} strangers were shown out");
}

/// First packets of strangers, each of another connection.
async fn greetings(balancer: &Balancer, count: usize) -> Vec<Vec<u8>> {
    let ear = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, to) = (endpoint([127, 0, 0, 1]), ear.local_addr().unwrap());
    let mut greetings = Vec::new();
    let mut buffer = vec![0; 2_048];
    for _ in 0..count {
        let dial = endpoint.connect_with(balancer.stranger(), to, "edge-1").unwrap();
        let (len, _) = timeout(PATIENCE, ear.recv_from(&mut buffer)).await.unwrap().unwrap();
        greetings.push(buffer[..len].to_vec());
        drop(dial);
    }
    greetings
}

/// 10,000 handshakes a second from 500 addresses, as long as it is not dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    began: Instant,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(to: SocketAddr, greetings: Vec<Vec<u8>>) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let sockets: Vec<UdpSocket> = (0..500_u16)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let socket = UdpSocket::bind((Ipv4Addr::new(127, 9, high, low.max(1)), 0)).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            })
            .collect();
        let (told, counter, began) = (stop.clone(), sent.clone(), Instant::now());
        let thread = std::thread::spawn(move || {
            for round in 0.. {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                for part in 0..100 {
                    let number = round * 100 + part;
                    let greeting = &greetings[number % greetings.len()];
                    let done = sockets[number % sockets.len()].send_to(greeting, to);
                    counter.fetch_add(usize::from(done.is_ok()), Ordering::Relaxed);
                }
                let due = Duration::from_millis(10 * (round as u64 + 1));
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        });
        Self { stop, sent, began, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_keeps_no_worker_out() {
    let balancer = Balancer::start();
    let greetings = greetings(&balancer, 100).await;
    let flood = Flood::start(balancer.server.local_addr(), greetings);
    while flood.sent.load(Ordering::Relaxed) < 5_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for name in ["w1", "w2", "w3"] {
        let began = Instant::now();
        let _linked = balancer.link(name).await;
        let rate = flood.sent.load(Ordering::Relaxed) as f64 / flood.began.elapsed().as_secs_f64();
        println!("{name} linked after {:?} in a flood of {rate:.0} handshakes/s", began.elapsed());
    }
}

/// Real clients, each at a network (a /24) of its own, which answer the Retry and finish their handshakes as often as they are
/// let; then they say nothing for a second and begin anew.
struct Strangers {
    tasks: tokio::task::JoinSet<()>,
    /// Begun, and finished by both sides.
    begun: Arc<AtomicUsize>,
    finished: Arc<AtomicUsize>,
    since: Instant,
}

impl Strangers {
    /// So many addresses, each with so many handshakes at a time.
    fn start(balancer: &Balancer, addresses: u8, at_once: usize) -> Self {
        let (config, to) = (balancer.stranger(), balancer.server.local_addr());
        let (begun, finished) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for network in 1..=addresses {
            let endpoint = endpoint([127, 10, network, 1]);
            for _ in 0..at_once {
                let (endpoint, config) = (endpoint.clone(), config.clone());
                let (begun, finished) = (begun.clone(), finished.clone());
                tasks.spawn(async move {
                    loop {
                        let dial = endpoint.connect_with(config.clone(), to, "edge-1").unwrap();
                        begun.fetch_add(1, Ordering::Relaxed);
                        if let Ok(Ok(_silent)) = timeout(Duration::from_secs(1), dial).await {
                            finished.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                });
            }
        }
        Self { tasks, begun, finished, since: Instant::now() }
    }

    fn rates(&self) -> String {
        let rate = |of: &AtomicUsize| of.load(Ordering::Relaxed) as f64 / self.since.elapsed().as_secs_f64();
        format!("{:.0} begun and {:.0} finished a second", rate(&self.begun), rate(&self.finished))
    }
}

/// Of the first worker nothing is known, as of them; the next one's address is known by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_own_their_addresses_keep_no_worker_out() {
    for _ in 0..3 {
        let balancer = Balancer::start();
        let strangers = Strangers::start(&balancer, 250, 2);
        // Each address has been let in or not, and tries again.
        while strangers.begun.load(Ordering::Relaxed) < 1_500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for name in ["w1", "w2"] {
            let began = Instant::now();
            let _linked = balancer.link(name).await;
            println!("{name} linked after {:?} among strangers' handshakes, {}", began.elapsed(), strangers.rates());
        }
        drop(strangers.tasks);
    }
}
