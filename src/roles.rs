//! Starting the roles: from a configuration without mistakes to running parts, and to their end.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use limpet_link::{
    Authority, JoinError, Membership, Token, admin_socket, authority::AuthorityError, files::FileError,
    token::TokenError,
};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Balancer, Common, Edge, Worker},
    logging::Outlet,
};

mod up;
mod wiring;

pub use up::run as up;

/// A worker that must join tries so long to reach a balancer, with such pauses.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// Why a role could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error("another limpet is running with --data {}", .0.display())]
    DataInUse(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot use the folder {}: {source}", folder.display())]
    Data { folder: PathBuf, source: io::Error },
    /// Told before anything is made, all at once.
    #[error("{0}")]
    Ports(String),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("this worker knows no balancer: give --balancer HOST:PORT")]
    NoBalancer,
    /// What a role's own crate reports.
    #[error("{0}")]
    Part(String),
}

/// Runs a balancer until it is told to stop.
pub async fn balancer(config: Balancer) -> Result<(), RoleError> {
    let stop = stop_on_signals()?;
    let _lock = lock(&config.common.data)?;
    let edge = &config.edge;
    free(&[(Udp, "gwmp", edge.gwmp), (Udp, "link", edge.link), (Tcp, "admin", edge.admin)])?;
    let joining = authority(&config.common, &config.edge, config.join.as_ref());
    let Some(authority) = until(&stop, joining).await else { return Ok(()) };
    let authority = Arc::new(authority?);
    let mut running = wiring::start_balancer(&config.common, config.edge, authority, stop.clone()).await?;
    tracing::info!(gwmp = %running.gwmp, link = %running.link, admin = %running.admin, "the balancer is running");
    tracing::info!("add workers with a token from: limpet ctl --data {} join-token", config.common.data.display());
    running.ended().await
}

/// Runs a worker until it is told to stop.
pub async fn worker(mut config: Worker) -> Result<(), RoleError> {
    let stop = stop_on_signals()?;
    let _lock = lock(&config.common.data)?;
    free(&[(Tcp, "http", config.processing.http)])?;
    if let Some(token) = &mut config.join {
        // The operator may know better than the token which way leads to the balancers.
        token.addresses.splice(0..0, config.balancers.iter().cloned());
    }
    let common = &config.common;
    let Some(joined) = until(&stop, join(common, config.join.as_ref())).await else { return Ok(()) };
    let joined = joined?;
    let balancers = if config.balancers.is_empty() { joined.balancers } else { config.balancers };
    if balancers.is_empty() {
        return Err(RoleError::NoBalancer);
    }
    let place = wiring::Place {
        identity: joined.identity,
        folder: limpet_link::identity::folder(&common.data, limpet_shared::admin::Role::Worker),
        balancers,
        with_balancer: false,
        combined: false,
        gwmp: None,
    };
    let processing = &config.processing;
    // Both wait for a store that does not answer.
    let Some(store) = until(&stop, wiring::open_store(&processing.store)).await else { return Ok(()) };
    let store = store?;
    let starting = wiring::start_worker(common, processing, store, Some(processing.http), place, stop.clone());
    let Some(running) = until(&stop, starting).await else { return Ok(()) };
    let mut running = running?;
    let api = running.api.clone();
    let by = wiring::at_the_socket(&running.name);
    let _socket = admin_socket::serve(&admin_socket::path(&common.data), move |request| {
        let (api, by) = (api.clone(), by.clone());
        async move { api.answer_or_ask(request, &by).await }
    })
    .await
    .map_err(|e| RoleError::Part(e.to_string()))?;
    tracing::info!(name = running.name, http = running.http.map(tracing::field::display), "the worker is running");
    if let Some(login) = running.login() {
        let text = format!("log in as admin with the password {login} (it is not shown again)");
        match common.log_json {
            true => say(&format!("{}\n", serde_json::json!({ "message": text }))),
            false => say(&format!("{text}\n")),
        }
    }
    running.ended().await
}

/// Lets this process have as many files open as it may: each connection is one, and what shells and containers give
/// without being asked, often 1024, is less than HTTP alone may take.
pub fn open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "cannot open as many files as the system allows");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Udp,
    Tcp,
}
use Protocol::{Tcp, Udp};

