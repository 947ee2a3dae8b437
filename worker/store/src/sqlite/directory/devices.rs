//! Devices and gateways, with what was noted of them.

use limpet_shared::{AesKey, Eui64, UnixMicros};
use limpet_worker_core::model::{Device, DeviceContext, DeviceSeen, Gateway, GatewaySeen, Location, Tenant};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{application, found, found_in_tenant, inserted, need_tenant, tenant};
use crate::{
    GatewayChanges, GatewayTags, Result, StoreError, Totals, counted,
    sqlite::{
        error::{all, check_wrap, decode, encode, execute, int, one},
        readers::snapshot,
        sessions,
    },
    words,
};

/// Joined with its notes.
const GATEWAY: &str = "g.body, s.body";
const GATEWAY_FROM: &str = "gateway g LEFT JOIN gateway_seen s USING (eui)";

/// Joined with its notes.
const DEVICE: &str = "d.body, d.key_wrap, d.app_key, s.body";
const DEVICE_FROM: &str = "device d LEFT JOIN device_seen s USING (dev_eui)";

/// What column `at` holds, if anything was noted.
fn seen<T: DeserializeOwned + Default>(row: &Row<'_>, at: usize) -> Result<T> {
    if row.get_ref(at)? == rusqlite::types::ValueRef::Null { Ok(T::default()) } else { decode(row, at) }
}

fn gateway_row(row: &Row<'_>) -> Result<(Gateway, GatewaySeen)> {
    Ok((decode(row, 0)?, seen(row, 1)?))
}

/// The first three columns of [`DEVICE`]. The key stands apart from the rest, so that no update can touch it.
fn device_only(row: &Row<'_>) -> Result<Device> {
    check_wrap(row, 1)?;
    let key: Option<String> = row.get(2)?;
    let key = key.map(|hex| hex.parse::<AesKey>()).transpose().map_err(|e| StoreError::Corrupt(e.to_string()))?;
    Ok(Device { app_key: key, ..decode(row, 0)? })
}

fn device_row(row: &Row<'_>) -> Result<(Device, DeviceSeen)> {
    Ok((device_only(row)?, seen(row, 3)?))
}

/// Whether its tenant may have one more. An import does not ask.
pub fn need_room_for_gateway(conn: &Connection, gateway: &Gateway) -> Result<()> {
    let Some(tenant) = tenant(conn, gateway.tenant_id)? else { return Ok(()) };
    need_room(conn, &tenant, tenant.max_gateway_count, "gateways", "gateway WHERE tenant_id = ?1")
}

/// As [`need_room_for_gateway`].
pub fn need_room_for_device(conn: &Connection, device: &Device) -> Result<()> {
    let Some(application) = application(conn, device.application_id)? else { return Ok(()) };
    let Some(tenant) = tenant(conn, application.tenant_id)? else { return Ok(()) };
    let of = "device WHERE application_id IN (SELECT id FROM application WHERE tenant_id = ?1)";
    need_room(conn, &tenant, tenant.max_device_count, "devices", of)
}

/// Counts no further than it must: up to `most`, which is 0 for any number.
fn need_room(conn: &Connection, tenant: &Tenant, most: u32, things: &str, of: &str) -> Result<()> {
    if most == 0 {
        return Ok(());
    }
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {of} LIMIT ?2)");
    let has: Option<u32> = one(conn, &sql, (tenant.id.to_string(), most), |row| Ok(row.get(0)?))?;
    if has.unwrap_or_default() < most { Ok(()) } else { Err(words::as_many_as_it_may(tenant, most, things)) }
}

pub fn create_gateway(conn: &Connection, gateway: &Gateway) -> Result<()> {
    need_tenant(conn, gateway.tenant_id)?;
    let sql = "INSERT INTO gateway (eui, tenant_id, name, search, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (eui) DO NOTHING";
    inserted(execute(conn, sql, gateway_columns(gateway)?)?, "gateway", gateway.eui)
}

fn gateway_columns(gateway: &Gateway) -> Result<(String, String, &str, String, String)> {
    let eui = gateway.eui.to_string();
    let finite =
        |l: &Location| [l.latitude, l.longitude, l.altitude, f64::from(l.accuracy)].iter().all(|n| n.is_finite());
    if !gateway.location.as_ref().is_none_or(finite) {
        // JSON has no word for it, and a row that cannot be read would break every list.
        return Err(StoreError::Corrupt(format!("gateway {eui}: its location is not made of numbers")));
    }
    let search = words::search_text(&gateway.name, Some(&eui));
    Ok((eui, gateway.tenant_id.to_string(), &gateway.name, search, encode(gateway)?))
}

pub fn gateway(conn: &Connection, eui: Eui64) -> Result<Option<(Gateway, GatewaySeen)>> {
    one(conn, &format!("SELECT {GATEWAY} FROM {GATEWAY_FROM} WHERE eui = ?1"), [eui.to_string()], gateway_row)
}

