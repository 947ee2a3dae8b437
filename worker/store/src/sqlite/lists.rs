//! Lists of devices and gateways: what they are read from, and what has changed of them.

use async_trait::async_trait;
use rusqlite::{Connection, Row as SqlRow, ToSql};
use uuid::Uuid;

use super::{
    SqliteStore, directory,
    error::{all, one},
    readers::snapshot,
};
use crate::{
    List, Result,
    lists::{Ask, Changes, Row, Source},
};

/// Kinds as `list_change` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Gateways = 0,
    Devices = 1,
}

/// Which list: all of a kind that stand under these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    kind: Listed,
    tenant: Option<Uuid>,
    application: Option<Uuid>,
    device_profile: Option<Uuid>,
}

impl Scope {
    pub fn of(kind: Listed, list: &List) -> Self {
        let (application, device_profile) = match kind {
            Listed::Gateways => (None, None),
            Listed::Devices => (list.application, list.device_profile),
        };
        Self { kind, tenant: list.tenant, application, device_profile }
    }

    /// What is read of a row, from where, and what it must be.
    fn sql(&self, rest: &str) -> (String, Vec<String>) {
        let (mut sql, owner) = match self.kind {
            Listed::Gateways => ("SELECT eui, name, search FROM gateway WHERE ".to_owned(), "tenant_id = ?"),
            Listed::Devices => (
                "SELECT dev_eui, name, search FROM device WHERE ".to_owned(),
                "application_id IN (SELECT id FROM application WHERE tenant_id = ?)",
            ),
        };
        let narrowed = [
            ("application_id = ?", self.application),
            ("device_profile_id = ?", self.device_profile),
            (owner, self.tenant),
        ];
        let mut values = Vec::new();
        for (condition, value) in narrowed {
            if let Some(value) = value {
                sql = sql + condition + " AND ";
                values.push(value.to_string());
            }
        }
        (sql + rest, values)
    }

    fn identity(&self) -> &'static str {
        match self.kind {
            Listed::Gateways => "eui = ?",
            Listed::Devices => "dev_eui = ?",
        }
    }
}

fn row(row: &SqlRow<'_>) -> Result<Row> {
    Ok(Row { id: row.get(0)?, name: row.get(1)?, search: row.get(2)?, also: String::new() })
}

fn load(conn: &Connection, scope: &Scope) -> Result<(i64, Vec<Row>)> {
    snapshot(conn, |conn| {
        let (sql, values) = scope.sql("TRUE");
        Ok((last(conn)?.1, all(conn, &sql, rusqlite::params_from_iter(values), row)?))
    })
}

/// The first and the last change that is known.
fn last(conn: &Connection) -> Result<(i64, i64)> {
    let first = one(conn, "SELECT min(n) FROM list_change", (), |row| Ok(row.get::<_, Option<i64>>(0)?))?;
    let last = one(conn, "SELECT max(n) FROM list_change", (), |row| Ok(row.get::<_, Option<i64>>(0)?))?;
    Ok((first.flatten().unwrap_or_default(), last.flatten().unwrap_or_default()))
}

fn changes(conn: &Connection, scope: &Scope, mark: i64, most: usize) -> Result<Option<(i64, Changes)>> {
    snapshot(conn, |conn| {
        let (first, last) = last(conn)?;
        if last == mark {
            return Ok(Some((last, Vec::new())));
        }
        // Forgotten, or another history: the folder of another day was put back while nobody looked.
        if first > mark + 1 || last < mark {
            return Ok(None);
        }
        let sql = "SELECT DISTINCT id FROM list_change WHERE n > ?1 AND kind = ?2 LIMIT ?3";
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let ids: Vec<String> = all(conn, sql, (mark, scope.kind as i64, limit), |row| Ok(row.get(0)?))?;
        if ids.len() > most {
            return Ok(None);
        }
        let (sql, values) = scope.sql(scope.identity());
        let now = ids.into_iter().map(|id| {
            let values = values.iter().chain([&id]).map(|value| value as &dyn ToSql);
            let found = one(conn, &sql, rusqlite::params_from_iter(values), row)?;
            Ok((id, found))
        });
        Ok(Some((last, now.collect::<Result<_>>()?)))
    })
}

#[async_trait]
impl Source for SqliteStore {
    type Key = Scope;
    type Mark = i64;

    async fn load(&self, scope: &Scope) -> Result<(i64, Vec<Row>)> {
        let scope = *scope;
        self.readers.read(move |conn| load(conn, &scope)).await
    }
    async fn changes(&self, scope: &Scope, mark: &i64, most: usize) -> Result<Option<(i64, Changes)>> {
        let (scope, mark) = (*scope, *mark);
        self.readers.read(move |conn| changes(conn, &scope, mark, most)).await
    }
}

impl SqliteStore {
    /// How many there are, and the identities of those that were asked for.
    pub(super) async fn listed(&self, kind: Listed, list: &List) -> Result<(u32, Vec<String>)> {
        let (scope, needle) = (Scope::of(kind, list), list.search.to_lowercase());
        // Nothing is held of what does not exist.
        if let Some(profile) = scope.device_profile {
            let known = self.readers.read(move |conn| directory::has_profile(conn, profile, scope.tenant)).await?;
            if !known {
                return Ok((0, Vec::new()));
            }
        }
        let ask = Ask { needle: &needle, keep: None, skip: list.offset as usize, take: list.limit as usize };
        let (total, found) = self.lists.find(self, &format!("{scope:?}"), &scope, &ask).await?;
        Ok((u32::try_from(total).unwrap_or(u32::MAX), found.iter().map(|entry| entry.id.to_string()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Directory;

    #[tokio::test]
    async fn nothing_is_held_of_profiles_that_do_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        for tenant in [None, Some(Uuid::new_v4())] {
            for _ in 0..20 {
                let list = List { tenant, device_profile: Some(Uuid::new_v4()), ..List::default() };
                assert_eq!(store.devices(&list).await.unwrap().total, 0);
            }
        }
        assert_eq!(store.lists.held(), 0);
        store.devices(&List::default()).await.unwrap();
        assert_eq!(store.lists.held(), 1);
    }
}
