//! The one place that knows how the crates of the roles are called.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use limpet_api::{Api, note_change};
use limpet_balancer::{AdminHandle, BalancerConfig};
use limpet_console::JoinLine;
use limpet_link::{Authority, Identity, admin_socket};
use limpet_shared::{
    UnixMicros,
    admin::{Reply, Request, Role},
    region::Region,
};
use limpet_store::{OpenError, Store, StoreError, moving::MovingError};
use limpet_worker::{Started, WorkerConfig};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::RoleError;
use crate::config::{Common, Edge, Processing, Secret};

/// Between two tries to reach a database.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// A part of this process that runs until it is stopped or fails.
pub struct Part(Option<JoinHandle<Result<(), RoleError>>>);

impl Part {
    /// How it ended. Asked again, it is `Ok`: an end is told once.
    async fn ended(&mut self) -> Result<(), RoleError> {
        std::future::poll_fn(|context| self.poll_ended(context)).await
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RoleError>> {
        let Some(task) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let ended = std::task::ready!(std::pin::Pin::new(task).poll(context));
        self.0 = None;
        Poll::Ready(ended.unwrap_or_else(|e| Err(RoleError::Part(format!("a part of limpet broke down: {e}")))))
    }
}

pub struct RunningBalancer {
    pub gwmp: SocketAddr,
    pub link: SocketAddr,
    pub admin: SocketAddr,
    /// A worker of the same process, once there is one.
    pub worker: Arc<OnceLock<Arc<Api>>>,
    handle: AdminHandle,
    part: Part,
}

impl RunningBalancer {
    pub async fn ended(&mut self) -> Result<(), RoleError> {
        self.part.ended().await
    }

    /// Makes a token for workers; with it comes until when it is good.
    pub async fn join_token(&self, life: Duration, uses: u32) -> Result<(String, UnixMicros), RoleError> {
        let asked = Request::JoinToken { role: Role::Worker, expires_in_secs: life.as_secs(), uses };
        match self.handle.ask(asked).await {
            Reply::JoinToken { token, expires_at, .. } => Ok((token, expires_at)),
            Reply::Error { message, .. } => Err(RoleError::Part(message)),
            _ => Err(RoleError::Part("the balancer made no join token".into())),
        }
    }
}

pub struct RunningWorker {
    pub name: String,
    pub http: Option<SocketAddr>,
    /// Answers operators.
    pub api: Arc<Api>,
    /// This start made the admin user.
    pub new_admin: bool,
    new_password: Option<Secret>,
    part: Part,
}

impl RunningWorker {
    pub async fn ended(&mut self) -> Result<(), RoleError> {
        self.part.ended().await
    }

    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RoleError>> {
        self.part.poll_ended(context)
    }

