//! The tables and their versions. Migrations only add, so that versions N and N+1 of Limpet run side by side.

use std::time::Duration;

use limpet_shared::UnixMicros;

use super::{
    db::{Db, How},
    url::{CqlUrl, Replication},
};
use crate::OpenError;

/// Each has the version that it leads to, a name for people, and its statements.
const STEPS: [(i32, &str, &str); 2] =
    [(1, "the cluster", include_str!("schema/1.cql")), (2, "lists that are followed", include_str!("schema/2.cql"))];

/// The schema that this version writes. It also runs on the next one, so that a rolling upgrade can migrate first.
pub(super) const VERSION: i32 = STEPS[STEPS.len() - 1].0;

/// One server at a time makes or changes tables; a dead one's turn ends by itself.
const LEASE: &str = "migrate";
const LEASE_FOR: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_millis(500);
const PATIENCE: u32 = 240;

/// Makes the tables of a new network. An older schema is left to `limpet ctl migrate`; a newer one may be one step ahead.
pub(super) async fn check_or_make(db: &Db, url: &CqlUrl) -> Result<(), OpenError> {
    match version(db).await? {
        Some((found, name)) if found > VERSION + 1 => {
            Err(OpenError::CqlSchemaTooNew { keyspace: url.keyspace.clone(), found, name, known: VERSION })
        }
        Some((found, _)) if found < VERSION => {
            Err(OpenError::CqlSchemaTooOld { keyspace: url.keyspace.clone(), found, known: VERSION })
        }
        Some(_) => Ok(()),
        None => migrate(db, url).await.map(drop),
    }
}

/// Brings the keyspace to [`VERSION`]. Returns the version it had (0: none) and the one it has.
pub(super) async fn migrate(db: &Db, url: &CqlUrl) -> Result<(i32, i32), OpenError> {
    make_keyspace(db, url).await?;
    for table in [
        "CREATE TABLE IF NOT EXISTS $.migration_lease (name text PRIMARY KEY, holder uuid, until bigint)",
        "CREATE TABLE IF NOT EXISTS $.schema_version (id int, version int, name text, applied_at bigint, PRIMARY KEY (id, version))",
    ] {
        db.define(table).await?;
    }
    let turn = Turn::take(db).await?;
    let found = version(db).await?.map_or(0, |(version, _)| version);
    let done = step_up(db, found).await;
    turn.give_back(db).await;
    done.map(|()| (found, found.max(VERSION)))
}

async fn step_up(db: &Db, found: i32) -> Result<(), OpenError> {
    let note = "INSERT INTO $.schema_version (id, version, name, applied_at) VALUES (0, ?, ?, ?)";
    for (version, name, statements) in STEPS.into_iter().filter(|(version, ..)| *version > found) {
        for statement in tables(statements) {
            db.define(&statement).await?;
        }
        let note = db.prepare(How::Write, note).await?;
        let at = now().0.cast_signed();
        db.write(&note, (version, name, at)).await.map_err(|e| failed(&e))?;
        tracing::info!(version, name, "migrated the store");
    }
    Ok(())
}

/// The statements of a step, each of which may be run again after a migration that was broken off.
fn tables(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let statements = text.split(';').map(str::trim).filter(|s| !s.is_empty());
    statements.map(|s| s.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS $.", 1)).collect()
}

async fn make_keyspace(db: &Db, url: &CqlUrl) -> Result<(), OpenError> {
    let state = db.session.get_cluster_state();
    if state.get_keyspace(&url.keyspace).is_some() {
        return Ok(());
    }
    let replication = match &url.replication {
        Replication::PerDatacenter(copies) => copies.iter().map(|(dc, n)| format!(", '{dc}': {n}")).collect(),
        Replication::Unsaid => {
            let copies = if state.get_nodes_info().len() >= 3 { 3 } else { 1 };
            tracing::info!(copies, "the keyspace is made; ?replication=DATACENTER:COPIES says otherwise");
            format!(", 'replication_factor': {copies}")
        }
    };
    db.define(&format!(
        "CREATE KEYSPACE IF NOT EXISTS $ WITH replication = {{'class': 'NetworkTopologyStrategy'{replication}}}"
    ))
    .await
}

/// The highest version that was reached, with its name; `None` in a keyspace without our tables.
async fn version(db: &Db) -> Result<Option<(i32, String)>, OpenError> {
    // Not prepared against our table: it may not be there.
    let known = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_version'";
    let known = db.prepare(How::Scan, known).await?;
    let found: Option<(String,)> = db.row(&known, (&db.keyspace,)).await.map_err(|e| failed(&e))?;
    if found.is_none() {
        return Ok(None);
    }
    let highest = "SELECT version, name FROM $.schema_version WHERE id = 0 ORDER BY version DESC LIMIT 1";
    let highest = db.prepare(How::Read, highest).await?;
    db.row(&highest, ()).await.map_err(|e| failed(&e))
}

fn failed(error: &crate::StoreError) -> OpenError {
    OpenError::Cql { what: "its schema", why: error.to_string() }
}

fn now() -> UnixMicros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The turn to change tables.
struct Turn {
    holder: uuid::Uuid,
}

impl Turn {
    async fn take(db: &Db) -> Result<Self, OpenError> {
        let holder = uuid::Uuid::new_v4();
        let first = "INSERT INTO $.migration_lease (name, holder, until) VALUES (?, ?, ?) IF NOT EXISTS";
        let after = "UPDATE $.migration_lease SET holder = ?, until = ? WHERE name = ? IF until < ?";
        let (first, after) = (db.prepare(How::Cas, first).await?, db.prepare(How::Cas, after).await?);
        for _ in 0..PATIENCE {
            let (now, until) = (now().0.cast_signed(), (now() + LEASE_FOR).0.cast_signed());
            // An unknown outcome is asked for again: whoever has it then, has it for a minute at most.
            if db.cas(&first, (LEASE, holder, until)).await.unwrap_or(false)
                || db.cas(&after, (holder, until, LEASE, now)).await.unwrap_or(false)
            {
                return Ok(Self { holder });
            }
            tokio::time::sleep(WAIT).await;
        }
        Err(OpenError::Cql { what: "its schema", why: "another server has been changing it for two minutes".into() })
    }

    async fn give_back(self, db: &Db) {
        let end = "UPDATE $.migration_lease SET until = 0 WHERE name = ? IF holder = ?";
        if let Ok(end) = db.prepare(How::Cas, end).await
            && let Err(error) = db.cas(&end, (LEASE, self.holder)).await
        {
            tracing::debug!(%error, "the turn to change tables ends by itself");
        }
    }
}
