//! A store that lives in memory: for tests and for the simulation, where a crash of a worker must not touch it.
//!
//! One mutex around ordered maps, so that a seeded simulation sees the same order each time. No method waits while it
//! holds the mutex, and every operation is atomic.

mod directory;
mod frames;
mod membership;
mod moving;
mod sessions;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use limpet_shared::{
    DevAddr, Eui64, UnixMicros,
    admin::{RevokedServer, Role, Server, TokenInfo},
};
use limpet_worker_core::model::*;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    Backlog, Commit, FrameStore, Freshness, IntegrationId, PendingBounds, PendingEvent, Result, Store, Trimmed,
};

/// See the module.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

/// Everything that is stored.
#[derive(Default)]
struct State {
    receptions: BTreeMap<(DedupKey, Eui64, u64), Reception>,
    sessions: BTreeMap<SessionKey, SessionRow>,
    states: BTreeMap<Eui64, DeviceState>,
    joins: BTreeMap<(Eui64, u16), JoinRow>,
    queues: BTreeMap<Eui64, Queue>,
    pending: BTreeMap<PendingKey, Waiting>,
    /// How many pending events were ever written: what comes first waits longest.
    pending_written: u64,
    leases: BTreeMap<String, (String, UnixMicros)>,
    settings: BTreeMap<String, Vec<u8>>,
    tenants: BTreeMap<Uuid, Tenant>,
    users: BTreeMap<Uuid, User>,
    api_keys: BTreeMap<Uuid, ApiKey>,
    applications: BTreeMap<Uuid, Application>,
    profiles: BTreeMap<Uuid, DeviceProfile>,
    gateways: BTreeMap<Eui64, (Gateway, GatewaySeen)>,
    /// Changes of the set of gateways so far.
    gateway_changes: u64,
    /// Which gateway each of them was of, by the version that it made.
    gateways_changed: Vec<(u64, Eui64)>,
    devices: BTreeMap<Eui64, (Device, DeviceSeen)>,
    servers: BTreeMap<(Role, String), Server>,
    /// By name and key.
    revoked: BTreeMap<(String, String), RevokedServer>,
    tokens: BTreeMap<String, TokenInfo>,
}

/// A device's queue. The last number stays when its items go: no number is given twice.
#[derive(Default)]
struct Queue {
    last: u64,
    items: BTreeMap<u64, QueueItem>,
}

/// (integration, device, session start, slot, part)
type PendingKey = (IntegrationId, Eui64, UnixMicros, u64, u32);

struct Waiting {
    /// Position in the order of writing.
    written: u64,
    bytes: u64,
    at: UnixMicros,
    event: PendingEvent,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }
}

