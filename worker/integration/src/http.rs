//! Events by HTTP POST, as ChirpStack's HTTP integration sends them.

use std::time::Duration;

use async_trait::async_trait;
use limpet_codec::Object;
use limpet_worker_core::model::{Event, HttpIntegration};
use reqwest::{
    Client, Response, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use tokio::task::JoinSet;

use crate::{Deliver, DeliveryError, Obstacle, Rendered, render};

/// How long a connection may take to open: an endpoint that swallows SYNs must not hold a caller without a limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// URLs that one integration may have.
pub const MAX_URLS: usize = 8;
/// Idle connections kept per endpoint.
const IDLE_CONNECTIONS: usize = 32;
/// An answer's body is read so that its connection can be used again, but not further than this.
const ANSWER_LIMIT: usize = 64 * 1024;
/// And not for longer than this.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Posts events. Cheap to clone; clones share one pool of connections.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client,
}

impl Sender {
    /// With an empty pool. Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`, ...). Redirects are not
    /// followed: they would turn the POST into a GET, or carry the integration's headers to another host.
    pub fn new() -> Result<Self, DeliveryError> {
        Self::with(Client::builder())
    }

    fn with(builder: reqwest::ClientBuilder) -> Result<Self, DeliveryError> {
        let client = builder
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("limpet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| unreachable_at("the HTTP client".into(), &e))?;
        Ok(Self { client })
    }

    /// Posts the event to every URL of the integration at once. `Ok` when all of them answered 2xx; else a failure. Without a time limit of its own, except for opening connections.
    pub async fn send(
        &self,
        integration: &HttpIntegration,
        event: &Event,
        object: Option<&Object>,
    ) -> Result<(), DeliveryError> {
        let rendered = render(event, object, integration.json)?;
        let headers = headers(integration, rendered.content_type)?;
        let urls = endpoints(&integration.url, rendered.name)?;
        if let [url] = urls.as_slice() {
            return post(self.client.clone(), url.clone(), headers, rendered).await;
        }
        let mut posts = JoinSet::new();
        for url in urls {
            posts.spawn(post(self.client.clone(), url, headers.clone(), rendered.clone()));
        }
        let mut outcome: Result<(), DeliveryError> = Ok(());
        while let Some(done) = posts.join_next().await {
            let done = done.unwrap_or_else(|e| Err(unreachable_at("the endpoint".into(), &e)));
            outcome = match (outcome, done) {
                // What is away counts before what refused: the event is offered again.
                (Err(verdict), Err(away)) if verdict.is_verdict() => Err(away),
                (before, done) => before.and(done),
            };
        }
        outcome
    }
}

#[async_trait]
impl Deliver for Sender {
    async fn deliver(
        &self,
        integration: &HttpIntegration,
        event: &Event,
        object: Option<&Object>,
        limit: Duration,
    ) -> Result<(), DeliveryError> {
        let sent = tokio::time::timeout(limit, self.send(integration, event, object));
        sent.await.unwrap_or(Err(DeliveryError::TimedOut(limit)))
    }
}

async fn post(client: Client, url: Url, headers: HeaderMap, rendered: Rendered) -> Result<(), DeliveryError> {
    let origin = url.origin().ascii_serialization();
    let answer = client.post(url).headers(headers).body(rendered.body).send().await;
    let answer = answer.map_err(|e| unreachable_at(origin.clone(), &e.without_url()))?;
    let status = answer.status();
    tokio::spawn(tokio::time::timeout(ANSWER_TIME, read_away(answer)));
    match status.as_u16() {
        200..=299 => Ok(()),
        // These say how the endpoint is, or what it was given; the others what it thinks of this event.
        status @ (401 | 403 | 404 | 407 | 408 | 425 | 429) => Err(DeliveryError::NotNow { origin, status }),
        status @ 400..=499 => Err(DeliveryError::Refused { origin, status }),
        status => Err(DeliveryError::NotNow { origin, status }),
    }
}

/// The status has decided, so nobody waits for this; a body that breaks off or goes on for too long only costs the
/// connection.
async fn read_away(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > ANSWER_LIMIT {
            return;
        }
    }
}

/// Whether an integration can be used at all: its URLs and headers, before it is stored.
pub fn check(integration: &HttpIntegration) -> Result<(), DeliveryError> {
    let urls = endpoints(&integration.url, "up")?;
    headers(integration, "application/json")?;
    if urls.len() > MAX_URLS { Err(DeliveryError::Url(format!("more than {MAX_URLS}"))) } else { Ok(()) }
}

/// The URLs of an integration, each with `event=NAME` added to what query it has.
fn endpoints(urls: &str, event: &str) -> Result<Vec<Url>, DeliveryError> {
    let parse = |text: &str| -> Result<Url, DeliveryError> {
        let mut url = Url::parse(text).map_err(|e| DeliveryError::Url(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(DeliveryError::Url(format!("{} is neither http nor https", url.scheme())));
        }
        url.query_pairs_mut().append_pair("event", event);
        Ok(url)
    };
    let parsed: Vec<Url> =
        urls.split(',').map(str::trim).filter(|t| !t.is_empty()).map(parse).collect::<Result<_, _>>()?;
    if parsed.is_empty() { Err(DeliveryError::Url("there is none".into())) } else { Ok(parsed) }
}

fn headers(integration: &HttpIntegration, content_type: &'static str) -> Result<HeaderMap, DeliveryError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in &integration.headers {
        let bad = || DeliveryError::Header(name.clone());
        headers.insert(
            HeaderName::try_from(name.as_str()).map_err(|_| bad())?,
            HeaderValue::from_str(value).map_err(|_| bad())?,
        );
    }
    Ok(headers)
}

/// The innermost cause says what happened ("connection refused"); the outer ones only that something did.
fn unreachable_at(origin: String, error: &(dyn std::error::Error + 'static)) -> DeliveryError {
    let chain = || std::iter::successors(Some(error), |e| e.source());
    let reason = chain().last().unwrap_or(error).to_string();
    let refused = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    let obstacle = match () {
        () if chain().any(refused) => Obstacle::Refused,
        // The client has no types of its own for these.
        () if chain().any(|e| e.to_string().contains("dns error")) => Obstacle::Dns,
        () if OF_TLS.iter().any(|begin| reason.starts_with(begin)) => Obstacle::Tls,
        () => Obstacle::Other,
    };
    DeliveryError::Unreachable { origin, obstacle, reason }
}

/// How rustls begins what it has to say of a peer.
const OF_TLS: [&str; 5] = ["invalid peer certificate", "received", "peer", "no server certificate", "unexpected error"];

#[cfg(test)]
mod tests;
