//! An application's endpoint: takes events by HTTP POST and remembers them in order. It can be away.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::post,
};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{PATIENCE, free_address, listener::listen};

/// One event as it was received.
#[derive(Clone, Debug)]
pub struct Event {
    /// `up`, `join`, `ack`, `txack`, `log`.
    pub kind: String,
    /// `deduplicationId`.
    pub id: String,
    /// DevEUI, 16 hex digits.
    pub dev_eui: String,
    /// FCntUp of an `up`; 0 is left out on the wire, as protobuf's JSON has it.
    pub f_cnt: u64,
    pub body: Value,
    pub at: Instant,
}

#[derive(Debug)]
struct Seen {
    events: Mutex<Vec<Event>>,
    /// The status of every answer; anything but 200 records nothing.
    answer: AtomicU16,
}

/// The endpoint.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Webhook {
    /// Listens on a port of its own.
    pub async fn start() -> Self {
        let seen = Arc::new(Seen { events: Mutex::default(), answer: AtomicU16::new(200) });
        let mut webhook = Self { address: free_address(), seen, serving: None };
        webhook.listen().await;
        webhook
    }

    /// Where an HTTP integration sends its events.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Refuses connections, and closes those that are open, until [`Self::listen`].
    pub async fn close(&mut self) {
        if let Some((stop, serving)) = self.serving.take() {
            drop(stop);
            serving.await.unwrap();
        }
    }

    /// Listens again, on the same port.
    pub async fn listen(&mut self) {
        let listener = listen(self.address).await;
        let router = Router::new().route("/events", post(take)).with_state(self.seen.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router).with_graceful_shutdown(async move { drop(stopped.await) });
        self.serving = Some((stop, tokio::spawn(async move { serve.await.unwrap() })));
    }

    /// Answers with this status from now on; with anything but 200 it takes nothing.
    pub fn answer(&self, status: StatusCode) {
        self.seen.answer.store(status.as_u16(), Ordering::SeqCst);
    }

    /// All events, in the order they came, repeated deliveries included.
    pub fn events(&self) -> Vec<Event> {
        self.seen.lock().clone()
    }

    /// All events of one kind.
    pub fn of(&self, kind: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.kind == kind).collect()
    }

    /// Waits until that many different uplinks were received, as long as more keep coming, and returns all `up` events.
    pub async fn ups(&self, count: usize) -> Vec<Event> {
        let mut before = 0;
        let mut since = Instant::now();
        loop {
            let ups = self.of("up");
            let told = ids_by_uplink(&ups).len();
            if told >= count {
                return ups;
            }
            if told > before {
                (before, since) = (told, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{told} of {count} uplinks were told, and no more for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(
    State(seen): State<Arc<Seen>>,
    Query(query): Query<BTreeMap<String, String>>,
    Json(body): Json<Value>,
) -> StatusCode {
    let status = StatusCode::from_u16(seen.answer.load(Ordering::SeqCst)).unwrap();
    if status == StatusCode::OK {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        seen.lock().push(Event {
            kind: query.get("event").cloned().unwrap_or_default(),
            id: text(&body["deduplicationId"]),
            dev_eui: text(&body["deviceInfo"]["devEui"]),
            f_cnt: body["fCnt"].as_u64().unwrap_or(0),
            body,
            at: Instant::now(),
        });
    }
    status
}

/// The ids under which each uplink (DevEUI, FCntUp) was told. More than one id means that it was processed twice.
pub fn ids_by_uplink(ups: &[Event]) -> BTreeMap<(String, u64), BTreeSet<String>> {
    let mut ids: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for event in ups {
        ids.entry((event.dev_eui.clone(), event.f_cnt)).or_default().insert(event.id.clone());
    }
    ids
}

/// Fails if an uplink was told under two ids, or if first deliveries of a device came out of order.
pub fn assert_once_and_in_order(ups: &[Event]) {
    for (uplink, ids) in ids_by_uplink(ups) {
        assert_eq!(ids.len(), 1, "uplink {uplink:?} was told under several ids: {ids:?}");
    }
    let mut told = BTreeSet::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for event in ups.iter().filter(|event| told.insert(&event.id)) {
        if let Some(before) = last.insert(&event.dev_eui, event.f_cnt) {
            assert!(before < event.f_cnt, "device {}: {} was told after {before}", event.dev_eui, event.f_cnt);
        }
    }
}

/// The endpoint itself: a checker that sees nothing would find nothing wrong.
#[tokio::test]
async fn a_webhook_remembers_what_it_took_and_can_be_away() {
    let mut webhook = Webhook::start().await;
    let (client, url) = (reqwest::Client::new(), webhook.url());
    let send = async |f_cnt: u64, id: &str| {
        let body = serde_json::json!({"deduplicationId": id, "deviceInfo": {"devEui": "01"}, "fCnt": f_cnt});
        client.post(format!("{url}?event=up")).json(&body).send().await.map(|r| r.status())
    };
    assert_eq!(send(1, "a").await.unwrap(), StatusCode::OK);
    webhook.answer(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(send(2, "b").await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    webhook.answer(StatusCode::OK);
    assert_eq!(send(2, "b").await.unwrap(), StatusCode::OK);
    assert_eq!(send(1, "a").await.unwrap(), StatusCode::OK);
    assert_once_and_in_order(&webhook.ups(2).await);
    assert_eq!(webhook.events().len(), 3);
    webhook.close().await;
    assert!(client.get(webhook.url()).send().await.is_err());
    webhook.listen().await;
    assert!(client.get(webhook.url()).send().await.is_ok());
}
