//! Asking over the API of a worker: `POST /api/cluster/ctl` with an API key.

use std::time::Duration;

use limpet_shared::admin::{Reply, Request};

/// Connecting, asking and answering together.
const TIME: Duration = Duration::from_secs(30);

/// Why the server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("--server must be an http:// or https:// address, not {0:?}")]
    Url(String),
    #[error("--token must be an API key: visible characters without spaces")]
    Token,
    #[error("no answer from {url}: {reason}")]
    NoAnswer { url: String, reason: String },
    #[error("{0} does not accept this API key; --token needs one that may administrate the cluster")]
    Denied(String),
    #[error("{url} answers {status}, not as Limpet's API does{hint}")]
    NotLimpet { url: String, status: u16, hint: &'static str },
}

/// Asks the API at `server`.
pub async fn ask(server: &str, token: &str, request: &Request) -> Result<Reply, RemoteError> {
    let base = server.trim_end_matches('/');
    if !(base.starts_with("http://") || base.starts_with("https://")) {
        return Err(RemoteError::Url(server.to_owned()));
    }
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(RemoteError::Token);
    }
    let no_answer = |e: reqwest::Error| RemoteError::NoAnswer { url: base.to_owned(), reason: cause(&e) };
    let client = reqwest::Client::builder().timeout(TIME).build().map_err(no_answer)?;
    let asked = client.post(format!("{base}/api/cluster/ctl")).bearer_auth(token).json(request);
    let response = asked.send().await.map_err(no_answer)?;
    let status = response.status().as_u16();
    let body = response.bytes().await.map_err(no_answer)?;
    if matches!(status, 401 | 403) {
        return Err(RemoteError::Denied(base.to_owned()));
    }
    // An error of the cluster is an answer too, whatever its HTTP status.
    serde_json::from_slice(&body).map_err(|_| RemoteError::NotLimpet {
        url: base.to_owned(),
        status,
        hint: if status == 404 { "; is it a worker's --http address?" } else { "" },
    })
}

/// The innermost error: the outer ones say only that sending failed.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