#[async_trait]
impl FrameStore for MemoryStore {
    async fn put_reception(&self, reception: Reception) -> Result<()> {
        self.state.lock().put_reception(reception);
        Ok(())
    }
    async fn receptions(&self, key: DedupKey) -> Result<Vec<Reception>> {
        Ok(self.state.lock().receptions(key))
    }
    async fn reception_keys(&self, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>> {
        Ok(self.state.lock().reception_keys(since, after, limit))
    }
    async fn expire_receptions(&self, before: UnixMicros) -> Result<u64> {
        Ok(self.state.lock().expire_receptions(before))
    }

    async fn sessions_by_addr(&self, addr: DevAddr, _: Freshness) -> Result<Vec<SessionRow>> {
        Ok(self.state.lock().sessions_by_addr(addr))
    }
    async fn session(&self, key: &SessionKey, _: Freshness) -> Result<Option<SessionRow>> {
        Ok(self.state.lock().sessions.get(key).cloned())
    }
    async fn create_session(&self, session: &Session) -> Result<Commit> {
        Ok(self.state.lock().create_session(session))
    }
    async fn commit_session(&self, next: &Session) -> Result<Commit> {
        Ok(self.state.lock().commit_session(next))
    }
    async fn delete_session(&self, key: &SessionKey) -> Result<()> {
        self.state.lock().sessions.remove(key);
        Ok(())
    }
    async fn mark_out(&self, key: &SessionKey, slot: u64, through_pending: bool) -> Result<()> {
        self.state.lock().mark_out(key, slot, through_pending);
        Ok(())
    }
    async fn mark_sent(&self, key: &SessionKey, fcnt_down: u32) -> Result<()> {
        self.state.lock().mark_sent(key, fcnt_down);
        Ok(())
    }

    async fn device_state(&self, dev_eui: Eui64, _: Freshness) -> Result<DeviceState> {
        let state = self.state.lock();
        Ok(state.states.get(&dev_eui).cloned().unwrap_or_else(|| DeviceState::new(dev_eui)))
    }
    async fn join_row(&self, dev_eui: Eui64, dev_nonce: u16, _: Freshness) -> Result<Option<JoinRow>> {
        Ok(self.state.lock().joins.get(&(dev_eui, dev_nonce)).cloned())
    }
    async fn commit_join(&self, next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit> {
        Ok(self.state.lock().commit_join(next, join))
    }
    async fn shrink_join(&self, state: &DeviceState, row: &JoinRow) -> Result<Commit> {
        Ok(self.state.lock().shrink_join(state, row))
    }
    async fn flush_dev_nonces(&self, dev_eui: Eui64) -> Result<()> {
        self.state.lock().flush_dev_nonces(dev_eui);
        Ok(())
    }

    async fn enqueue(&self, item: QueueItem) -> Result<QueueItem> {
        self.state.lock().enqueue(item)
    }
    async fn queue(&self, dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>> {
        Ok(self.state.lock().queue(dev_eui, after, limit))
    }
    async fn delete_queue_item(&self, dev_eui: Eui64, seq: u64) -> Result<()> {
        if let Some(queue) = self.state.lock().queues.get_mut(&dev_eui) {
            queue.items.remove(&seq);
        }
        Ok(())
    }
    async fn queue_last(&self, dev_eui: Eui64) -> Result<u64> {
        Ok(self.state.lock().queues.get(&dev_eui).map_or(0, |queue| queue.last))
    }
    async fn flush_queue(&self, dev_eui: Eui64, last: u64) -> Result<()> {
        if let Some(queue) = self.state.lock().queues.get_mut(&dev_eui) {
            queue.items.retain(|seq, _| *seq > last);
        }
        Ok(())
    }

    async fn put_pending(&self, event: PendingEvent) -> Result<()> {
        self.state.lock().put_pending(event)
    }
    async fn has_pending(
        &self,
        integration: IntegrationId,
        device: Eui64,
        session_since: UnixMicros,
        slot: u64,
    ) -> Result<bool> {
        let state = self.state.lock();
        let first = state.pending_of(integration, device).next();
        Ok(first.is_some_and(|w| (w.event.session_since, w.event.slot) <= (session_since, slot)))
    }
    async fn may_have_pending(&self) -> Result<bool> {
        Ok(!self.state.lock().pending_devices(1).is_empty())
    }
    async fn pending_devices(&self, limit: u32) -> Result<Vec<(IntegrationId, Eui64)>> {
        Ok(self.state.lock().pending_devices(limit))
    }
    async fn pending_turns(&self, each: u32, aside: Vec<IntegrationId>) -> Result<Vec<(IntegrationId, Eui64)>> {
        Ok(self.state.lock().pending_turns(each, &aside))
    }
    async fn pending(&self, integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>> {
        let state = self.state.lock();
        Ok(state.pending_of(integration, device).take(limit as usize).map(|w| w.event.clone()).collect())
    }
    async fn delete_pending(&self, event: &PendingEvent) -> Result<()> {
        self.state.lock().pending.remove(&frames::pending_key(event));
        Ok(())
    }
    async fn pending_size(&self, integration: IntegrationId) -> Result<(u64, u64)> {
        Ok(self.state.lock().pending_size(integration))
    }
    async fn pending_backlog(&self) -> Result<Vec<Backlog>> {
        Ok(self.state.lock().pending_backlog())
    }
    async fn trim_pending(&self, integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed> {
        Ok(self.state.lock().trim_pending(integration, bounds))
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
        Ok(self.state.lock().lease(name, holder, now, until))
    }

    async fn note_device(&self, dev_eui: Eui64, seen: DeviceSeen) -> Result<()> {
        self.state.lock().note_device(dev_eui, seen);
        Ok(())
    }
    async fn note_gateway(&self, eui: Eui64, seen: GatewaySeen) -> Result<()> {
        self.state.lock().note_gateway(eui, seen);
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
    fn describe(&self) -> String {
        "memory (gone when the process ends)".into()
    }
}