pub fn update_gateway(conn: &Connection, gateway: &Gateway) -> Result<()> {
    let sql = "UPDATE gateway SET name = ?3, search = ?4, body = ?5 WHERE eui = ?1 AND tenant_id = ?2";
    let changed = execute(conn, sql, gateway_columns(gateway)?)?;
    found_in_tenant(changed, "gateway", gateway.eui, gateway.tenant_id)
}

pub fn delete_gateway(conn: &Connection, eui: Eui64) -> Result<()> {
    found(execute(conn, "DELETE FROM gateway WHERE eui = ?1", [eui.to_string()])?, "gateway", eui)
}

/// Those of them that are there, in this order.
pub fn gateways(conn: &Connection, euis: &[String]) -> Result<Vec<(Gateway, GatewaySeen)>> {
    let sql = format!("SELECT {GATEWAY} FROM {GATEWAY_FROM} WHERE eui = ?1");
    each(conn, euis, |eui| one(conn, &sql, [eui], gateway_row))
}

/// How much there is in the whole network.
pub fn totals(conn: &Connection, now: UnixMicros) -> Result<Totals> {
    snapshot(conn, |conn| {
        let count = |table: &str| {
            let found = one(conn, &format!("SELECT count(*) FROM {table}"), (), |row| Ok(row.get::<_, i64>(0)?))?;
            Ok::<_, StoreError>(found.unwrap_or_default().cast_unsigned())
        };
        let (applications, devices) = (count("application")?, count("device")?);
        let mut totals = Totals { applications, devices, ..Totals::default() };
        for (gateway, seen) in all(conn, &format!("SELECT {GATEWAY} FROM {GATEWAY_FROM}"), (), gateway_row)? {
            totals.add_gateway(&gateway, seen.last_seen_at, now);
        }
        Ok(totals)
    })
}

/// Whether there is such a profile; of this tenant, if one is named.
pub fn has_profile(conn: &Connection, id: Uuid, tenant: Option<Uuid>) -> Result<bool> {
    let sql = "SELECT 1 FROM device_profile WHERE id = ?1 AND (?2 IS NULL OR tenant_id = ?2)";
    Ok(one(conn, sql, (id.to_string(), tenant.map(|id| id.to_string())), |_| Ok(()))?.is_some())
}

/// What is found of each, in one state of the database.
fn each<T>(conn: &Connection, ids: &[String], find: impl Fn(&String) -> Result<Option<T>>) -> Result<Vec<T>> {
    snapshot(conn, |_| ids.iter().filter_map(|id| find(id).transpose()).collect())
}

pub fn gateway_set(conn: &Connection) -> Result<(u64, Vec<Eui64>)> {
    snapshot(conn, |conn| {
        let set = all(conn, "SELECT eui FROM gateway ORDER BY eui", (), |row| {
            row.get::<_, String>(0)?.parse().map_err(|e| StoreError::Corrupt(format!("a gateway: {e}")))
        })?;
        Ok((gateway_set_version(conn)?, set))
    })
}

pub fn gateway_set_version(conn: &Connection) -> Result<u64> {
    let version = one(conn, "SELECT version FROM gateway_set", (), |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?;
    version.ok_or_else(|| StoreError::Corrupt("the version of the gateway set is gone".into()))
}

pub fn gateway_tags(conn: &Connection, tag: &str) -> Result<(u64, GatewayTags)> {
    let tag_of = |row: &Row<'_>| {
        let gateway: Gateway = decode(row, 0)?;
        Ok((gateway.eui, gateway.tags.get(tag).cloned()))
    };
    snapshot(conn, |conn| Ok((gateway_set_version(conn)?, all(conn, "SELECT body FROM gateway", (), tag_of)?)))
}

/// Triggers count a version and write down a change for each gateway that is touched, so that the last so many changes are those
/// of the last so many versions.
pub fn gateway_changes(conn: &Connection, since: u64) -> Result<GatewayChanges> {
    snapshot(conn, |conn| {
        let version = gateway_set_version(conn)?;
        let jumped = counted::read(super::setting(conn, counted::GATEWAY_SET_JUMPED)?.as_deref())?;
        let Some(wanted) = version.checked_sub(since).filter(|_| since >= jumped) else {
            return Ok(GatewayChanges { version, changed: None });
        };
        if wanted == 0 {
            return Ok(GatewayChanges { version, changed: Some(Vec::new()) });
        }
        let sql = "SELECT id FROM list_change WHERE kind = 0 ORDER BY n DESC LIMIT ?1";
        let euis: Vec<Eui64> = all(conn, sql, [int(wanted)], |row| {
            row.get::<_, String>(0)?.parse().map_err(|e| StoreError::Corrupt(format!("a gateway: {e}")))
        })?;
        let whole = euis.len() as u64 == wanted;
        let numbered = (since + 1..=version).zip(euis.into_iter().rev());
        Ok(GatewayChanges { version, changed: whole.then(|| numbered.collect()) })
    })
}

pub fn raise_gateway_set_version(conn: &Connection, least: u64) -> Result<()> {
    let raised = execute(conn, "UPDATE gateway_set SET version = ?1 WHERE version < ?1", [int(least)])?;
    if raised == 0 { Ok(()) } else { note_jump(conn, least) }
}

