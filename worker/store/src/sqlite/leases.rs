//! Leases: who may do for a while what one worker at a time does.

use limpet_shared::UnixMicros;
use rusqlite::Connection;

use tokio::time::Instant;

use super::error::{execute, int, one};
use crate::{Result, lease_ends::LeaseEnds};

pub(super) fn take(
    conn: &Connection,
    ends: &LeaseEnds,
    (name, holder): (&str, &str),
    now: UnixMicros,
    until: UnixMicros,
) -> Result<bool> {
    let sql = "INSERT INTO lease (name, holder, until) VALUES (?1, ?2, ?4)
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
               WHERE holder = excluded.holder OR until <= ?3";
    if execute(conn, sql, (name, holder, int(now.0), int(until.0)))? == 1 {
        return Ok(true);
    }
    let read = "SELECT holder, until FROM lease WHERE name = ?1";
    let other: Option<(String, i64)> = one(conn, read, [name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((other, until_then)) = other else { return Ok(false) };
    if !ends.is_stale((name, holder), &other, until_then, Instant::now()) {
        return Ok(false);
    }
    let over = "UPDATE lease SET holder = ?2, until = ?3 WHERE name = ?1";
    Ok(execute(conn, over, (name, holder, int(until.0)))? == 1)
}
