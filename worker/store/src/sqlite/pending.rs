//! Events that an integration has not taken yet.

use limpet_shared::{Eui64, UnixMicros};
use rusqlite::Connection;

use super::error::{all, decode_row, execute, int, one};
use crate::{
    Backlog, IntegrationId, PendingBounds, PendingEvent, Result, StoreError, Trimmed, moving::PendingAfter, rows::Body,
    waiting_body::WaitingBody, words,
};

/// How many events one write drops at most: uplinks wait for it.
const TRIMMED_AT_ONCE: u32 = 100;

/// `body` is the event encoded.
pub(super) fn put(conn: &Connection, key: &Key, body: &Body) -> Result<()> {
    let sql =
        "INSERT INTO pending (integration, device, session_since, slot, part, body, written_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (integration, device, session_since, slot, part) DO NOTHING";
    let (integration, device, since, slot, part) = key;
    execute(conn, sql, (integration, device, since, slot, part, body, int(words::now().0))).map(drop)
}

/// (integration, device, session start, slot, part), as stored.
pub(super) type Key = (String, String, i64, i64, u32);

pub(super) fn key_of(event: &PendingEvent) -> Key {
    let (integration, device) = (event.integration.0.to_string(), event.device.to_string());
    (integration, device, int(event.session_since.0), int(event.slot), event.part)
}

pub(super) fn has(conn: &Connection, of: (IntegrationId, Eui64), since: UnixMicros, slot: u64) -> Result<bool> {
    let sql =
        "SELECT 1 FROM pending WHERE integration = ?1 AND device = ?2 AND (session_since, slot) <= (?3, ?4) LIMIT 1";
    Ok(one(conn, sql, (of.0.0.to_string(), of.1.to_string(), int(since.0), int(slot)), |_| Ok(()))?.is_some())
}

pub(super) fn any(conn: &Connection) -> Result<bool> {
    Ok(one(conn, "SELECT 1 FROM pending_device LIMIT 1", [], |_| Ok(()))?.is_some())
}

pub(super) fn devices(conn: &Connection, integration: IntegrationId, limit: u32) -> Result<Vec<Eui64>> {
    let sql = "SELECT integration, device FROM pending_device WHERE integration = ?1 ORDER BY first LIMIT ?2";
    let found = all(conn, sql, (integration.0.to_string(), limit), read_device)?;
    Ok(found.into_iter().map(|(_, device)| device).collect())
}

fn read_device(row: &rusqlite::Row<'_>) -> Result<(IntegrationId, Eui64)> {
    let (integration, device): (String, String) = (row.get(0)?, row.get(1)?);
    let integration = read_integration(&integration)?;
    let device = device.parse().map_err(|e| StoreError::Corrupt(format!("a device: {e}")))?;
    Ok((integration, device))
}

fn read_integration(id: &str) -> Result<IntegrationId> {
    id.parse().map(IntegrationId).map_err(|e| StoreError::Corrupt(format!("an integration: {e}")))
}

pub(super) fn turns(conn: &Connection, each: u32, aside: &[IntegrationId]) -> Result<Vec<(IntegrationId, Eui64)>> {
    // From integration to integration, and of each no more than are asked for: there may be very many devices.
    let sql = "WITH RECURSIVE each_of (integration) AS (
                   SELECT min(integration) FROM pending_device
                   UNION ALL
                   SELECT (SELECT min(integration) FROM pending_device WHERE integration > each_of.integration)
                   FROM each_of WHERE each_of.integration IS NOT NULL)
               SELECT integration, device FROM (
                   SELECT d.integration, d.device, d.first,
                          row_number() OVER (PARTITION BY d.integration ORDER BY d.first) AS place
                   FROM each_of CROSS JOIN pending_device d ON d.integration = each_of.integration AND d.device IN (
                       SELECT device FROM pending_device WHERE integration = each_of.integration ORDER BY first LIMIT ?2)
                   WHERE each_of.integration NOT IN (SELECT value FROM json_each(?1)))
               ORDER BY place, first LIMIT ?3";
    let aside: Vec<String> = aside.iter().map(|id| format!("\"{}\"", id.0)).collect();
    all(conn, sql, (format!("[{}]", aside.join(",")), each, crate::MOST_TURNS as u32), read_device)
}

