//! Receptions, by their keys.

use limpet_shared::UnixMicros;
use limpet_worker_core::model::{DedupKey, Reception};
use rusqlite::Connection;

use super::error::{all, decode_row, execute, int};
use crate::{MOST_COPIES, Result, StoreError, rows::Body, words::readable};

/// How many rows one write deletes at most: others wait for it.
pub(super) const DELETED_AT_ONCE: u32 = 500;

fn key_of(blob: &[u8]) -> Result<DedupKey> {
    let bytes = blob.try_into().map_err(|_| StoreError::Corrupt("a deduplication key is not of 16 bytes".into()))?;
    Ok(DedupKey(u128::from_be_bytes(bytes)))
}

/// `body` is the reception encoded.
pub(super) fn put(conn: &Connection, reception: &Reception, body: &Body) -> Result<()> {
    let sql = "INSERT INTO reception (key, gateway, context, received_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (key, gateway, context) DO NOTHING";
    let (gateway, context) = (reception.gateway.to_string(), reception.context.cast_signed());
    execute(conn, sql, (reception.key.0.to_be_bytes(), gateway, context, int(reception.received_at.0), body)).map(drop)
}

pub(super) fn of_key(conn: &Connection, key: DedupKey) -> Result<Vec<Reception>> {
    let sql = "SELECT body FROM reception WHERE key = ?1 ORDER BY received_at DESC LIMIT ?2";
    let rows = all(conn, sql, (key.0.to_be_bytes(), MOST_COPIES as u32), |row| Ok(decode_row(row, 0)))?;
    let mut found: Vec<Reception> = readable(rows)?;
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
