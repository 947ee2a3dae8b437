//! Leases: who may do for a while what one worker at a time does.

use limpet_shared::UnixMicros;
use rusqlite::Connection;

use super::error::{execute, int};
use crate::Result;

pub(super) fn take(conn: &Connection, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
    let sql = "INSERT INTO lease (name, holder, until) VALUES (?1, ?2, ?4)
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
               WHERE holder = excluded.holder OR until <= ?3";
    Ok(execute(conn, sql, (name, holder, int(now.0), int(until.0)))? == 1)
}
