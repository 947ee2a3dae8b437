//! Everything on one port: gRPC and the cluster's questions.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::post,
};
use limpet_shared::admin::{ErrorKind, Reply, Request};

use crate::{
    Api, ApiError,
    admin_worker::{is_for_worker, refusal},
    auth::{Access, Caller},
    grpc::{Grpc, not_served},
};

/// How long a balancer may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How long a question may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a question.
const QUESTION: usize = 64 * 1024;

impl Api {
    /// The routes: gRPC services, `POST /api/cluster/ctl`. What is at none of them is answered in the caller's
    /// own protocol, so this takes the router's fallback.
    pub fn router(self: &Arc<Self>) -> Router {
        let own = Router::new().route("/api/cluster/ctl", post(ctl)).with_state(self.clone());
        Grpc::new(self.clone()).routes().reset_fallback().merge(own).fallback(nothing_here)
    }

    /// Answers what a worker knows, and passes on the rest. For a door where who asks has been let in as an administrator;
    /// `by` is who that is, for the log. What would stop for everybody is asked about first ([`Request::second_look`]).
    pub async fn answer_or_ask(&self, request: Request, by: &str) -> Reply {
        if request.wants_a_second_look()
            && let Some(first) = request.second_look(&self.pass_on(Request::Servers).await)
        {
            return first;
        }
        if request.is_about_people() {
            return self.answer_about_people(request, by).await.unwrap_or_else(refusal);
        }
        let changes_things = request.changes_things();
        let reply = self.pass_on(request.signed(by)).await;
        if changes_things {
            note_change(&reply, by);
        }
        reply
    }

    async fn pass_on(&self, request: Request) -> Reply {
        if is_for_worker(&request) {
            return self.answer(request).await;
        }
        let late = || Reply::Error { kind: ErrorKind::Unavailable, message: "no balancer answered in time".into() };
        tokio::time::timeout(ASK_LIMIT, self.cluster.ask(request)).await.unwrap_or_else(|_| late())
    }
}

/// Says who has added, changed or removed a gateway or a device, or changed settings.
pub fn note_change(reply: &Reply, by: &str) {
    if let Reply::Done { message } = reply {
        tracing::info!(by, "{message}");
    }
}

/// Who asks, found out before anything of the question is read.
struct Asker(Caller);

impl FromRequestParts<Arc<Api>> for Asker {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Response> {
        api.auth.caller(&parts.headers).await.map(Self).map_err(|error| refuse(&error))
    }
}

/// A question in JSON, and its answer.
async fn ctl(State(api): State<Arc<Api>>, asker: Asker, body: Body) -> Response {
    let Asker(caller) = asker;
    let body = match tokio::time::timeout(PATIENCE, to_bytes(body, QUESTION)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            let what = format!("no question of at most {QUESTION} bytes: {error}");
            return answer(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::Invalid, what);
        }
        Err(_) => {
            let what = format!("no question within {} s", PATIENCE.as_secs());
            return answer(StatusCode::REQUEST_TIMEOUT, ErrorKind::Invalid, what);
        }
    };
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return answer(StatusCode::BAD_REQUEST, ErrorKind::Invalid, format!("no question: {error}")),
    };
    if let Err(error) = caller.network(access(&request)) {
        return refuse(&error);
    }
    let reply = api.answer_or_ask(request, &caller.name()).await;
    (status(&reply), Json(reply)).into_response()
}

fn access(request: &Request) -> Access {
    match request {
        Request::Servers
        | Request::Tokens
        | Request::Ring { .. }
        | Request::Gateways { .. }
        | Request::Devices { .. }
        | Request::Device { .. }
        | Request::Regions { .. }
        | Request::Integrations { .. }
        | Request::IntegrationEvents { .. }
        | Request::Users
        | Request::ApiKeys
        | Request::GatewaysHeard { .. } => Access::Read,
        _ => Access::Write,
    }
}

fn status(reply: &Reply) -> StatusCode {
    match reply {
        Reply::Error { kind, .. } => limpet_http::status(*kind),
        _ => StatusCode::OK,
    }
}

fn answer(status: StatusCode, kind: ErrorKind, message: String) -> Response {
    (status, Json(Reply::Error { kind, message })).into_response()
}

/// Who calls was not let in.
fn refuse(error: &ApiError) -> Response {
    let (status, kind) = match error {
        ApiError::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, ErrorKind::Invalid),
        ApiError::Denied(_) => (StatusCode::FORBIDDEN, ErrorKind::Invalid),
        ApiError::Unavailable(_) | ApiError::Unsure(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Internal),
    };
    answer(status, kind, error.to_string())
}

/// gRPC callers learn which method is not served; others get a plain 404.
async fn nothing_here(uri: Uri, headers: HeaderMap) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|t| t.starts_with("application/grpc")) {
        let (parts, ()) = not_served(uri.path().trim_start_matches('/')).into_http::<()>().into_parts();
        return (parts.status, parts.headers).into_response();
    }
    (StatusCode::NOT_FOUND, "Nothing is served here.\n").into_response()
}
