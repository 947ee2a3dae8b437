//! A balancer that listens: everything bound, nothing running yet.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use limpet_balancer_core::{AckAt, Balancer, Config};
use limpet_http::{Limits, Proxies, Service};
use limpet_link::{
    Authority, LinkServer, ServerConfig, ServerError, files,
    files::FileError,
    host::{self, Rule},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin_handle::AdminHandle,
    clock::Clock,
    config::BalancerConfig,
    driver::{Driver, Input, Parts},
    holds,
    http::{self, Pages},
    keep,
    metrics::Metrics,
    muted::Muted,
    registry::Registry,
    udp::{GatewaySocket, Queue},
    worker_links,
};

/// Bytes of datagrams that were read and not looked at yet: some thousand of an ordinary length, as much as the kernel keeps
/// besides. More wait there.
const DATAGRAM_BYTES: usize = 4 << 20;
const INPUTS: usize = 4_096;
/// For how long open admin requests may go on after the stop.
const HTTP_STOP: Duration = Duration::from_secs(1);

/// Why a balancer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    #[error("cannot listen on UDP {0} for gateways: {1}")]
    Gwmp(SocketAddr, io::Error),
    #[error("cannot listen on TCP {0} for admin HTTP: {1}")]
    Admin(SocketAddr, io::Error),
    #[error(transparent)]
    Link(#[from] ServerError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(
        "this balancer was removed from its cluster, and its certificate is revoked; to join again it needs another \
         --data and a --join TOKEN (made by `limpet ctl join-token --role balancer`)"
    )]
    Removed,
}

/// A balancer whose addresses are bound. [`BoundBalancer::run`] starts it.
pub struct BoundBalancer {
    parts: Parts,
    inputs: mpsc::Sender<Input>,
    datagrams: Queue,
    keepers: Vec<tokio::task::JoinHandle<()>>,
    http: Option<(TcpListener, SocketAddr)>,
    proxies: Proxies,
}

impl BoundBalancer {
    /// Binds all addresses, as a balancer of the cluster of `authority`. Needs a running tokio runtime. Workers may
    /// dial from now on; they are answered once it runs.
    pub async fn bind(config: BalancerConfig, authority: Arc<Authority>) -> Result<Self, BalancerError> {
        files::private_dir(&config.data)?;
        let clock = Clock::start();
        let socket = GatewaySocket::bind(0, config.gwmp).map_err(|e| BalancerError::Gwmp(config.gwmp, e))?;
        let http = match config.admin {
            Some(address) => Some(listen(address).await.map_err(|e| BalancerError::Admin(address, e))?),
            None => None,
        };
        let registry = Arc::new(Registry::default());
        let server = Arc::new(link_server(&config, authority, registry.clone())?);
        let kept_at = keep::path(&config.data);
        let cluster = keep::load(&kept_at);
        if cluster.iter().flat_map(|cluster| &cluster.revoked_keys).any(|revoked| revoked.key == server.key()) {
            return Err(BalancerError::Removed);
        }
        registry.revoke(cluster.iter().flat_map(|cluster| &cluster.revoked_keys));
        let admin = http.as_ref().map(|(_, address)| address.to_string());
        let mut core = Balancer::new(core_config(&config, clock, admin.unwrap_or_default())?, cluster.as_ref());
        let (holds, keeper) = holds::load(&config.data);
        for (gateway, address) in holds.all() {
            core.restore_hold(clock.now(), gateway, address);
        }
        let (kept, versions) = watch::channel(cluster.unwrap_or_default());
        let keepers = vec![tokio::spawn(keep::keep(kept_at, versions)), tokio::spawn(keeper.run())];
        let (input_sender, inputs) = mpsc::channel(INPUTS);
        let (datagram_sender, datagrams) = Queue::new(DATAGRAM_BYTES);
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"))?;
        let ready = Arc::new(AtomicBool::new(false));
        let (data, muted) = (config.data.clone(), Arc::default());
        let parts = Parts {
            core,
            clock,
            socket,
            server,
            metrics,
            registry,
            ready,
            kept,
            holds,
            muted,
            data,
            inputs,
            datagrams,
        };
        let proxies = config.trusted_proxies;
        Ok(Self { parts, inputs: input_sender, datagrams: datagram_sender, keepers, http, proxies })
    }

    /// Where gateways are heard.
    pub fn gwmp(&self) -> SocketAddr {
        self.parts.socket.local_addr()
    }

    /// Where workers link up.
    pub fn link(&self) -> SocketAddr {
        self.parts.server.local_addr()
    }

    /// Where the admin HTTP listens.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// Asks the balancer, once it runs.
    pub fn admin_handle(&self) -> AdminHandle {
        AdminHandle(self.inputs.clone())
    }

    /// The published routes, names and revocations.
    pub fn registry(&self) -> Arc<Registry> {
        self.parts.registry.clone()
    }

    /// Runs until `stop`, then answers what is held, for 5 s at most.
    pub async fn run(self, stop: CancellationToken) {
        let pages = Pages {
            admin: AdminHandle(self.inputs.clone()),
            metrics: self.parts.metrics.clone(),
            registry: self.parts.registry.clone(),
            ready: self.parts.ready.clone(),
            socket: self.parts.socket.clone(),
        };
        let stopped = CancellationToken::new();
        let service = Service {
            counters: pages.metrics.connections(),
            router: http::router(pages),
            proxies: self.proxies,
            limits: Limits::default(),
        };
        let http = self.http.map(|(listener, _)| tokio::spawn(limpet_http::serve(listener, service, stopped.clone())));
        let shut = Muted::new(self.parts.muted.clone(), self.parts.metrics.clone());
        let reader = tokio::spawn(self.parts.socket.clone().read(self.parts.clock, shut, self.datagrams));
        let server = self.parts.server.clone();
        let workers = tokio::spawn(worker_links::accept_all(server.clone(), self.inputs, stopped.clone()));
        Driver::new(self.parts).run(stop).await;
        reader.abort();
        stopped.cancel();
        let _ = workers.await;
        server.close("the balancer stops").await;
        if let Some(http) = http {
            let _ = tokio::time::timeout(HTTP_STOP, http).await;
        }
        // The driver's end was the end of what there is to keep.
        for keeper in self.keepers {
            let _ = keeper.await;
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

fn link_server(
    config: &BalancerConfig,
    authority: Arc<Authority>,
    registry: Arc<Registry>,
) -> Result<LinkServer, ServerError> {
    let server = ServerConfig {
        listen: config.link,
        name: config.name.clone(),
        cluster: config.data.join("cluster"),
        advertise: config.advertise.clone(),
    };
    LinkServer::bind(server, authority, Arc::new(move |name: &str, key: Option<&str>| registry.name(name, key)))
}

fn core_config(config: &BalancerConfig, clock: Clock, admin: String) -> Result<Config, BalancerError> {
    let mut ring_key = [0; 16];
    host::fill(&mut ring_key).map_err(BalancerError::Random)?;
    let defaults = Config::default();
    Ok(Config {
        name: config.name.clone(),
        instance: host::random().map_err(BalancerError::Random)?,
        software: env!("CARGO_PKG_VERSION").into(),
        admin,
        started_at: clock.now().unix,
        ring_key,
        ack: if host::keeps(Rule::AckWhenStored) { config.ack } else { AckAt::Received },
        keeps: host::keeps,
        accept_unknown_gateways: config.accept_unknown_gateways,
        retained_bytes: config.retained_bytes,
        gateway_rate: config.gateway_rate,
        gateway_bytes: config.gateway_bytes,
        unknown_rate: config.unknown_rate,
        ..defaults
    })
}
