//! Against real HTTP servers on the loopback interface.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse,
    routing::post,
};
use limpet_shared::{DevAddr, UnixMicros};
use limpet_worker_core::model::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// What an endpoint saw of one POST.
#[derive(Clone, Debug)]
struct Seen {
    peer: SocketAddr,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Endpoint {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: StatusCode,
    address: SocketAddr,
}

impl Endpoint {
    async fn answering(answer: StatusCode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self { seen: Arc::default(), answer, address: listener.local_addr().unwrap() };
        let app = Router::new().route("/hook", post(take)).with_state(endpoint.clone());
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        endpoint
    }
    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(
    State(endpoint): State<Endpoint>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    endpoint.seen.lock().unwrap().push(Seen { peer, uri: uri.to_string(), headers, body });
    (endpoint.answer, [("location", "/elsewhere")], "a body that nobody reads")
}

fn sender() -> Sender {
    Sender::with(Client::builder().no_proxy()).unwrap()
}

fn to(url: String) -> HttpIntegration {
    HttpIntegration { headers: Tags::new(), json: true, url }
}

fn event() -> Event {
    Event {
        id: uuid::Uuid::from_u128(7),
        at: UnixMicros(1_700_000_000_000_000),
        device: DeviceInfo { dev_eui: limpet_shared::Eui64(0x0102_0304_0506_0708), ..Default::default() },
        kind: EventKind::Join(JoinEvent { dev_addr: DevAddr(0x0100_0001), region: "eu868".into() }),
    }
}

#[tokio::test]
async fn an_event_arrives_as_json_with_its_name_in_the_query_and_the_integrations_headers() {
    let endpoint = Endpoint::answering(StatusCode::OK).await;
    let mut integration = to(format!("{}?token=a%20b", endpoint.url()));
    integration.headers.insert("Authorization".into(), "Bearer 1234".into());
    sender().deliver(&integration, &event(), None, Duration::from_secs(10)).await.unwrap();

    let seen = endpoint.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].uri, "/hook?token=a%20b&event=join");
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert_eq!(seen[0].headers["authorization"], "Bearer 1234");
    let body: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(body["deduplicationId"], "00000000-0000-0000-0000-000000000007");
    assert_eq!(body["deviceInfo"]["devEui"], "0102030405060708");
    assert_eq!(body["devAddr"], "01000001");
}

#[tokio::test]
async fn protobuf_is_sent_as_octets() {
    let endpoint = Endpoint::answering(StatusCode::NO_CONTENT).await;
    let integration = HttpIntegration { json: false, ..to(endpoint.url()) };
    sender().send(&integration, &event(), None).await.unwrap();
    let seen = endpoint.seen();
    assert_eq!(seen[0].headers["content-type"], "application/octet-stream");
    let decoded: chirpstack_api::integration::JoinEvent = prost::Message::decode(seen[0].body.clone()).unwrap();
    assert_eq!(decoded.dev_addr, "01000001");
}

#[tokio::test]
async fn every_url_must_take_the_event() {
    let (good, bad) = (Endpoint::answering(StatusCode::OK).await, Endpoint::answering(StatusCode::BAD_GATEWAY).await);
    let both = to(format!("{}, {}", good.url(), bad.url()));
    let error = sender().send(&both, &event(), None).await.unwrap_err();
    assert!(matches!(error, DeliveryError::NotNow { status: 502, .. }), "{error}");
    assert_eq!((good.seen().len(), bad.seen().len()), (1, 1));

    // An event is not given up for what one endpoint thinks of it while another is only away.
    let refusing = Endpoint::answering(StatusCode::BAD_REQUEST).await;
    for urls in [format!("{},{}", refusing.url(), bad.url()), format!("{},{}", bad.url(), refusing.url())] {
        assert!(!sender().send(&to(urls), &event(), None).await.unwrap_err().is_verdict());
    }

    let other = Endpoint::answering(StatusCode::ACCEPTED).await;
    sender().send(&to(format!("{},{}", good.url(), other.url())), &event(), None).await.unwrap();
    assert_eq!((good.seen().len(), other.seen().len()), (2, 1));
}