    /// The random password of the user `admin`, if this start made it.
    pub fn login(&self) -> Option<&str> {
        self.new_password.as_ref().map(|password| password.0.as_str())
    }
}

/// Where a worker stands in its cluster.
pub struct Place {
    pub identity: Identity,
    /// Where the identity is kept.
    pub folder: PathBuf,
    pub balancers: Vec<String>,
    /// Where gateways send to, if this process knows.
    pub gwmp: Option<String>,
    /// The balancer is in this process, and what it held died with it.
    pub with_balancer: bool,
    /// It is one of the parts of a `limpet up`.
    pub combined: bool,
}

/// Starts a balancer, and with it the operator's socket; returns when it listens.
pub async fn start_balancer(
    common: &Common,
    edge: Edge,
    authority: Arc<Authority>,
    stop: CancellationToken,
) -> Result<RunningBalancer, RoleError> {
    let config = BalancerConfig {
        name: common.name.clone(),
        data: common.data.clone(),
        gwmp: edge.gwmp,
        link: edge.link,
        admin: Some(edge.admin),
        trusted_proxies: common.trusted_proxies.clone(),
        advertise: edge.advertise,
        accept_unknown_gateways: edge.accept_unknown_gateways,
        ack: edge.ack,
        retained_bytes: edge.retained_bytes,
        gateway_rate: edge.gateway_rate,
        gateway_bytes: edge.gateway_bytes,
        unknown_rate: edge.unknown_rate,
    };
    let bound = limpet_balancer::BoundBalancer::bind(config, authority).await.map_err(failed)?;
    let (gwmp, link) = (bound.gwmp(), bound.link());
    let admin = bound.admin().unwrap_or(edge.admin);
    let handle = bound.admin_handle();
    let asked = handle.clone();
    let (worker, by) = (Arc::new(OnceLock::<Arc<Api>>::new()), at_the_socket(&common.name));
    let beside = worker.clone();
    let ask = move |request: Request| {
        let (handle, beside, by) = (handle.clone(), beside.clone(), by.clone());
        async move {
            match beside.get() {
                Some(api) if request.shuns_the_link() => api.answer_or_ask(request, &by).await,
                _ => {
                    let changes_things = request.changes_things();
                    let reply = handle.ask(request.signed(&by)).await;
                    if changes_things {
                        note_change(&reply, &by);
                    }
                    reply
                }
            }
        }
    };
    let socket = admin_socket::serve(&admin_socket::path(&common.data), ask).await.map_err(failed)?;
    let task = tokio::spawn(async move {
        bound.run(stop).await;
        drop(socket);
        Ok(())
    });
    Ok(RunningBalancer { gwmp, link, admin, worker, handle: asked, part: Part(Some(task)) })
}

/// Who asks at the operator's socket, for the log: whoever may use the socket is the server's own user.
pub fn at_the_socket(server: &str) -> String {
    format!("limpet ctl at {server}")
}

/// What a part reports, in its own words.
fn failed(error: impl std::fmt::Display) -> RoleError {
    RoleError::Part(error.to_string())
}

/// What a further worker of this network is started with.
pub fn join_line(common: &Common, processing: &Processing) -> Result<JoinLine, RoleError> {
    let folder = &common.data;
    JoinLine::new(&processing.store, folder).map_err(|source| RoleError::Data { folder: folder.clone(), source })
}

/// Opens the store that a URL names; the workers of one process share it. One that holds half a network is refused, one that is
/// away is waited for.
pub async fn open_store(url: &str) -> Result<Arc<dyn Store>, RoleError> {
    loop {
        match limpet_store::open(url).await {
            Ok(store) => match limpet_store::moving::unfinished(&*store).await {
                Ok(None) => return Ok(store),
                Ok(Some(unfinished)) => return Err(failed(MovingError::Unfinished { sha256: unfinished.sha256 })),
                Err(error @ StoreError::Unavailable(_)) => tracing::warn!(%error, "trying again"),
                Err(error) => return Err(failed(error)),
            },
            Err(error @ (OpenError::CqlUnreachable { .. } | OpenError::CqlAway { .. })) => {
                tracing::warn!(%error, "trying again");
            }
            Err(error) => return Err(failed(error)),
        }
        tokio::time::sleep(STORE_PAUSE).await;
    }
}

/// Starts a worker; returns when it listens and its network is set up.
pub async fn start_worker(
    common: &Common,
    processing: &Processing,
    store: Arc<dyn Store>,
    http: Option<SocketAddr>,
    place: Place,
    stop: CancellationToken,
) -> Result<RunningWorker, RoleError> {
    let (started, reported) = oneshot::channel();
    let config = WorkerConfig {
        identity: place.identity,
        identity_folder: place.folder,
        balancers: place.balancers,
        store,
        deliver: Arc::new(limpet_integration::Sender::new().map_err(failed)?),
        codecs: limpet_codec::Codecs::new(processing.codec),
        http,
        // Their names were checked with the rest of the configuration.
        regions: processing.regions.iter().filter_map(|name| Region::by_name(name)).collect(),
        weight: processing.weight,
        admin_password: common.admin_password.as_ref().map(|secret| secret.0.clone()),
        reply_delay: processing.reply_delay,
        accept_unknown_gateways: processing.accept_unknown_gateways,
        sweep_at_start: place.with_balancer,
        combined: place.combined,
        gwmp: place.gwmp,
        trusted_proxies: common.trusted_proxies.clone(),
        join: join_line(common, processing)?,
        started: Some(started),
    };
    let task = tokio::spawn(async move { limpet_worker::run(config, stop).await.map_err(failed) });
    let mut part = Part(Some(task));
    match reported.await {
        Ok(Started { name, http, api, new_admin, new_password }) => {
            Ok(RunningWorker { name, http, api, new_admin, new_password: new_password.map(Secret), part })
        }
        // It ended before it was up, and says why.
        Err(_) => Err(part.ended().await.err().unwrap_or_else(|| RoleError::Part("the worker was stopped".into()))),
    }
}
