//! The way of an uplink, on SQLite. Rows are encoded before they are handed to the writer, which all others wait for.

use std::time::Duration;

use async_trait::async_trait;
use limpet_shared::{DevAddr, Eui64, UnixMicros};
use limpet_worker_core::model::*;

use super::{
    SqliteStore, leases, notes,
    pending::{self, key_of},
    receptions::{self, DELETED_AT_ONCE},
    sessions,
};
use crate::{
    Backlog, Candidate, Commit, FrameStore, Freshness, IntegrationId, PendingBounds, PendingEvent, Result, Trimmed,
    waiting_body::WaitingBody,
};

/// Nobody waits for a mark but the next uplink of its device.
const MARK_WITHIN: Duration = Duration::from_millis(20);

#[async_trait]
impl FrameStore for SqliteStore {
    async fn put_reception(&self, reception: Reception) -> Result<()> {
        let body = self.form.encode(&reception)?;
        self.writer.write_one(move |conn| receptions::put(conn, &reception, &body)).await
    }
    async fn receptions(&self, key: DedupKey) -> Result<Vec<Reception>> {
        self.look(move |conn| receptions::of_key(conn, key)).await
    }
    async fn reception_keys(&self, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>> {
        self.readers.read(move |conn| receptions::keys(conn, since, after, limit)).await
    }
    async fn expire_receptions(&self, before: UnixMicros) -> Result<u64> {
        let mut expired = 0;
        loop {
            let deleted = self.writer.write(move |conn| receptions::expire(conn, before)).await?;
            expired += deleted as u64;
            if deleted < DELETED_AT_ONCE as usize {
                return Ok(expired);
            }
        }
    }

    async fn sessions_by_addr(&self, addr: DevAddr, _: Freshness) -> Result<Vec<SessionRow>> {
        self.look(move |conn| sessions::by_addr(conn, addr)).await
    }
    async fn candidates(&self, addr: DevAddr, _: Freshness, queue: u32) -> Result<Vec<Candidate>> {
        self.look(move |conn| sessions::candidates(conn, addr, queue)).await
    }
    async fn session(&self, key: &SessionKey, _: Freshness) -> Result<Option<SessionRow>> {
        let key = *key;
        self.look(move |conn| sessions::by_key(conn, &key)).await
    }
    async fn create_session(&self, session: &Session) -> Result<Commit> {
        let (key, rev, body) = (session.key, session.rev, self.form.encode(session)?);
        self.writer.write(move |conn| sessions::create(conn, &key, rev, &body)).await
    }
    async fn commit_session(&self, next: &Session) -> Result<Commit> {
        let (key, rev, body) = (next.key, next.rev, self.form.encode(next)?);
        // Uplinks whose windows end together are decided one after the other, and written together.
        self.writer.gather().await;
        self.writer.write_one(move |conn| sessions::replace(conn, &key, rev, &body)).await
    }
    async fn delete_session(&self, key: &SessionKey) -> Result<()> {
        let key = *key;
        self.writer.write(move |conn| sessions::delete(conn, &key)).await
    }
    async fn mark_out(&self, key: &SessionKey, slot: u64, through_pending: bool) -> Result<()> {
        let key = *key;
        self.writer.write_along(MARK_WITHIN, move |conn| sessions::mark_out(conn, &key, slot, through_pending)).await
    }
    async fn mark_sent(&self, key: &SessionKey, fcnt_down: u32) -> Result<()> {
        let key = *key;
        self.writer.write(move |conn| sessions::mark_sent(conn, &key, fcnt_down)).await
    }

    async fn device_state(&self, dev_eui: Eui64, _: Freshness) -> Result<DeviceState> {
        self.look(move |conn| sessions::device_state(conn, dev_eui)).await
    }
    async fn join_row(&self, dev_eui: Eui64, dev_nonce: u16, _: Freshness) -> Result<Option<JoinRow>> {
        self.look(move |conn| sessions::join_row(conn, dev_eui, dev_nonce)).await
    }
    async fn commit_join(&self, next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit> {
        let (next, join) = (next.clone(), join.cloned());
        self.writer.write(move |conn| sessions::commit_join(conn, &next, join.as_ref())).await
    }
    async fn shrink_join(&self, state: &DeviceState, row: &JoinRow) -> Result<Commit> {
        let (rev, row) = (state.rev, row.clone());
        self.writer.write(move |conn| sessions::shrink_join(conn, rev, &row)).await
    }
    async fn flush_dev_nonces(&self, dev_eui: Eui64) -> Result<()> {
        self.writer.write(move |conn| sessions::flush_dev_nonces(conn, dev_eui)).await
    }

    async fn enqueue(&self, item: QueueItem) -> Result<QueueItem> {
        self.writer.write(move |conn| sessions::enqueue(conn, item)).await
    }
    async fn queue(&self, dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>> {
        self.look(move |conn| sessions::queue(conn, dev_eui, after, limit)).await
    }
    async fn delete_queue_item(&self, dev_eui: Eui64, seq: u64) -> Result<()> {
        self.writer.write(move |conn| sessions::delete_queue_item(conn, dev_eui, seq)).await
    }
    async fn queue_last(&self, dev_eui: Eui64) -> Result<u64> {
        self.readers.read(move |conn| sessions::queue_last(conn, dev_eui)).await
    }
    async fn flush_queue(&self, dev_eui: Eui64, last: u64) -> Result<()> {
        self.writer.write(move |conn| sessions::flush_queue(conn, dev_eui, last)).await
    }

    async fn put_pending(&self, event: PendingEvent) -> Result<()> {
        let (key, body) = (key_of(&event), self.form.encode(&WaitingBody::from(&event))?);
        self.writer.write(move |conn| pending::put(conn, &key, &body)).await
    }
    async fn has_pending(
        &self,
        integration: IntegrationId,
        device: Eui64,
        session_since: UnixMicros,
        slot: u64,
    ) -> Result<bool> {
        self.readers.read(move |conn| pending::has(conn, (integration, device), session_since, slot)).await
    }
    async fn may_have_pending(&self) -> Result<bool> {
        self.readers.read(pending::any).await
    }
    async fn pending_devices(&self, integration: IntegrationId, limit: u32) -> Result<Vec<Eui64>> {
        self.readers.read(move |conn| pending::devices(conn, integration, limit)).await
    }
    async fn pending_turns(&self, each: u32, aside: Vec<IntegrationId>) -> Result<Vec<(IntegrationId, Eui64)>> {
        self.readers.read(move |conn| pending::turns(conn, each, &aside)).await
    }
    async fn pending(&self, integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>> {
        self.readers.read(move |conn| pending::of_device(conn, integration, device, limit)).await
    }
    async fn delete_pending(&self, event: &PendingEvent) -> Result<()> {
        let key = key_of(event);
        self.writer.write(move |conn| pending::delete(conn, &key)).await
    }
    async fn pending_size(&self, integration: IntegrationId) -> Result<(u64, u64)> {
        self.readers.read(move |conn| pending::size(conn, integration)).await
    }
    async fn pending_backlog(&self) -> Result<Vec<Backlog>> {
        self.readers.read(pending::backlog).await
    }
    /// Found by a reader, and deleted some at a time, so that no uplink waits for it.
    async fn trim_pending(&self, integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed> {
        let (mut dropped, bounds) = (Trimmed::default(), *bounds);
        while let Some((last, beyond)) =
            self.readers.read(move |conn| pending::beyond(conn, integration, &bounds)).await?
        {
            let deleted = self.writer.write(move |conn| pending::trim(conn, integration, last)).await? as u64;
            dropped.too_old += beyond.too_old.min(deleted);
            dropped.overflow += deleted.saturating_sub(beyond.too_old);
        }
        Ok(dropped)
    }

    async fn lease(&self, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
        let (name, holder, ends) = (name.to_owned(), holder.to_owned(), self.lease_ends.clone());
        self.writer.write(move |conn| leases::take(conn, &ends, (&name, &holder), now, until)).await
    }

    async fn note_device(&self, dev_eui: Eui64, seen: DeviceSeen) -> Result<()> {
        if self.notes.note_device(dev_eui, &seen) {
            return Ok(());
        }
        self.writer.write(move |conn| notes::write_device(conn, dev_eui, seen)).await
    }
    async fn note_gateway(&self, eui: Eui64, seen: GatewaySeen) -> Result<()> {
        if self.notes.note_gateway(eui, &seen) {
            return Ok(());
        }
        self.writer.write(move |conn| notes::write_gateway(conn, eui, seen)).await
    }
}