#[tokio::test]
async fn only_2xx_takes_an_event_and_a_refusal_is_told_apart_from_not_now() {
    for (answer, label, needs_operator) in [
        (StatusCode::BAD_REQUEST, "refused", true),
        (StatusCode::UNPROCESSABLE_ENTITY, "refused", true),
        (StatusCode::UNAUTHORIZED, "not_now", true),
        (StatusCode::FORBIDDEN, "not_now", true),
        (StatusCode::NOT_FOUND, "not_now", true),
        (StatusCode::PROXY_AUTHENTICATION_REQUIRED, "not_now", true),
        (StatusCode::REQUEST_TIMEOUT, "not_now", false),
        (StatusCode::TOO_MANY_REQUESTS, "not_now", false),
        (StatusCode::SERVICE_UNAVAILABLE, "not_now", false),
        (StatusCode::FOUND, "not_now", false),
        (StatusCode::PERMANENT_REDIRECT, "not_now", false),
    ] {
        let endpoint = Endpoint::answering(answer).await;
        let error = sender().send(&to(endpoint.url()), &event(), None).await.unwrap_err();
        assert_eq!((error.label(), error.needs_operator()), (label, needs_operator), "{answer}");
        assert_eq!(error.is_verdict(), label == "refused", "{answer}");
        assert_eq!(endpoint.seen().len(), 1, "{answer} was not followed");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_away_or_silent_is_named_without_its_secrets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://user:hunter2@{address}/hook?token=hunter3");
    let limit = Duration::from_millis(50);
    let silent = sender().deliver(&to(url.clone()), &event(), None, limit).await.unwrap_err();
    assert!(matches!(silent, DeliveryError::TimedOut(_)), "{silent}");

    drop(listener);
    let away = sender().send(&to(url), &event(), None).await.unwrap_err();
    assert_eq!(away.label(), "connection_refused");
    assert!(away.to_string().contains(&address.to_string()) && !away.to_string().contains("hunter"), "{away}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_and_no_panic() {
    for url in ["", " , ", "hook", "ftp://example.org/", "http://", "http://[::1"] {
        let error = sender().send(&to(url.into()), &event(), None).await.unwrap_err();
        assert_eq!(error.label(), "url", "{url:?}");
        assert_eq!(check(&to(url.into())).unwrap_err().label(), "url", "{url:?}");
    }
    let mut integration = to("http://127.0.0.1:1/".into());
    integration.headers.insert("X-Key".into(), "two\nlines".into());
    assert_eq!(sender().send(&integration, &event(), None).await.unwrap_err().label(), "header");
    assert_eq!(check(&integration).unwrap_err().label(), "header");
    assert!(check(&to("http://localhost/a".into())).is_ok());
    assert_eq!(check(&to(["http://localhost/a"; MAX_URLS + 1].join(","))).unwrap_err().label(), "url");
}

#[tokio::test]
async fn a_connection_carries_one_event_after_the_other() {
    let endpoint = Endpoint::answering(StatusCode::OK).await;
    let sender = sender();
    // A connection is free again once the answer's body has been read, which nobody waits for.
    for _ in 0..500 {
        sender.send(&to(endpoint.url()), &event(), None).await.unwrap();
        let mut peers: Vec<SocketAddr> = endpoint.seen().iter().map(|s| s.peer).collect();
        let events = peers.len();
        peers.sort();
        peers.dedup();
        if peers.len() < events {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("every event opened a connection of its own");
}

#[tokio::test]
async fn an_answer_that_never_ends_counts_by_its_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.read_exact(&mut [0; 16]).await.unwrap();
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nand so on").await.unwrap();
        std::future::pending::<()>().await;
    });
    sender().deliver(&to(url), &event(), None, Duration::from_secs(30)).await.unwrap();
    assert!(!server.is_finished());
}

#[tokio::test]
async fn what_keeps_an_endpoint_from_being_reached_is_told_apart() {
    let endpoint = Endpoint::answering(StatusCode::OK).await;
    let encrypted = endpoint.url().replace("http:", "https:");
    for (url, label) in [(encrypted, "tls"), ("http://nowhere.invalid/".into(), "dns")] {
        let error = sender().send(&to(url), &event(), None).await.unwrap_err();
        assert_eq!(error.label(), label, "{error}");
    }
}