/// The version has not come to this number by changes: who knows a lower one knows nothing of what changed since, for it may be of
/// another history.
pub fn note_jump(conn: &Connection, version: u64) -> Result<()> {
    let sql =
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    execute(conn, sql, (counted::GATEWAY_SET_JUMPED, version.to_be_bytes().to_vec())).map(drop)
}

/// Application and profile must exist, and belong to one tenant: else deleting that tenant would leave half a device.
fn need_parents(conn: &Connection, device: &Device) -> Result<()> {
    let (application, profile) = (device.application_id, device.device_profile_id);
    let id = |row: &Row<'_>| Ok(row.get::<_, String>(0)?);
    let tenant = one(conn, "SELECT tenant_id FROM application WHERE id = ?1", [application.to_string()], id)?;
    let tenant = tenant.ok_or_else(|| words::missing("application", application))?;
    let sql = "SELECT id FROM device_profile WHERE id = ?1 AND tenant_id = ?2";
    match one(conn, sql, (profile.to_string(), &tenant), id)? {
        Some(_) => Ok(()),
        None => Err(words::missing_in_tenant("device profile", profile, tenant.parse::<Uuid>().unwrap_or_default())),
    }
}

/// Columns 1 to 6: all but the key.
fn device_columns(device: &Device) -> Result<(String, String, String, &str, String, String)> {
    let eui = device.dev_eui.to_string();
    let search = words::search_text(&device.name, Some(&eui));
    let body = encode(&Device { app_key: None, ..device.clone() })?;
    let (application, profile) = (device.application_id.to_string(), device.device_profile_id.to_string());
    Ok((eui, application, profile, &device.name, search, body))
}

pub fn create_device(conn: &Connection, device: &Device) -> Result<()> {
    need_parents(conn, device)?;
    let sql = "INSERT INTO device (dev_eui, application_id, device_profile_id, name, search, body)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (dev_eui) DO NOTHING";
    inserted(execute(conn, sql, device_columns(device)?)?, "device", device.dev_eui)?;
    set_app_key(conn, device.dev_eui, device.app_key)
}

pub fn device(conn: &Connection, dev_eui: Eui64) -> Result<Option<(Device, DeviceSeen)>> {
    one(conn, &format!("SELECT {DEVICE} FROM {DEVICE_FROM} WHERE dev_eui = ?1"), [dev_eui.to_string()], device_row)
}

pub fn update_device(conn: &Connection, device: &Device) -> Result<()> {
    let known = one(conn, "SELECT 1 FROM device WHERE dev_eui = ?1", [device.dev_eui.to_string()], |_| Ok(()))?;
    known.ok_or_else(|| words::missing("device", device.dev_eui))?;
    need_parents(conn, device)?;
    let sql = "UPDATE device SET application_id = ?2, device_profile_id = ?3, name = ?4, search = ?5, body = ?6
               WHERE dev_eui = ?1";
    found(execute(conn, sql, device_columns(device)?)?, "device", device.dev_eui)
}

pub fn set_app_key(conn: &Connection, dev_eui: Eui64, key: Option<AesKey>) -> Result<()> {
    let sql = "UPDATE device SET app_key = ?2, key_wrap = 0 WHERE dev_eui = ?1";
    found(execute(conn, sql, (dev_eui.to_string(), key.map(|key| key.to_hex())))?, "device", dev_eui)
}

/// A trigger takes along what belongs to it; what must outlive it is put back.
pub fn delete_device(conn: &Connection, dev_eui: Eui64) -> Result<()> {
    let ended = sessions::device_state(conn, dev_eui)?.ended(&sessions::of_device(conn, dev_eui)?);
    found(execute(conn, "DELETE FROM device WHERE dev_eui = ?1", [dev_eui.to_string()])?, "device", dev_eui)?;
    if ended.is_unused() { Ok(()) } else { sessions::put_state(conn, &ended) }
}

/// Those of them that are there, in this order.
pub fn devices(conn: &Connection, euis: &[String]) -> Result<Vec<(Device, DeviceSeen)>> {
    let sql = format!("SELECT {DEVICE} FROM {DEVICE_FROM} WHERE dev_eui = ?1");
    each(conn, euis, |eui| one(conn, &sql, [eui], device_row))
}

pub fn device_context(conn: &Connection, dev_eui: Eui64) -> Result<Option<DeviceContext>> {
    let sql = "SELECT d.body, d.key_wrap, d.app_key, p.body, a.body, t.name FROM device d
               JOIN device_profile p ON p.id = d.device_profile_id
               JOIN application a ON a.id = d.application_id
               JOIN tenant t ON t.id = a.tenant_id
               WHERE d.dev_eui = ?1";
    one(conn, sql, [dev_eui.to_string()], |row| {
        Ok(DeviceContext {
            device: device_only(row)?,
            profile: decode(row, 3)?,
            application: decode(row, 4)?,
            tenant_name: row.get(5)?,
        })
    })
}
