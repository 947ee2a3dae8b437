//! When devices and gateways were heard last. Nothing waits for it and only the latest counts, so it is gathered here
//! and written a few times a second, with what else is written then. A crash loses the last of it.

use std::{collections::BTreeMap, mem};

use limpet_shared::Eui64;
use limpet_worker_core::model::{DeviceSeen, GatewaySeen};
use parking_lot::Mutex;
use rusqlite::Connection;

use super::error::{decode, encode, execute, one};
use crate::{Result, words};

/// Devices and gateways whose notes may wait. Beyond that a note is written at once, and its writer waits.
const HELD: usize = 16_384;

/// How many are written in one go, so that other writes need not wait for them.
const AT_ONCE: usize = 500;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Notes {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    devices: BTreeMap<Eui64, DeviceSeen>,
    gateways: BTreeMap<Eui64, GatewaySeen>,
}

impl Notes {
    /// False if there is no room for it.
    pub fn note_device(&self, dev_eui: Eui64, seen: &DeviceSeen) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.devices.len() >= HELD && !waiting.devices.contains_key(&dev_eui) {
            return false;
        }
        let known = waiting.devices.entry(dev_eui).or_default();
        *known = words::merge_device(mem::take(known), seen.clone());
        true
    }

    /// False if there is no room for it.
    pub fn note_gateway(&self, eui: Eui64, seen: &GatewaySeen) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.gateways.len() >= HELD && !waiting.gateways.contains_key(&eui) {
            return false;
        }
        let known = waiting.gateways.entry(eui).or_default();
        *known = words::merge_gateway(mem::take(known), seen.clone());
        true
    }

    pub fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.devices.is_empty() && waiting.gateways.is_empty()
    }

    /// Writes some of what waits. What cannot be written is gone: the next note brings it again.
    pub fn write_some(&self, conn: &Connection) -> Result<()> {
        let (devices, gateways) = {
            let mut waiting = self.waiting.lock();
            (take_some(&mut waiting.devices), take_some(&mut waiting.gateways))
        };
        for (dev_eui, seen) in devices {
            write_device(conn, dev_eui, seen)?;
        }
        for (eui, seen) in gateways {
            write_gateway(conn, eui, seen)?;
        }
        Ok(())
    }
}

fn take_some<T>(waiting: &mut BTreeMap<Eui64, T>) -> BTreeMap<Eui64, T> {
    let rest = waiting.keys().nth(AT_ONCE).copied();
    let rest = rest.map(|from| waiting.split_off(&from)).unwrap_or_default();
    mem::replace(waiting, rest)
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
