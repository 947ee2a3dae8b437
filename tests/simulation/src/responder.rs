//! An application: the endpoint that events are told to, and what it enqueues in reply.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use limpet_api::Api;
use limpet_integration::{Deliver, DeliveryError};
use limpet_worker::{DEFAULT_REPLY_DELAY, Started};
use limpet_worker_core::model::*;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    check::{Told, reply},
    field::{UplinkKey, dev_eui},
    net::Network,
};

/// How long an application thinks before it answers an event.
const THINKS: Duration = Duration::from_millis(60);
/// How often a client of a worker's API looks whether there is something to enqueue.
const LOOKS: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Responder {
    network: Network,
    /// Devices whose events it answers.
    answers: BTreeSet<usize>,
    pub told: Mutex<Told>,
    /// When each event was told first; the application has not answered yet.
    thinking: Mutex<BTreeMap<UplinkKey, Duration>>,
    /// Answers that the API has taken in time.
    pub replied: Mutex<BTreeSet<UplinkKey>>,
    pub away: AtomicBool,
    /// Takes events, and its answers get lost.
    pub mute: AtomicBool,
}

impl Responder {
    pub fn new(network: Network, answers: BTreeSet<usize>) -> Self {
        let (told, thinking, replied, away, mute) = Default::default();
        Self { network, answers, told, thinking, replied, away, mute }
    }

    fn hears(&self, key: UplinkKey, id: uuid::Uuid) {
        let mut told = self.told.lock();
        if self.answers.contains(&key.0) && told.iter().all(|(before, _)| *before != key) {
            self.thinking.lock().insert(key, self.network.now());
        }
        told.push((key, id));
    }

    /// A client of the API of the worker that is starting: it enqueues what is due, each by whichever client comes first.
    pub async fn client(self: Arc<Self>, started: oneshot::Receiver<Started>) {
        let Ok(Started { api, .. }) = started.await else { return };
        loop {
            tokio::time::sleep(LOOKS).await;
            while let Some((key, told)) = self.due() {
                self.reply(&api, key, told).await;
            }
        }
    }

    fn due(&self) -> Option<(UplinkKey, Duration)> {
        let now = self.network.now();
        let mut thinking = self.thinking.lock();
        let key = thinking.iter().find(|(_, told)| **told + THINKS <= now).map(|(key, _)| *key)?;
        thinking.remove_entry(&key)
    }

    async fn reply(&self, api: &Api, key: UplinkKey, told: Duration) {
        let id = format!("reply-{}-{}", key.0, key.1);
        let item = QueueItem { dev_eui: dev_eui(key.0), id, fport: 6, data: reply(key), ..QueueItem::default() };
        let began = self.network.now();
        if api.enqueue(item).await.is_ok() && began < told + DEFAULT_REPLY_DELAY {
            self.replied.lock().insert(key);
        }
    }
}

#[async_trait]
impl Deliver for Responder {
    async fn deliver(&self, _: &HttpIntegration, event: &Event, limit: Duration) -> Result<(), DeliveryError> {
        if self.away.load(Ordering::Relaxed) {
            tokio::time::sleep(limit).await;
            return Err(DeliveryError::TimedOut(limit));
        }
        if let EventKind::Up(up) = &event.kind
            && let Some(index) = (0..16).find(|index| Some(dev_eui(*index)) == Some(event.device.dev_eui))
        {
            self.hears((index, up.fcnt), event.id);
        }
        if self.mute.load(Ordering::Relaxed) {
            tokio::time::sleep(limit).await;
            return Err(DeliveryError::TimedOut(limit));
        }
        Ok(())
    }
}
