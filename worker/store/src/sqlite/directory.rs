//! What people provision: rows, parents, lists. Deletions cascade in the schema.

mod devices;
mod people;

use limpet_worker_core::model::NetworkSettings;
use rusqlite::{Connection, Row, ToSql};
use uuid::Uuid;

pub(super) use devices::*;
pub(super) use people::*;

use super::{
    error::{all, execute, one},
    readers::snapshot,
};
use crate::{List, Page, Result, rows::settings, traits::NETWORK_SETTINGS, words};

/// How a kind of thing is listed.
struct Listing {
    /// What is read.
    columns: &'static str,
    from: &'static str,
    /// The column that is searched, and those that order.
    search: &'static str,
    order: &'static str,
}

/// A condition with the value that it compares with; without one it does not hold for the list.
type Filter<'a> = (&'static str, Option<&'a dyn ToSql>);

impl Listing {
    /// Reads the part that was asked for, and counts all that match, in one state of the database.
    fn page<T>(
        &self,
        conn: &Connection,
        list: &List,
        filters: &[Filter<'_>],
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Page<T>> {
        let needle = list.search.to_lowercase();
        let search = format!("instr({}, ?) > 0", self.search);
        let mut conditions = vec!["TRUE"];
        let mut values: Vec<&dyn ToSql> = Vec::new();
        for (condition, value) in filters {
            conditions.push(condition);
            values.extend(*value);
        }
        if !needle.is_empty() {
            conditions.push(&search);
            values.push(&needle);
        }
        let matching = format!("FROM {} WHERE {}", self.from, conditions.join(" AND "));
        snapshot(conn, |conn| {
            let count = one(conn, &format!("SELECT count(*) {matching}"), &*values, |row| Ok(row.get::<_, i64>(0)?))?;
            let total = u32::try_from(count.unwrap_or_default()).unwrap_or(u32::MAX);
            if list.limit == 0 {
                return Ok(Page { total, items: Vec::new() });
            }
            values.extend([&list.limit as &dyn ToSql, &list.offset]);
            let sql = format!("SELECT {} {matching} ORDER BY {} LIMIT ? OFFSET ?", self.columns, self.order);
            Ok(Page { total, items: all(conn, &sql, &*values, read)? })
        })
    }
}

/// The value as a parameter, if there is one.
fn value(of: &Option<String>) -> Option<&dyn ToSql> {
    of.as_ref().map(|value| value as &dyn ToSql)
}

fn text(id: Option<Uuid>) -> Option<String> {
    id.map(|id| id.to_string())
}

fn need_tenant(conn: &Connection, id: Uuid) -> Result<()> {
    let found = one(conn, "SELECT 1 FROM tenant WHERE id = ?1", [id.to_string()], |_| Ok(()))?;
    found.ok_or_else(|| words::missing("tenant", id))
}

/// An insert that left the table as it was met what was there.
fn inserted(changed: usize, what: &str, id: impl std::fmt::Display) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(words::exists(what, id)) }
}

/// An update or deletion that changed nothing found nothing.
fn found(changed: usize, what: &str, id: impl std::fmt::Display) -> Result<()> {
    if changed >= 1 { Ok(()) } else { Err(words::missing(what, id)) }
}

fn found_in_tenant(changed: usize, what: &str, id: impl std::fmt::Display, tenant: Uuid) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(words::missing_in_tenant(what, id, tenant)) }
}

pub(super) fn setting(conn: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    one(conn, "SELECT value FROM setting WHERE name = ?1", [name], |row| Ok(row.get(0)?))
}

pub(super) fn init_setting(conn: &Connection, name: &str, value: Vec<u8>) -> Result<Vec<u8>> {
    let sql = "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
    execute(conn, sql, (name, &value))?;
    Ok(setting(conn, name)?.unwrap_or(value))
}

pub(super) fn replace_network_settings(
    conn: &Connection,
    was: &NetworkSettings,
    next: &NetworkSettings,
) -> Result<bool> {
    if settings::read(setting(conn, NETWORK_SETTINGS)?.as_deref())? != *was {
        return Ok(false);
    }
    let sql =
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    execute(conn, sql, (NETWORK_SETTINGS, settings::write(next)))?;
    super::membership::count_change(conn)?;
    Ok(true)
}
