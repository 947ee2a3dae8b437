//! A webhook that keeps little of each event, so that it can take many.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
    routing::post,
};
use limpet_shared::Eui64;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::support::{free_address, listen};

/// (DevEUI, FCntUp).
pub type UplinkId = (Eui64, u32);

/// An `up` event as it came.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub uplink: UplinkId,
    pub at: Instant,
}

#[derive(Debug)]
struct Seen {
    ups: Mutex<Vec<Told>>,
    /// The status of every answer; anything but 200 records nothing. 0 for no answer at all.
    answer: AtomicU16,
    refused: AtomicU16,
    /// How long it takes to answer, in ms.
    slow: AtomicU64,
    /// It answers 400 to this one, whatever it answers to others.
    unwanted: Mutex<Option<UplinkId>>,
    /// When each uplink came for the first time, taken or not.
    offered: Mutex<BTreeMap<UplinkId, Instant>>,
}

/// The endpoint.
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Collector {
    pub async fn start() -> Self {
        let seen = Seen {
            ups: Mutex::default(),
            answer: AtomicU16::new(200),
            refused: AtomicU16::new(0),
            slow: AtomicU64::new(0),
            unwanted: Mutex::default(),
            offered: Mutex::default(),
        };
        let mut collector = Self { address: free_address(), seen: Arc::new(seen), serving: None };
        collector.listen().await;
        collector
    }

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

    /// Takes requests and never answers them, until it is told to answer again.
    pub fn hang(&self) {
        self.seen.answer.store(0, Ordering::SeqCst);
    }

    /// Takes so long for each answer from now on. Who does not wait for it has told it nothing.
    pub fn be_slow(&self, time: Duration) {
        self.seen.slow.store(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Never takes this one: answers 400 to it.
    pub fn refuse(&self, uplink: UplinkId) {
        *self.seen.unwanted.lock().unwrap() = Some(uplink);
    }

    /// When this one came for the first time, taken or not.
    pub fn offered(&self, uplink: UplinkId) -> Option<Instant> {
        self.seen.offered.lock().unwrap().get(&uplink).copied()
    }

    /// How many events were refused by such an answer, or by none.
    pub fn refused(&self) -> u16 {
        self.seen.refused.load(Ordering::SeqCst)
    }

    /// All `up` events in the order they came, repeated deliveries included.
    pub fn ups(&self) -> Vec<Told> {
        self.seen.ups.lock().unwrap().clone()
    }

    /// How many came.
    pub fn count(&self) -> usize {
        self.seen.ups.lock().unwrap().len()
    }
}

async fn take(State(seen): State<Arc<Seen>>, Query(query): Query<BTreeMap<String, String>>, body: Bytes) -> StatusCode {
    let up = query.get("event").is_some_and(|kind| kind == "up").then(|| told(&body));
    if let Some(up) = &up {
        seen.offered.lock().unwrap().entry(up.uplink).or_insert(up.at);
    }
    let unwanted = up.as_ref().is_some_and(|up| *seen.unwanted.lock().unwrap() == Some(up.uplink));
    let answer = if unwanted { 400 } else { seen.answer.load(Ordering::SeqCst) };
    if answer != 200 {
        seen.refused.fetch_add(1, Ordering::SeqCst);
    }
    let Ok(status) = StatusCode::from_u16(answer) else { return std::future::pending().await };
    tokio::time::sleep(Duration::from_millis(seen.slow.load(Ordering::SeqCst))).await;
    if let Some(up) = up.filter(|_| status == StatusCode::OK) {
        seen.ups.lock().unwrap().push(Told { at: Instant::now(), ..up });
    }
    status
}

/// An `up` event that comes now.
fn told(body: &[u8]) -> Told {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let dev_eui = body["deviceInfo"]["devEui"].as_str().unwrap().parse().unwrap();
    // 0 is left out, as protobuf's JSON has it.
    let f_cnt = body["fCnt"].as_u64().unwrap_or(0).try_into().unwrap();
    Told { id: body["deduplicationId"].as_str().unwrap().to_owned(), uplink: (dev_eui, f_cnt), at: Instant::now() }
}

/// The ids under which each uplink was told.
pub fn ids_by_uplink(ups: &[Told]) -> BTreeMap<UplinkId, BTreeSet<&str>> {
    let mut ids: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for told in ups {
        ids.entry(told.uplink).or_default().insert(&told.id);
    }
    ids
}
