//! Receptions, pending events and leases.

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::{DedupKey, Reception};
use rusqlite::Connection;

use super::error::{all, decode, execute, int, one};
use crate::{IntegrationId, MOST_COPIES, PendingEvent, Result, StoreError, moving::PendingAfter};

/// How many rows one write deletes at most: others wait for it.
pub(super) const DELETED_AT_ONCE: u32 = 500;

fn key_of(blob: &[u8]) -> Result<DedupKey> {
    let bytes = blob.try_into().map_err(|_| StoreError::Corrupt("a deduplication key is not of 16 bytes".into()))?;
    Ok(DedupKey(u128::from_be_bytes(bytes)))
}

/// `body` is the reception encoded.
pub(super) fn put(conn: &Connection, reception: &Reception, body: &str) -> Result<()> {
    let sql = "INSERT INTO reception (key, gateway, context, received_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (key, gateway, context) DO NOTHING";
    let (gateway, context) = (reception.gateway.to_string(), reception.context.cast_signed());
    execute(conn, sql, (reception.key.0.to_be_bytes(), gateway, context, int(reception.received_at.0), body)).map(drop)
}

pub(super) fn of_key(conn: &Connection, key: DedupKey) -> Result<Vec<Reception>> {
    let sql = "SELECT body FROM reception WHERE key = ?1 ORDER BY received_at DESC LIMIT ?2";
    let mut found: Vec<Reception> = all(conn, sql, (key.0.to_be_bytes(), MOST_COPIES as u32), |row| decode(row, 0))?;
    found.sort_by_key(|r| (r.received_at, r.gateway, r.context));
    Ok(found)
}

pub(super) fn keys(conn: &Connection, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>> {
    // An empty blob comes before all keys.
    let after = after.map_or(Vec::new(), |key| key.0.to_be_bytes().to_vec());
    let sql = "SELECT DISTINCT key FROM reception WHERE key > ?1 AND received_at >= ?2 ORDER BY key LIMIT ?3";
    all(conn, sql, (after, int(since.0), limit), |row| key_of(row.get_ref(0)?.as_blob().unwrap_or_default()))
}

/// Deletes some of what was received before.
pub(super) fn expire(conn: &Connection, before: UnixMicros) -> Result<usize> {
    let sql = "DELETE FROM reception WHERE rowid IN
               (SELECT rowid FROM reception WHERE received_at < ?1 ORDER BY received_at LIMIT ?2)";
    execute(conn, sql, (int(before.0), DELETED_AT_ONCE))
}

/// `body` is the event encoded.
pub(super) fn put_pending(conn: &Connection, key: &PendingKey, body: &str) -> Result<()> {
    let sql =
        "INSERT INTO pending (integration, device, session_since, slot, part, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (integration, device, session_since, slot, part) DO NOTHING";
    let (integration, device, since, slot, part) = key;
    execute(conn, sql, (integration, device, since, slot, part, body)).map(drop)
}

/// (integration, device, session start, slot, part), as stored.
pub(super) type PendingKey = (String, String, i64, i64, u32);

pub(super) fn pending_key(event: &PendingEvent) -> PendingKey {
    let (integration, device) = (event.integration.0.to_string(), event.device.to_string());
    (integration, device, int(event.session_since.0), int(event.slot), event.part)
}

pub(super) fn has_pending(conn: &Connection, integration: IntegrationId, device: Eui64) -> Result<bool> {
    let sql = "SELECT 1 FROM pending WHERE integration = ?1 AND device = ?2 LIMIT 1";
    Ok(one(conn, sql, (integration.0.to_string(), device.to_string()), |_| Ok(()))?.is_some())
}

pub(super) fn may_have_pending(conn: &Connection) -> Result<bool> {
    Ok(one(conn, "SELECT 1 FROM pending LIMIT 1", [], |_| Ok(()))?.is_some())
}

pub(super) fn pending_devices(conn: &Connection, limit: u32) -> Result<Vec<(IntegrationId, Eui64)>> {
    let sql = "SELECT integration, device FROM pending GROUP BY integration, device ORDER BY min(n) LIMIT ?1";
    all(conn, sql, [limit], read_device)
}

fn read_device(row: &rusqlite::Row<'_>) -> Result<(IntegrationId, Eui64)> {
    let (integration, device): (String, String) = (row.get(0)?, row.get(1)?);
    let integration = integration.parse().map_err(|e| StoreError::Corrupt(format!("an integration: {e}")))?;
    let device = device.parse().map_err(|e| StoreError::Corrupt(format!("a device: {e}")))?;
    Ok((IntegrationId(integration), device))
}

pub(super) fn pending_turns(
    conn: &Connection,
    each: u32,
    aside: &[IntegrationId],
) -> Result<Vec<(IntegrationId, Eui64)>> {
    let sql = "SELECT integration, device FROM (
                   SELECT integration, device, min(n) AS oldest,
                          row_number() OVER (PARTITION BY integration ORDER BY min(n)) AS place
                   FROM pending WHERE integration NOT IN (SELECT value FROM json_each(?1))
                   GROUP BY integration, device)
               WHERE place <= ?2 ORDER BY place, oldest LIMIT ?3";
    let aside: Vec<String> = aside.iter().map(|id| format!("\"{}\"", id.0)).collect();
    all(conn, sql, (format!("[{}]", aside.join(",")), each, crate::MOST_TURNS as u32), read_device)
}

