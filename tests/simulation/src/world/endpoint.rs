//! The endpoints that events are told to, one for each application.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use limpet_codec::Object;
use limpet_integration::{Deliver, DeliveryError};
use limpet_worker::{DEFAULT_REPLY_DELAY, Started};
use limpet_worker_core::model::{Event, EventKind, HttpIntegration, QueueItem};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::provision::{application_id, queue_item};
use crate::{
    field::dev_eui,
    net::Network,
    plan::{APPLICATIONS, Plan},
    seen::{Serial, Told, Trace, What, reply},
};

/// How long an application thinks before it answers an event.
const THINKS: Duration = Duration::from_millis(60);
/// How often a client of a worker's API looks whether there is something to enqueue.
const LOOKS: Duration = Duration::from_millis(5);
/// Of all devices.
const DEVICES: usize = 16;

#[derive(Debug, Default)]
struct Endpoint {
    away: AtomicBool,
    /// Takes events, and its answers get lost.
    mute: AtomicBool,
    /// How long it takes for an event.
    takes: Duration,
}

/// What an application is about to enqueue, and since when.
#[derive(Debug)]
struct Thought {
    since: Duration,
    item: QueueItem,
    what: Answers,
}

/// What it is.
#[derive(Clone, Copy, Debug)]
enum Answers {
    Uplink(Serial),
    /// With an item of the plan.
    Item(usize),
}

#[derive(Debug)]
pub struct Endpoints {
    network: Network,
    trace: Trace,
    all: [Endpoint; APPLICATIONS],
    /// Devices whose events are answered.
    answers: BTreeSet<usize>,
    told: Mutex<Vec<Told>>,
    ups: Mutex<BTreeSet<Serial>>,
    /// Events that are not answered yet.
    thinking: Mutex<Vec<Thought>>,
    /// Uplinks whose answers the API has taken in time.
    replied: Mutex<BTreeSet<Serial>>,
    /// Items that wait for the next event of their device, and those that the API has taken.
    handed: Mutex<BTreeMap<usize, Vec<usize>>>,
    enqueued: Mutex<BTreeSet<usize>>,
}

impl Endpoints {
    pub fn new(network: Network, trace: Trace, plan: &Plan) -> Self {
        let all = plan.endpoints_take.map(|takes| Endpoint { takes, ..Endpoint::default() });
        let (told, ups, thinking, replied, handed, enqueued) = Default::default();
        Self { network, trace, all, answers: plan.replied_to(), told, ups, thinking, replied, handed, enqueued }
    }

    /// An item that answers the device's next event.
    pub fn hand(&self, number: usize, device: usize) {
        self.handed.lock().entry(device).or_default().push(number);
    }

    /// Those of these that the API has taken.
    pub fn enqueued(&self) -> BTreeSet<usize> {
        self.enqueued.lock().clone()
    }

    pub fn replied(&self) -> BTreeSet<Serial> {
        self.replied.lock().clone()
    }

    /// A client of the API of the worker that is starting: it enqueues what is due, each by whichever client comes first.
    pub async fn client(self: Arc<Self>, started: oneshot::Receiver<Started>) {
        let Ok(Started { api, .. }) = started.await else { return };
        loop {
            tokio::time::sleep(LOOKS).await;
            while let Some(Thought { since, item, what }) = self.due() {
                let began = self.network.now();
                let is_taken = api.enqueue(item).await.is_ok();
                match what {
                    Answers::Item(number) if is_taken => drop(self.enqueued.lock().insert(number)),
                    Answers::Uplink(serial) if is_taken && began < since + DEFAULT_REPLY_DELAY => {
                        self.replied.lock().insert(serial);
                    }
                    _ => {}
                }
            }
        }
    }

    fn due(&self) -> Option<Thought> {
        let now = self.network.now();
        let mut thinking = self.thinking.lock();
        let at = thinking.iter().position(|thought| thought.since + THINKS <= now)?;
        Some(thinking.remove(at))
    }

