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
use limpet_integration::{Deliver, DeliveryError};
use limpet_worker::{DEFAULT_REPLY_DELAY, Started};
use limpet_worker_core::model::{Event, EventKind, HttpIntegration, QueueItem};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::provision::{APPLICATIONS, application_id};
use crate::{
    field::dev_eui,
    net::Network,
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
    /// When, and of which device, each uplink was told that is not answered yet.
    thinking: Mutex<BTreeMap<Serial, (Duration, usize)>>,
    /// Uplinks whose answers the API has taken in time.
    replied: Mutex<BTreeSet<Serial>>,
}

impl Endpoints {
    pub fn new(network: Network, trace: Trace, answers: BTreeSet<usize>) -> Self {
        let (all, told, ups, thinking, replied) = Default::default();
        Self { network, trace, all, answers, told, ups, thinking, replied }
    }

    pub fn replied(&self) -> BTreeSet<Serial> {
        self.replied.lock().clone()
    }

    /// A client of the API of the worker that is starting: it enqueues what is due, each by whichever client comes first.
    pub async fn client(self: Arc<Self>, started: oneshot::Receiver<Started>) {
        let Ok(Started { api, .. }) = started.await else { return };
        loop {
            tokio::time::sleep(LOOKS).await;
            while let Some((serial, (told, device))) = self.due() {
                let (id, data) = (format!("reply-{serial}"), reply(serial));
                let item = QueueItem { dev_eui: dev_eui(device), id, fport: 6, data, ..QueueItem::default() };
                let began = self.network.now();
                if api.enqueue(item).await.is_ok() && began < told + DEFAULT_REPLY_DELAY {
                    self.replied.lock().insert(serial);
                }
            }
        }
    }

    fn due(&self) -> Option<(Serial, (Duration, usize))> {
        let now = self.network.now();
        let mut thinking = self.thinking.lock();
        let serial = thinking.iter().find(|(_, (told, _))| *told + THINKS <= now).map(|(serial, _)| *serial)?;
        thinking.remove_entry(&serial)
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
        if let What::Up { serial, .. } = what {
            let is_new = self.ups.lock().insert(serial);
            if is_new && self.answers.contains(&device) {
                self.thinking.lock().insert(serial, (at, device));
            }
        }
        self.told.lock().push(Told { at, device, id, what });
    }
}

#[async_trait]
impl Deliver for Endpoints {
    async fn deliver(&self, _: &HttpIntegration, event: &Event, limit: Duration) -> Result<(), DeliveryError> {
        let application = (0..APPLICATIONS).find(|index| application_id(*index) == event.device.application_id);
        let Some(endpoint) = application.and_then(|index| self.all.get(index)) else { return Ok(()) };
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if !is(&endpoint.away) {
            self.take(event);
        }
        if is(&endpoint.away) || is(&endpoint.mute) {
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
    }
}
