//! Writing the notes of when devices and gateways were heard, with what else is written then.

use limpet_shared::Eui64;
use limpet_worker_core::model::{DeviceSeen, GatewaySeen};
use rusqlite::Connection;

use super::error::{decode, encode, execute, one};
use crate::{Result, notes::Notes, words};

/// Writes some of what waits.
pub(super) fn write_some(notes: &Notes, conn: &Connection) -> Result<()> {
    let waiting = notes.take_some();
    for (dev_eui, seen) in waiting.devices {
        write_device(conn, dev_eui, seen)?;
    }
    for (eui, seen) in waiting.gateways {
        write_gateway(conn, eui, seen)?;
    }
    Ok(())
}

/// Merges it into what is stored, if the device exists.
pub(super) fn write_device(conn: &Connection, dev_eui: Eui64, seen: DeviceSeen) -> Result<()> {
    let sql = "SELECT s.body IS NOT NULL, s.body FROM device d LEFT JOIN device_seen s USING (dev_eui)
               WHERE d.dev_eui = ?1";
    let key = dev_eui.to_string();
    let known = one(conn, sql, [&key], |row| if row.get(0)? { decode(row, 1) } else { Ok(DeviceSeen::default()) })?;
    let Some(known) = known else { return Ok(()) };
    let body = encode(&words::merge_device(known, seen))?;
    let sql = "INSERT INTO device_seen (dev_eui, body) VALUES (?1, ?2)
               ON CONFLICT (dev_eui) DO UPDATE SET body = excluded.body";
    execute(conn, sql, (key, body)).map(drop)
}

/// Merges it into what is stored, if the gateway exists.
pub(super) fn write_gateway(conn: &Connection, eui: Eui64, seen: GatewaySeen) -> Result<()> {
    let sql = "SELECT s.body IS NOT NULL, s.body FROM gateway g LEFT JOIN gateway_seen s USING (eui)
               WHERE g.eui = ?1";
    let key = eui.to_string();
    let known = one(conn, sql, [&key], |row| if row.get(0)? { decode(row, 1) } else { Ok(GatewaySeen::default()) })?;
    let Some(known) = known else { return Ok(()) };
    let body = encode(&words::merge_gateway(known, seen))?;
    let sql = "INSERT INTO gateway_seen (eui, body) VALUES (?1, ?2)
               ON CONFLICT (eui) DO UPDATE SET body = excluded.body";
    execute(conn, sql, (key, body)).map(drop)
}