pub(super) fn pending_of(
    conn: &Connection,
    integration: IntegrationId,
    device: Eui64,
    limit: u32,
) -> Result<Vec<PendingEvent>> {
    pending_after(conn, integration, device, None, limit)
}

pub(super) fn pending_after(
    conn: &Connection,
    integration: IntegrationId,
    device: Eui64,
    after: Option<PendingAfter>,
    limit: u32,
) -> Result<Vec<PendingEvent>> {
    let sql = "SELECT session_since, slot, part, body FROM pending WHERE integration = ?1 AND device = ?2
               AND (session_since, slot, part) > (?3, ?4, ?5)
               ORDER BY session_since, slot, part LIMIT ?6";
    // Nothing has a number below zero.
    let (since, slot, part) = after.map_or((-1, -1, -1), |(s, n, part)| (int(s.0), int(n), i64::from(part)));
    all(conn, sql, (integration.0.to_string(), device.to_string(), since, slot, part, limit), |row| {
        Ok(PendingEvent {
            integration,
            device,
            session_since: UnixMicros(row.get::<_, i64>(0)?.cast_unsigned()),
            slot: row.get::<_, i64>(1)?.cast_unsigned(),
            part: row.get(2)?,
            event: decode(row, 3)?,
        })
    })
}

pub(super) fn delete_pending(conn: &Connection, key: &PendingKey) -> Result<()> {
    let sql = "DELETE FROM pending
               WHERE integration = ?1 AND device = ?2 AND session_since = ?3 AND slot = ?4 AND part = ?5";
    let (integration, device, since, slot, part) = key;
    execute(conn, sql, (integration, device, since, slot, part)).map(drop)
}

pub(super) fn pending_size(conn: &Connection, integration: IntegrationId) -> Result<(u64, u64)> {
    let sql = "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM pending WHERE integration = ?1";
    let size = one(conn, sql, [integration.0.to_string()], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    Ok(size.unwrap_or_default())
}

/// Deletes some of the oldest, as long as more than `keep` are left.
pub(super) fn trim_pending(conn: &Connection, integration: IntegrationId, keep: u64) -> Result<usize> {
    let (count, _) = pending_size(conn, integration)?;
    let surplus = count.saturating_sub(keep).min(u64::from(DELETED_AT_ONCE));
    let sql = "DELETE FROM pending WHERE n IN (SELECT n FROM pending WHERE integration = ?1 ORDER BY n LIMIT ?2)";
    execute(conn, sql, (integration.0.to_string(), int(surplus)))
}

pub(super) fn lease(conn: &Connection, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
    let sql = "INSERT INTO lease (name, holder, until) VALUES (?1, ?2, ?4)
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
               WHERE holder = excluded.holder OR until <= ?3";
    Ok(execute(conn, sql, (name, holder, int(now.0), int(until.0)))? == 1)
}
