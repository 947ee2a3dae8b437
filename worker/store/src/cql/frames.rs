//! The way of an uplink.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use limpet_shared::{DevAddr, Eui64, UnixMicros};
use limpet_worker_core::model::*;

use super::CqlStore;
use crate::{Backlog, Commit, FrameStore, Freshness, IntegrationId, PendingBounds, PendingEvent, Result, Trimmed};

#[async_trait]
impl FrameStore for CqlStore {
    async fn put_reception(&self, reception: Reception) -> Result<()> {
        self.inlet.through(self.receptions.put(&self.db, &reception)).await
    }
    async fn receptions(&self, key: DedupKey) -> Result<Vec<Reception>> {
        let since = UnixMicros(self.expired.load(Ordering::Relaxed));
        self.receptions.of_key(&self.db, &self.flow, key, since).await
    }
    async fn reception_keys(&self, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>> {
        let since = since.max(UnixMicros(self.expired.load(Ordering::Relaxed)));
        self.receptions.keys(&self.db, since, after, limit).await
    }
    /// The database deletes them by itself, an hour after they were written. Here they are no longer given.
    async fn expire_receptions(&self, before: UnixMicros) -> Result<u64> {
        self.expired.fetch_max(before.0, Ordering::Relaxed);
        Ok(0)
    }

    async fn sessions_by_addr(&self, addr: DevAddr, freshness: Freshness) -> Result<Vec<SessionRow>> {
        self.flow.through(self.sessions.by_addr(&self.db, addr, freshness)).await
    }
    async fn session(&self, key: &SessionKey, freshness: Freshness) -> Result<Option<SessionRow>> {
        self.flow.through(self.sessions.by_key(&self.db, key, freshness)).await
    }
    async fn create_session(&self, session: &Session) -> Result<Commit> {
        self.flow.through(self.sessions.create(&self.db, session)).await
    }
    async fn commit_session(&self, next: &Session) -> Result<Commit> {
        self.flow.through(self.sessions.replace(&self.db, next)).await
    }
    async fn delete_session(&self, key: &SessionKey) -> Result<()> {
        self.sessions.delete(&self.db, key).await
    }
    async fn mark_out(&self, key: &SessionKey, slot: u64, through_pending: bool) -> Result<()> {
        self.flow.through(self.sessions.mark_out(&self.db, key, slot, through_pending)).await
    }
    async fn mark_sent(&self, key: &SessionKey, fcnt_down: u32) -> Result<()> {
        self.flow.through(self.sessions.mark_sent(&self.db, key, fcnt_down)).await
    }

    async fn device_state(&self, dev_eui: Eui64, freshness: Freshness) -> Result<DeviceState> {
        self.flow.through(self.sessions.device_state(&self.db, dev_eui, freshness)).await
    }
    async fn join_row(&self, dev_eui: Eui64, dev_nonce: u16, freshness: Freshness) -> Result<Option<JoinRow>> {
        self.flow.through(self.sessions.join(&self.db, dev_eui, dev_nonce, freshness)).await
    }
    async fn commit_join(&self, next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit> {
        self.flow.through(self.sessions.commit_join(&self.db, next, join)).await
    }
    async fn shrink_join(&self, state: &DeviceState, row: &JoinRow) -> Result<Commit> {
        self.flow.through(self.sessions.shrink_join(&self.db, state, row)).await
    }
    async fn flush_dev_nonces(&self, dev_eui: Eui64) -> Result<()> {
        self.sessions.flush_dev_nonces(&self.db, dev_eui).await
    }

    async fn enqueue(&self, item: QueueItem) -> Result<QueueItem> {
        self.queues.enqueue(&self.db, item).await
    }
    async fn queue(&self, dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>> {
        self.flow.through(self.queues.items(&self.db, dev_eui, after, limit)).await
    }
    async fn delete_queue_item(&self, dev_eui: Eui64, seq: u64) -> Result<()> {
        self.flow.through(self.queues.delete(&self.db, dev_eui, seq)).await
    }
    async fn queue_last(&self, dev_eui: Eui64) -> Result<u64> {
        self.flow.through(self.queues.last(&self.db, dev_eui)).await
    }
    async fn flush_queue(&self, dev_eui: Eui64, last: u64) -> Result<()> {
        self.queues.flush(&self.db, dev_eui, last).await
    }

    async fn put_pending(&self, event: PendingEvent) -> Result<()> {
        self.pending.put(&self.db, &self.flow, &event).await
    }
    async fn has_pending(
        &self,
        integration: IntegrationId,
        device: Eui64,
        session_since: UnixMicros,
        slot: u64,
    ) -> Result<bool> {
        self.flow.through(self.pending.has(&self.db, (integration, device), session_since, slot)).await
    }
    /// Who knows holds the lease.
    async fn may_have_pending(&self) -> Result<bool> {
        Ok(true)
    }
    async fn pending_devices(&self, integration: IntegrationId, limit: u32) -> Result<Vec<Eui64>> {
        self.pending.devices(&self.db, integration, limit).await
    }
    async fn pending_turns(&self, each: u32, aside: Vec<IntegrationId>) -> Result<Vec<(IntegrationId, Eui64)>> {
        self.pending.turns(&self.db, each, &aside).await
    }
    async fn pending(&self, integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>> {
        self.flow.through(self.pending.events(&self.db, integration, device, limit)).await
    }
    async fn next_pending(&self, integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>> {
        self.flow.through(self.pending.next(&self.db, (integration, device), limit)).await
    }
    async fn delete_pending(&self, event: &PendingEvent) -> Result<()> {
        self.flow.through(self.pending.delete(&self.db, event)).await
    }
    async fn pending_size(&self, integration: IntegrationId) -> Result<(u64, u64)> {
        self.pending.size(&self.db, integration).await
    }
    async fn pending_backlog(&self) -> Result<Vec<Backlog>> {
        self.pending.backlog(&self.db).await
    }
    fn counts_pending_for_all(&self) -> bool {
        false
    }
    async fn trim_pending(&self, integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed> {
        self.pending.trim(&self.db, integration, bounds).await
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
        self.leases.take(&self.db, name, holder, now, until).await
    }

    async fn note_device(&self, dev_eui: Eui64, seen: DeviceSeen) -> Result<()> {
        if self.notes.note_device(dev_eui, &seen) {
            return Ok(());
        }
        self.seen.put_device(&self.db, dev_eui, &seen).await
    }
    async fn note_gateway(&self, eui: Eui64, seen: GatewaySeen) -> Result<()> {
        if self.notes.note_gateway(eui, &seen) {
            return Ok(());
        }
        self.seen.put_gateway(&self.db, eui, &seen).await
    }
}
