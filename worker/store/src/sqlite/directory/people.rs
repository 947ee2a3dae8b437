//! Tenants, users, API keys, applications, device profiles.

use limpet_worker_core::model::{ApiKey, Application, DeviceProfile, Tenant, User};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Listing, found, found_in_tenant, inserted, need_tenant, text, value};
use crate::{
    List, Page, Result, StoreError,
    sqlite::error::{all, decode, encode, execute, one},
    words,
};

fn body<T: DeserializeOwned>(row: &Row<'_>) -> Result<T> {
    decode(row, 0)
}

fn by_id<T: DeserializeOwned>(conn: &Connection, sql: &str, id: Uuid) -> Result<Option<T>> {
    one(conn, sql, [id.to_string()], body)
}

pub fn create_tenant(conn: &Connection, tenant: &Tenant) -> Result<()> {
    let sql = "INSERT INTO tenant (id, name, search, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING";
    let row = (tenant.id.to_string(), &tenant.name, words::search_text(&tenant.name, None), encode(tenant)?);
    inserted(execute(conn, sql, row)?, "tenant", tenant.id)
}

pub fn tenant(conn: &Connection, id: Uuid) -> Result<Option<Tenant>> {
    by_id(conn, "SELECT body FROM tenant WHERE id = ?1", id)
}

pub fn update_tenant(conn: &Connection, tenant: &Tenant) -> Result<()> {
    let sql = "UPDATE tenant SET name = ?2, search = ?3, body = ?4 WHERE id = ?1";
    let row = (tenant.id.to_string(), &tenant.name, words::search_text(&tenant.name, None), encode(tenant)?);
    found(execute(conn, sql, row)?, "tenant", tenant.id)
}

/// Deletes some devices of a tenant, or of one application: all at once would let uplinks wait for as long as it takes.
pub fn delete_some_devices(conn: &Connection, of: DevicesOf) -> Result<usize> {
    let (condition, id) = match of {
        DevicesOf::Tenant(id) => ("application_id IN (SELECT id FROM application WHERE tenant_id = ?1)", id),
        DevicesOf::Application(id) => ("application_id = ?1", id),
    };
    let some = format!("SELECT dev_eui FROM device WHERE {condition} LIMIT ?2");
    let euis: Vec<String> = all(conn, &some, (id.to_string(), DEVICES_AT_ONCE), |row| Ok(row.get(0)?))?;
    for eui in &euis {
        let eui = eui.parse().map_err(|e| StoreError::Corrupt(format!("a device: {e}")))?;
        super::delete_device(conn, eui)?;
    }
    Ok(euis.len())
}

/// All that are left: some were made since the last look.
fn delete_devices(conn: &Connection, of: DevicesOf) -> Result<()> {
    while delete_some_devices(conn, of)? > 0 {}
    Ok(())
}

/// Whose devices.
#[derive(Clone, Copy)]
pub enum DevicesOf {
    Tenant(Uuid),
    Application(Uuid),
}

/// Devices that one write deletes at most.
pub const DEVICES_AT_ONCE: u32 = 100;

/// Its devices go first: a device holds on to its profile, whatever the order in which the engine cascades.
pub fn delete_tenant(conn: &Connection, id: Uuid) -> Result<()> {
    delete_devices(conn, DevicesOf::Tenant(id))?;
    execute(conn, "DELETE FROM application WHERE tenant_id = ?1", [id.to_string()])?;
    found(execute(conn, "DELETE FROM tenant WHERE id = ?1", [id.to_string()])?, "tenant", id)
}

pub fn tenants(conn: &Connection, list: &List) -> Result<Page<Tenant>> {
    let listing = Listing { columns: "body", from: "tenant", search: "search", order: "name, id" };
    listing.page(conn, list, &filters("id = ?", value(&text(list.tenant))), body)
}

/// The condition, if there is a value for it.
fn filters<'a>(condition: &'static str, value: Option<&'a dyn rusqlite::ToSql>) -> Vec<super::Filter<'a>> {
    value.map(|value| (condition, Some(value))).into_iter().collect()
}

pub fn create_user(conn: &Connection, user: &User) -> Result<()> {
    if by_id::<User>(conn, USER_BY_ID, user.id)?.is_some() {
        return Err(words::exists("user", user.id));
    }
    let sql = "INSERT INTO user (id, email, email_key, search, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (email_key) DO NOTHING";
    let (key, search) = (words::email_key(&user.email), words::search_text(&user.email, None));
    let row = (user.id.to_string(), &user.email, key, search, encode(user)?);
    inserted(execute(conn, sql, row)?, "user", &user.email)
}

const USER_BY_ID: &str = "SELECT body FROM user WHERE id = ?1";

pub fn user(conn: &Connection, id: Uuid) -> Result<Option<User>> {
    by_id(conn, USER_BY_ID, id)
}

pub fn user_by_email(conn: &Connection, email: &str) -> Result<Option<User>> {
    one(conn, "SELECT body FROM user WHERE email_key = ?1", [words::email_key(email)], body)
}

pub fn update_user(conn: &Connection, was: &User, user: &User) -> Result<bool> {
    let Some(now) = by_id::<User>(conn, USER_BY_ID, user.id)? else {
        return Err(words::missing("user", user.id));
    };
    if now != *was {
        return Ok(false);
    }
    let sql = "UPDATE OR IGNORE user SET email = ?2, email_key = ?3, search = ?4, body = ?5 WHERE id = ?1";
    let (key, search) = (words::email_key(&user.email), words::search_text(&user.email, None));
    let row = (user.id.to_string(), &user.email, key, search, encode(user)?);
    inserted(execute(conn, sql, row)?, "user", &user.email)?;
    Ok(true)
}

