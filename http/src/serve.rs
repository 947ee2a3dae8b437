//! Accepting connections and answering requests.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    activity::{Activity, Close, look_every},
    client::{ClientAddress, Proxies},
    entrance::{Counters, Entrance, Limits, Place},
};

/// What an HTTP/1 header may take.
const HEADER_BYTES: usize = 64 << 10;
/// Requests at the same time on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// What may come of a request's body, and of all on one connection, before it is read.
const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// An HTTP/2 connection is asked so often whether it is still there, and has so long to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// An idle connection is told that it ends, and ends after this at the latest.
const FAREWELL: Duration = Duration::from_secs(5);
/// After the system could not hand a connection over.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is served, to whom.
#[derive(Clone, Debug)]
pub struct Service {
    pub router: Router,
    pub proxies: Proxies,
    pub limits: Limits,
    pub counters: Counters,
}

/// Serves HTTP/1 and HTTP/2 until `stop` is cancelled, and then until the requests that are in work are answered. Each request
/// carries a [`ClientAddress`].
///
/// A connection is closed at once if there are too many ([`Limits`]), if its header does not come in time, if it asks for nothing for
/// long, and if it does not take what it has asked for. An HTTP/2 connection is closed when its peer does not answer pings. Bodies of
/// requests are the router's business.
pub async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) {
    let entrance = Entrance::new(service.limits, service.counters.clone());
    let door = Arc::new(Door { builder: builder(service.limits.header), service, stop: stop.clone() });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) if is_the_peers(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept HTTP connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Some(place) = entrance.enter(peer, door.service.proxies.trusts(peer)) {
            connections.spawn(door.clone().serve(stream, peer, place));
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Whoever connected is gone already.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn builder(header: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header).max_buf_size(HEADER_BYTES);
    let (stream, connection) = WINDOWS;
    let (every, patience) = KEEP_ALIVE;
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .keep_alive_interval(every)
        .keep_alive_timeout(patience);
    builder
}

/// The connection sends what it has: an answer of several pieces would wait for the client's delayed acknowledgement
/// otherwise, some 40 ms.
fn at_once(stream: &TcpStream) {
    // A connection that is gone already needs it no more.
    let _ = stream.set_nodelay(true);
}

struct Door {
    builder: Builder<TokioExecutor>,
    service: Service,
    stop: CancellationToken,
}

impl Door {
    /// Serves one connection to its end.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: IpAddr, _place: Place) {
        at_once(&stream);
        let (asked, activity) = (AtomicBool::new(false), Activity::new());
        let service = service_fn(|mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let client = self.service.proxies.client(peer, request.headers());
            request.extensions_mut().insert(ClientAddress(client));
            let (in_work, answer) = (activity.begin(), self.service.router.clone().oneshot(request));
            async move { Ok::<_, Infallible>(answer.await?.map(|body| in_work.answer(body))) }
        });
        let mut connection = std::pin::pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        // hyper's own time begins when it knows the version of HTTP, which takes the first bytes.
        let mut first = std::pin::pin!(tokio::time::sleep(self.service.limits.header));
        let mut look = std::pin::pin!(tokio::time::sleep(look_every(&self.service.limits)));
        let (mut waiting, mut stopping, mut is_idle) = (true, false, false);
        loop {
            tokio::select! {
                // A peer that breaks off, or speaks no HTTP, is its own affair.
                _ = connection.as_mut() => return,
                () = first.as_mut(), if waiting => {
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                    waiting = false;
                }
                () = look.as_mut() => match activity.look(&self.service.limits) {
                    Ok(again) => {
                        is_idle = false;
                        look.as_mut().reset(again);
                    }
                    // Told already; or it has room for nothing, also not for being told.
                    Err(_) if is_idle => return,
                    Err(Close::Unread) => return,
                    Err(Close::Idle) => {
                        is_idle = true;
                        connection.as_mut().graceful_shutdown();
                        look.as_mut().reset(Instant::now() + FAREWELL);
                    }
                },
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