    /// What the device's application says to an event that it was told at this time.
    fn think(&self, since: Duration, device: usize, serial: Serial) {
        if self.answers.contains(&device) {
            let (id, data) = (format!("reply-{serial}"), reply(serial));
            let item = QueueItem { dev_eui: dev_eui(device), id, fport: 6, data, ..QueueItem::default() };
            self.thinking.lock().push(Thought { since, item, what: Answers::Uplink(serial) });
        }
        for number in self.handed.lock().remove(&device).unwrap_or_default() {
            let (item, what) = (queue_item(number, device), Answers::Item(number));
            self.trace.say(since, format!("its answer is queue item {number}"));
            self.thinking.lock().push(Thought { since, item, what });
        }
    }

    pub fn set_away(&self, application: usize, away: bool) {
        self.all.get(application).into_iter().for_each(|endpoint| endpoint.away.store(away, Ordering::Relaxed));
    }

    pub fn set_mute(&self, application: usize, mute: bool) {
        self.all.get(application).into_iter().for_each(|endpoint| endpoint.mute.store(mute, Ordering::Relaxed));
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    /// Whether all of these uplinks were told.
    pub fn has_all(&self, mut serials: impl Iterator<Item = Serial>) -> bool {
        let ups = self.ups.lock();
        serials.all(|serial| ups.contains(&serial))
    }

    fn take(&self, event: &Event) {
        let Some(device) = (0..DEVICES).find(|index| dev_eui(*index) == event.device.dev_eui) else { return };
        let (at, id, what) = (self.network.now(), event.id, what(&event.kind));
        self.trace.say(at, format!("device {device}'s application is told {}: {what:?}", event.kind.name()));
        if let What::Up { serial, .. } = what
            && self.ups.lock().insert(serial)
        {
            self.think(at, device, serial);
        }
        self.told.lock().push(Told { at, device, id, what });
    }
}

#[async_trait]
impl Deliver for Endpoints {
    async fn deliver(
        &self,
        _: &HttpIntegration,
        event: &Event,
        _: Option<&Object>,
        limit: Duration,
    ) -> Result<(), DeliveryError> {
        let application = (0..APPLICATIONS).find(|index| application_id(*index) == event.device.application_id);
        let Some(endpoint) = application.and_then(|index| self.all.get(index)) else { return Ok(()) };
        let (is_away, is_mute) = (endpoint.away.load(Ordering::Relaxed), endpoint.mute.load(Ordering::Relaxed));
        if !is_away {
            tokio::time::sleep(endpoint.takes).await;
            self.take(event);
        }
        if is_away || is_mute {
            tokio::time::sleep(limit).await;
            return Err(DeliveryError::TimedOut(limit));
        }
        Ok(())
    }
}

/// The number in the id of a queue item.
pub fn item_number(id: &str) -> Option<usize> {
    id.strip_prefix("item-")?.parse().ok()
}

fn what(kind: &EventKind) -> What {
    let item = |id: &str| item_number(id).map_or(What::Other, What::Item);
    match kind {
        EventKind::Up(up) => What::Up {
            serial: up.data.as_slice().try_into().map(Serial::from_be_bytes).unwrap_or(Serial::MAX),
            dev_addr: up.dev_addr.0,
            fcnt: up.fcnt,
            gateways: up.receptions.iter().map(|reception| reception.gateway).collect(),
        },
        EventKind::Join(join) => What::Join { dev_addr: join.dev_addr.0 },
        EventKind::Ack(ack) => item(&ack.queue_item),
        EventKind::TxAck(ack) => item(&ack.queue_item),
        // A gateway's refusal is not the end of it.
        EventKind::Log(log) if log.description.contains("offered again") => What::Other,
        EventKind::Log(log) => log.context.get("queue_item_id").map_or(What::Other, |id| item(id)),
        EventKind::Status(_) => What::Other,
    }
}