/// Whether this process may listen where its flags say. Asked first: no cluster is founded, and no token used, by a process
/// that cannot start.
fn free(wanted: &[(Protocol, &str, SocketAddr)]) -> Result<(), RoleError> {
    // Held until all are asked for: two flags may name the same address.
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    let refused = wanted.iter().filter_map(|&(protocol, flag, address)| {
        let (protocol, bound) = match protocol {
            Udp => ("UDP", std::net::UdpSocket::bind(address).map(|socket| udp.push(socket))),
            Tcp => ("TCP", std::net::TcpListener::bind(address).map(|socket| tcp.push(socket))),
        };
        let why = bound.err()?;
        Some(format!("cannot listen on {protocol} {address}: {why}; choose another --{flag}"))
    });
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() { Ok(()) } else { Err(RoleError::Ports(refused.join("\n  "))) }
}

/// The cluster of a balancer: the one it belongs to, the one of the token, or a new one.
async fn authority(common: &Common, edge: &Edge, token: Option<&Token>) -> Result<Authority, RoleError> {
    let link = match edge.advertise.is_empty() {
        true => vec![limpet_link::endpoint::reachable(edge.link).to_string()],
        false => edge.advertise.clone(),
    };
    Ok(limpet_link::ensure_balancer(&common.data, token, &common.name, link).await?)
}

/// Joins the cluster; a balancer that is about to start gets some time for it.
async fn join(common: &Common, token: Option<&Token>) -> Result<Membership, RoleError> {
    let give_up = tokio::time::Instant::now() + JOIN_PATIENCE;
    loop {
        match limpet_link::ensure_worker(&common.data, token, &common.name, common.name_chosen).await {
            Err(error @ JoinError::Dial(_)) if tokio::time::Instant::now() < give_up => {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

/// What comes of `work`, unless it is stopped before.
async fn until<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stop.cancelled() => None,
    }
}

/// Cancelled by SIGTERM or SIGINT.
fn stop_on_signals() -> Result<CancellationToken, RoleError> {
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(RoleError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(RoleError::Signals)?;
    let told = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        told.cancel();
        // Whoever asks again does not want to wait.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::warn!("stopping at once, as it was told twice");
        crate::logging::finish();
        std::process::exit(1);
    });
    Ok(stop)
}

/// Takes the data folder for this process, which keeps it until it ends, however that comes.
fn lock(data: &Path) -> Result<File, RoleError> {
    limpet_link::files::private_dir(data)?;
    let failed = |source| RoleError::Data { folder: data.to_owned(), source };
    let file =
        File::options().create(true).truncate(false).write(true).open(data.join("limpet.lock")).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RoleError::DataInUse(data.to_owned())),
        Err(e) => Err(failed(e.into())),
    }
}

/// Tells the operator something on standard output.
fn say(text: &str) {
    Outlet::stdout().write(text.as_bytes());
}

/// The address under which a process on this machine reaches what listens on `listen`.
fn nearby(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_a_data_folder_and_the_next_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        let first = lock(&data).unwrap();
        let refused = lock(&data).unwrap_err().to_string();
        assert!(refused.contains("another limpet is running with --data"), "{refused}");
        drop(first);
        lock(&data).unwrap();
    }

    #[test]
    fn ports_that_are_taken_are_told_together_each_with_its_flag() {
        let (udp, tcp) =
            (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let (gwmp, admin) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let any = "127.0.0.1:0".parse().unwrap();
        let told = free(&[(Udp, "gwmp", gwmp), (Udp, "link", any), (Tcp, "admin", admin)]).unwrap_err().to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with(&format!("cannot listen on UDP {gwmp}: ")), "{told}");
        assert!(
            lines[0].ends_with("; choose another --gwmp") && lines[1].ends_with("; choose another --admin"),
            "{told}"
        );
        assert_eq!(lines.len(), 2);
        drop((udp, tcp));
        let told = free(&[(Tcp, "admin", admin), (Tcp, "http", admin), (Udp, "gwmp", admin)]).unwrap_err().to_string();
        assert!(told.starts_with(&format!("cannot listen on TCP {admin}: ")) && told.ends_with("--http"), "{told}");
    }

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        assert_eq!(nearby("0.0.0.0:1701".parse().unwrap()), "127.0.0.1:1701".parse().unwrap());
        assert_eq!(nearby("[::]:1701".parse().unwrap()), "[::1]:1701".parse().unwrap());
        assert_eq!(nearby("10.0.0.1:1701".parse().unwrap()), "10.0.0.1:1701".parse().unwrap());
    }
}