pub fn delete_user(conn: &Connection, id: Uuid) -> Result<()> {
    found(execute(conn, "DELETE FROM user WHERE id = ?1", [id.to_string()])?, "user", id)
}

pub fn users(conn: &Connection, list: &List) -> Result<Page<User>> {
    let listing = Listing { columns: "body", from: "user", search: "search", order: "email, id" };
    listing.page(conn, list, &[], body)
}

pub fn create_api_key(conn: &Connection, key: &ApiKey) -> Result<()> {
    if let Some(tenant) = key.tenant_id {
        need_tenant(conn, tenant)?;
    }
    let sql = "INSERT INTO api_key (id, tenant_id, name, search, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (id) DO NOTHING";
    let search = words::search_text(&key.name, None);
    let row = (key.id.to_string(), text(key.tenant_id), &key.name, search, encode(key)?);
    inserted(execute(conn, sql, row)?, "API key", key.id)
}

pub fn api_key(conn: &Connection, id: Uuid) -> Result<Option<ApiKey>> {
    by_id(conn, "SELECT body FROM api_key WHERE id = ?1", id)
}

pub fn delete_api_key(conn: &Connection, id: Uuid) -> Result<()> {
    found(execute(conn, "DELETE FROM api_key WHERE id = ?1", [id.to_string()])?, "API key", id)
}

pub fn api_keys(conn: &Connection, admin: bool, list: &List) -> Result<Page<ApiKey>> {
    let listing = Listing { columns: "body", from: "api_key", search: "search", order: "name, id" };
    if admin {
        return listing.page(conn, list, &[("tenant_id IS NULL", None)], body);
    }
    // Nothing equals NULL: no tenant, no keys.
    listing.page(conn, list, &[("tenant_id = ?", Some(&text(list.tenant)))], body)
}

pub fn create_application(conn: &Connection, application: &Application) -> Result<()> {
    need_tenant(conn, application.tenant_id)?;
    let sql = "INSERT INTO application (id, tenant_id, name, search, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (id) DO NOTHING";
    inserted(execute(conn, sql, application_row(application)?)?, "application", application.id)
}

fn application_row(application: &Application) -> Result<(String, String, &str, String, String)> {
    let search = words::search_text(&application.name, None);
    let (id, tenant) = (application.id.to_string(), application.tenant_id.to_string());
    Ok((id, tenant, &application.name, search, encode(application)?))
}

pub fn application(conn: &Connection, id: Uuid) -> Result<Option<Application>> {
    by_id(conn, "SELECT body FROM application WHERE id = ?1", id)
}

pub fn update_application(conn: &Connection, application: &Application) -> Result<()> {
    let sql = "UPDATE application SET name = ?3, search = ?4, body = ?5 WHERE id = ?1 AND tenant_id = ?2";
    let changed = execute(conn, sql, application_row(application)?)?;
    found_in_tenant(changed, "application", application.id, application.tenant_id)
}

pub fn delete_application(conn: &Connection, id: Uuid) -> Result<()> {
    delete_devices(conn, DevicesOf::Application(id))?;
    found(execute(conn, "DELETE FROM application WHERE id = ?1", [id.to_string()])?, "application", id)
}

pub fn applications(conn: &Connection, list: &List) -> Result<Page<Application>> {
    let listing = Listing { columns: "body", from: "application", search: "search", order: "name, id" };
    listing.page(conn, list, &filters("tenant_id = ?", value(&text(list.tenant))), body)
}

pub fn create_device_profile(conn: &Connection, profile: &DeviceProfile) -> Result<()> {
    need_tenant(conn, profile.tenant_id)?;
    let sql = "INSERT INTO device_profile (id, tenant_id, name, search, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (id) DO NOTHING";
    inserted(execute(conn, sql, profile_row(profile)?)?, "device profile", profile.id)
}

fn profile_row(profile: &DeviceProfile) -> Result<(String, String, &str, String, String)> {
    let search = words::search_text(&profile.name, None);
    Ok((profile.id.to_string(), profile.tenant_id.to_string(), &profile.name, search, encode(profile)?))
}

pub fn device_profile(conn: &Connection, id: Uuid) -> Result<Option<DeviceProfile>> {
    by_id(conn, "SELECT body FROM device_profile WHERE id = ?1", id)
}

pub fn update_device_profile(conn: &Connection, profile: &DeviceProfile) -> Result<()> {
    let sql = "UPDATE device_profile SET name = ?3, search = ?4, body = ?5 WHERE id = ?1 AND tenant_id = ?2";
    let changed = execute(conn, sql, profile_row(profile)?)?;
    found_in_tenant(changed, "device profile", profile.id, profile.tenant_id)
}

pub fn delete_device_profile(conn: &Connection, id: Uuid) -> Result<()> {
    let key = id.to_string();
    let users = "SELECT dev_eui FROM device WHERE device_profile_id = ?1 ORDER BY dev_eui LIMIT ?2";
    let some: Vec<String> = all(conn, users, (&key, words::NAMED_DEVICES as u32), |row| Ok(row.get(0)?))?;
    if !some.is_empty() {
        let count = "SELECT count(*) FROM device WHERE device_profile_id = ?1";
        let total = one(conn, count, [&key], |row| Ok(row.get(0)?))?;
        return Err(words::profile_in_use(id, &some, total.unwrap_or_default()));
    }
    found(execute(conn, "DELETE FROM device_profile WHERE id = ?1", [key])?, "device profile", id)
}

pub fn device_profiles(conn: &Connection, list: &List) -> Result<Page<DeviceProfile>> {
    let listing = Listing { columns: "body", from: "device_profile", search: "search", order: "name, id" };
    listing.page(conn, list, &filters("tenant_id = ?", value(&text(list.tenant))), body)
}
