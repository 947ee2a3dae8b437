//! How much is read of a body, and of whose.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    body::{Body, Bytes},
    http::{Request, Response, StatusCode, header},
};
use futures_util::stream;
use limpet_api::Api;
use tower::ServiceExt;

use crate::server::Server;

const PIECE: usize = 1024;

/// A body without end, and how many bytes were taken of it.
fn endless() -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let pieces = stream::repeat_with(move || {
        count.fetch_add(PIECE, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; PIECE]))
    });
    (Body::from_stream(pieces), taken)
}

/// The answer to a POST with such a body, and how much was read of it.
async fn post(api: &Arc<Api>, path: &str, content_type: &str, token: Option<&str>) -> (Response<Body>, usize) {
    let (body, taken) = endless();
    let mut request = Request::post(path).header(header::CONTENT_TYPE, content_type);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = api.router().oneshot(request.body(body).unwrap()).await.unwrap();
    (answer, taken.load(Ordering::SeqCst))
}

async fn grpc(api: &Arc<Api>, method: &str, token: Option<&str>) -> (i32, usize) {
    let (answer, taken) = post(api, method, "application/grpc", token).await;
    (answer.headers()["grpc-status"].to_str().unwrap().parse().unwrap(), taken)
}

#[tokio::test]
async fn of_a_stranger_nothing_is_read() {
    let api = Server::start().await.api;
    for token in [None, Some("a.b.c")] {
        assert_eq!(grpc(&api, "/api.DeviceService/Create", token).await, (16, 0), "UNAUTHENTICATED");
        assert_eq!(grpc(&api, "/api.TenantService/List", token).await, (16, 0));
        let (answer, taken) = post(&api, "/api/cluster/ctl", "application/json", token).await;
        assert_eq!((answer.status(), taken), (StatusCode::UNAUTHORIZED, 0));
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_when_it_is() {
    let server = Server::start().await;
    let token = Some(server.token());
    let (status, taken) = grpc(&server.api, "/api.DeviceService/Create", token).await;
    assert_eq!(status, 8, "RESOURCE_EXHAUSTED");
    assert!(taken <= (1 << 20) + 2 * PIECE, "{taken}");
    let (status, taken) = grpc(&server.api, "/api.InternalService/Login", None).await;
    assert!(status == 8 && taken <= (4 << 10) + 2 * PIECE, "{status}, {taken}");
    let (answer, taken) = post(&server.api, "/api/cluster/ctl", "application/json", token).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(taken <= (64 << 10) + 2 * PIECE, "{taken}");
}

/// One that says so is refused before it comes.
#[tokio::test]
async fn what_says_that_it_is_too_long_is_not_read() {
    let server = Server::start().await;
    let body = Body::from(vec![b' '; 2 << 20]);
    let request = Request::post("/api.DeviceService/Create").header(header::CONTENT_TYPE, "application/grpc");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {}", server.token())).body(body).unwrap();
    let answer = server.api.router().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "8");
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("1048576"));
}
