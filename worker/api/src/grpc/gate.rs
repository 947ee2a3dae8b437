//! What stands before every gRPC method: who calls, and how long the message is. A stranger's message is not read at all,
//! but where strangers have something to say: to log in.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tonic::Status;

use crate::Api;

/// Bytes of a message, and of a stranger's.
const MESSAGE: usize = 1 << 20;
const STRANGERS: usize = 4 << 10;
/// Before a gRPC message stand a flag and its length.
const PREFIX: usize = 5;
/// A message has this long to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// The methods that are called before the log-in.
const OPEN: [&str; 4] = [
    "/api.InternalService/Login",
    "/api.InternalService/Settings",
    "/api.InternalService/OpenIdConnectLogin",
    "/api.InternalService/OAuth2Login",
];

/// Passes on whole messages of good length, with the [`crate::auth::Caller`] among the extensions.
pub async fn gate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let mut limit = STRANGERS;
    if !OPEN.contains(&request.uri().path()) {
        match api.auth.caller(request.headers()).await {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(error) => return refusal(Status::from(error)),
        }
        limit = MESSAGE;
    }
    let (parts, body) = request.into_parts();
    match whole(body, limit).await {
        Ok(body) => next.run(Request::from_parts(parts, body)).await,
        Err(status) => refusal(status),
    }
}

/// The body, once all of it is there. Callers need not say before how long it is.
async fn whole(body: Body, limit: usize) -> Result<Body, Status> {
    let too_long = || Status::resource_exhausted(format!("the message is longer than {limit} bytes"));
    let most = limit + PREFIX;
    if body.size_hint().lower() > most as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(PATIENCE, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(Body::from(bytes)),
        // A caller that broke off does not hear this.
        Ok(Err(_)) => Err(too_long()),
        Err(_) => Err(Status::deadline_exceeded("the message did not come in time")),
    }
}

fn refusal(status: Status) -> Response {
    status.into_http::<Body>().into_response()
}