pub(super) fn of_device(
    conn: &Connection,
    integration: IntegrationId,
    device: Eui64,
    limit: u32,
) -> Result<Vec<PendingEvent>> {
    after(conn, integration, device, None, limit)
}

pub(super) fn after(
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
        let WaitingBody { event, refusals } = decode_row(row, 3)?;
        Ok(PendingEvent {
            integration,
            device,
            session_since: UnixMicros(row.get::<_, i64>(0)?.cast_unsigned()),
            slot: row.get::<_, i64>(1)?.cast_unsigned(),
            part: row.get(2)?,
            event,
            refusals,
        })
    })
}

pub(super) fn delete(conn: &Connection, key: &Key) -> Result<()> {
    let sql = "DELETE FROM pending
               WHERE integration = ?1 AND device = ?2 AND session_since = ?3 AND slot = ?4 AND part = ?5";
    let (integration, device, since, slot, part) = key;
    execute(conn, sql, (integration, device, since, slot, part)).map(drop)
}

pub(super) fn size(conn: &Connection, integration: IntegrationId) -> Result<(u64, u64)> {
    let sql = "SELECT coalesce(sum(events), 0), coalesce(sum(bytes), 0) FROM pending_device WHERE integration = ?1";
    let size = one(conn, sql, [integration.0.to_string()], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    Ok(size.unwrap_or_default())
}

/// What waits for each integration that something waits for.
pub(super) fn backlog(conn: &Connection) -> Result<Vec<Backlog>> {
    let sql = "SELECT integration, sum(events), sum(bytes),
                      (SELECT p.written_at FROM pending p WHERE p.integration = d.integration ORDER BY p.n LIMIT 1)
               FROM pending_device d GROUP BY integration";
    let number = |row: &rusqlite::Row<'_>, at| Ok::<_, StoreError>(row.get::<_, i64>(at)?.cast_unsigned());
    all(conn, sql, [], |row| {
        // What the version before put is as old as nobody knows.
        let oldest = match row.get::<_, Option<i64>>(3)? {
            Some(at) if at > 0 => UnixMicros(at.cast_unsigned()),
            _ => words::now(),
        };
        let integration = read_integration(&row.get::<_, String>(0)?)?;
        Ok(Backlog { integration, events: number(row, 1)?, bytes: number(row, 2)?, oldest })
    })
}

/// Which of an integration's oldest events are beyond its bounds: up to and with which `n`, and why. At most
/// [`TRIMMED_AT_ONCE`].
pub(super) fn beyond(
    conn: &Connection,
    integration: IntegrationId,
    bounds: &PendingBounds,
) -> Result<Option<(i64, Trimmed)>> {
    let (events, bytes) = size(conn, integration)?;
    let sql = "SELECT n, written_at, octet_length(body) FROM pending INDEXED BY pending_by_integration
               WHERE integration = ?1 ORDER BY n LIMIT ?2";
    let oldest: Vec<(i64, UnixMicros, u64)> = all(conn, sql, (integration.0.to_string(), TRIMMED_AT_ONCE), |row| {
        let (at, size): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, UnixMicros(at.cast_unsigned()), size.cast_unsigned()))
    })?;
    let beyond = words::beyond(oldest.iter().map(|(_, at, size)| (*at, *size)), (events, bytes), bounds);
    let last = usize::try_from(beyond.events()).unwrap_or(usize::MAX).checked_sub(1).and_then(|last| oldest.get(last));
    Ok(last.map(|(n, ..)| (*n, beyond)))
}

/// Deletes an integration's events up to this one.
pub(super) fn trim(conn: &Connection, integration: IntegrationId, last: i64) -> Result<usize> {
    let sql = "DELETE FROM pending WHERE n IN (
                   SELECT n FROM pending INDEXED BY pending_by_integration
                   WHERE integration = ?1 AND n <= ?2 ORDER BY n LIMIT ?3)";
    execute(conn, sql, (integration.0.to_string(), last, TRIMMED_AT_ONCE))
}
