//! The tables and their versions. Migrations only add, so that versions N and N+1 of Limpet run side by side.

use std::{sync::atomic::Ordering, time::Duration};

use limpet_shared::admin::Server;

use super::{
    datacenters,
    db::{Db, How},
    json::decode,
    url::{CqlUrl, Replication},
};
use crate::{Finish, Migrated, OpenError, StoreError, moving, words::now};

/// The version that it leads to, a name for people, and its statements.
type Step = (i32, &'static str, &'static str);
const STEPS: [Step; 5] = [
    (1, "the cluster", include_str!("schema/1.cql")),
    (2, "lists that are followed", include_str!("schema/2.cql")),
    (3, "what waits is known", include_str!("schema/3.cql")),
    (4, "rows of two forms are read", include_str!("schema/4.cql")),
    (5, "rows are compact", ""),
];

/// Tables that were made with a longer time for which what is deleted stays: it is walked by every look for what waits.
const PURGED_SOONER: [(&str, u32); 2] = [("pending", 10_800), ("pending_device", 600)];

/// The schema that this version needs.
const VERSION: i32 = 4;
/// The last that it makes, from which on the version before does not run. It also runs on the next one, so that a rolling upgrade
/// can migrate first.
const LAST: i32 = STEPS[STEPS.len() - 1].0;
/// From here on rows are written in the compact form.
const COMPACT: i32 = 5;

/// One server at a time makes or changes tables; a dead one's turn ends by itself.
const LEASE: &str = "migrate";
const LEASE_FOR: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_millis(500);
const PATIENCE: u32 = 240;
const TOO_LONG: &str = "another server has been changing it for two minutes";
/// Writes that are not answered: a new keyspace may not be ready everywhere, and one that was in time may have got the turn.
const FAILURES: u32 = 40;

const TABLES_OF_MIGRATION: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS $.migration_lease (name text PRIMARY KEY, holder uuid, until bigint)",
    "CREATE TABLE IF NOT EXISTS $.schema_version (id int, version int, name text, applied_at bigint, PRIMARY KEY (id, version))",
];

/// Tables with conditional writes, each with a partition that is not there.
const CONDITIONAL: [(&str, &str); 15] = [
    ("setting", "id = '-'"),
    ("tenant", "id = '-'"),
    ("account", "id = '-'"),
    ("account_email", "id = '-'"),
    ("api_key", "id = '-'"),
    ("application", "id = '-'"),
    ("device_profile", "id = '-'"),
    ("gateway", "id = '-'"),
    ("device", "id = '-'"),
    ("revoked_server", "id = '-'"),
    ("join_token", "id = '-'"),
    ("session", "dev_addr = -1"),
    ("device_state", "dev_eui = '-'"),
    ("downlink_queue", "dev_eui = '-'"),
    ("lease", "name = '-'"),
];

/// Makes the tables of a new network. An older schema is left to `limpet ctl migrate`; a newer one may be one step ahead.
pub(super) async fn check_or_make(db: &Db, url: &CqlUrl) -> Result<(), OpenError> {
    match version(db).await? {
        Some((found, name)) if found > LAST + 1 => {
            Err(OpenError::CqlSchemaTooNew { keyspace: url.keyspace.clone(), found, name, known: LAST })
        }
        Some((found, _)) if found < VERSION => {
            Err(OpenError::CqlSchemaTooOld { keyspace: url.keyspace.clone(), found, known: VERSION })
        }
        Some((found, _)) => {
            db.compact.store(found >= COMPACT, Ordering::Relaxed);
            lets_write_conditionally(db).await?;
            datacenters::agree(db).await
        }
        None => migrate(db, url, Finish::Later).await.map(drop),
    }
}

/// Looks whether the schema says by now that rows are to be compact.
pub(super) async fn look_for_form(db: &Db) -> Result<(), OpenError> {
    let found = version(db).await?.map_or(0, |(version, _)| version);
    db.compact.store(found >= COMPACT, Ordering::Relaxed);
    Ok(())
}

/// Brings the keyspace to [`VERSION`]; one that is new, or is to be finished, to [`LAST`].
pub(super) async fn migrate(db: &Db, url: &CqlUrl, finish: Finish) -> Result<Migrated, OpenError> {
    make_keyspace(db, url).await?;
    for table in TABLES_OF_MIGRATION {
        db.define(&db.engine.table(table)).await?;
    }
    let turn = SchemaTurn::take(db).await?;
    let done = bring_up_to_date(db, finish).await;
    turn.give_back(db).await;
    let (from, to) = done?;
    datacenters::agree(db).await?;
    db.compact.store(to >= COMPACT, Ordering::Relaxed);
    Ok(Migrated { from: from.into(), to: to.into(), unfinished: to < LAST })
}

/// Returns the version that it had, and the one that it has.
async fn bring_up_to_date(db: &Db, finish: Finish) -> Result<(i32, i32), OpenError> {
    let found = version(db).await?.map_or(0, |(version, _)| version);
    for step in STEPS.into_iter().filter(|(version, ..)| *version <= found) {
        alter(db, step).await?;
    }
    for (table, seconds) in PURGED_SOONER.into_iter().filter(|_| found > 0) {
        db.define(&format!("ALTER TABLE $.{table} WITH gc_grace_seconds = {seconds}")).await?;
    }
    let goal = if found == 0 || finish == Finish::Now { LAST } else { VERSION };
    if found > 0 && found < goal && goal >= COMPACT {
        let behind = moving::behind(&servers(db).await.map_err(OpenError::Servers)?);
        if !behind.is_empty() {
            return Err(OpenError::Behind(behind));
        }
    }
    step_up(db, found, goal).await?;
    warm_up(db).await;
    Ok((found, found.max(goal)))
}

async fn servers(db: &Db) -> Result<Vec<Server>, StoreError> {
    let all = db.prepare(How::Scan, "SELECT body FROM $.server WHERE one = 0").await;
    let all = all.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let mut servers = Vec::new();
    let collect = |(body,): (String,)| {
        servers.push(decode(&body)?);
        Ok(true)
    };
    db.scan(&all, (), collect).await?;
    Ok(servers)
}

/// Tables that an earlier version made, or an earlier version of the database.
async fn alter(db: &Db, (_, _, statements): Step) -> Result<(), OpenError> {
    let of_migration = ["migration_lease", "schema_version"].map(str::to_owned);
    for statement in of_migration.into_iter().chain(names(statements)).filter_map(|name| db.engine.alter(&name)) {
        db.define(&statement).await?;
    }
    Ok(())
}

async fn step_up(db: &Db, found: i32, goal: i32) -> Result<(), OpenError> {
    let note = "INSERT INTO $.schema_version (id, version, name, applied_at) VALUES (0, ?, ?, ?)";
    for (version, name, statements) in STEPS.into_iter().filter(|(version, ..)| *version > found && *version <= goal) {
        for statement in tables(statements) {
            db.define(&db.engine.table(&statement)).await?;
        }
        for (table, column, kind) in columns(statements) {
            add_column(db, table, column, kind).await?;
        }
        let note = db.prepare(How::Write, note).await?;
        let at = now().0.cast_signed();
        db.write(&note, (version, name, at)).await.map_err(|e| failed(&e))?;
        tracing::info!(version, name, "migrated the store");
    }
    Ok(())
}

/// ScyllaDB makes what conditional writes of a table need at the first of them, which may take longer than an uplink can
/// wait. Reads at that level do as well.
async fn warm_up(db: &Db) {
    let warmed = CONDITIONAL.map(|(table, key)| async move {
        let warmed = db.touch(&format!("SELECT * FROM $.{table} WHERE {key} LIMIT 1")).await;
        if let Err(error) = warmed {
            tracing::debug!(table, %error, "the first conditional writes may take a while");
        }
    });
    futures_util::future::join_all(warmed).await;
}

/// A conditional write that changes nothing; that it is not answered in time says nothing.
async fn lets_write_conditionally(db: &Db) -> Result<(), OpenError> {
    let none = "UPDATE $.migration_lease SET until = 0 WHERE name = ? IF holder = ?";
    let none = db.prepare(How::Cas, none).await?;
    match db.cas(&none, (LEASE, uuid::Uuid::new_v4())).await {
        Err(StoreError::Corrupt(why)) => Err(refused(db, why)),
        _ => Ok(()),
    }
}

fn refused(db: &Db, why: String) -> OpenError {
    OpenError::CqlNoConditionalWrites { keyspace: db.keyspace.clone(), why }
}

/// The statements of a step, each of which may be run again after a migration that was broken off.
fn tables(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let statements = text.split(';').map(str::trim).filter(|s| s.starts_with("CREATE TABLE "));
    statements.map(|s| s.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS $.", 1)).collect()
}

/// The columns that a step adds, as lines `ALTER TABLE table ADD column type;`.
fn columns(text: &str) -> Vec<(&str, &str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("ALTER TABLE ")?.strip_suffix(';'));
    lines
        .filter_map(|line| {
            let (table, added) = line.split_once(" ADD ")?;
            let (column, kind) = added.split_once(' ')?;
            Some((table, column, kind))
        })
        .collect()
}

/// It may be there, from a migration that was broken off.
async fn add_column(db: &Db, table: &str, column: &str, kind: &str) -> Result<(), OpenError> {
    let known =
        "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ? AND column_name = ?";
    let known = db.prepare(How::Scan, known).await?;
    let found: Option<(String,)> = db.row(&known, (&db.keyspace, table, column)).await.map_err(|e| failed(&e))?;
    if found.is_some() {
        return Ok(());
    }
    db.define(&format!("ALTER TABLE $.{table} ADD {column} {kind}")).await
}

/// The tables that the statements of a step make.
fn names(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
    lines.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

async fn make_keyspace(db: &Db, url: &CqlUrl) -> Result<(), OpenError> {
    let state = db.session.get_cluster_state();
    if state.get_keyspace(&url.keyspace).is_some() {
        return Ok(());
    }
    let replication = match &url.replication {
        Replication::PerDatacenter(copies) => copies.iter().map(|(dc, n)| format!(", '{dc}': {n}")).collect(),
        Replication::Unsaid => {
            let home = url.datacenter.as_deref();
            let here =
                state.get_nodes_info().iter().filter(|node| home.is_none() || node.datacenter.as_deref() == home);
            let copies = if here.count() >= 3 { 3 } else { 1 };
            tracing::info!(copies, "the keyspace is made; ?replication=DATACENTER:COPIES says otherwise");
            format!(", '{}': {copies}", home.unwrap_or("replication_factor"))
        }
    };
    let statement = format!(
        "CREATE KEYSPACE IF NOT EXISTS $ WITH replication = {{'class': 'NetworkTopologyStrategy'{replication}}}"
    );
    db.define(&db.engine.keyspace(&statement)).await
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
    db.row_once_ours(&highest, ()).await.map_err(|e| failed(&e))
}

fn failed(error: &crate::StoreError) -> OpenError {
    let (what, why) = ("its schema", error.to_string());
    match error {
        // As while its nodes start one after the other.
        StoreError::Unavailable(_) | StoreError::Unknown(_) => OpenError::CqlAway { what, why },
        _ => OpenError::Cql { what, why },
    }
}

/// The turn to change tables.
struct SchemaTurn {
    holder: uuid::Uuid,
}

impl SchemaTurn {
    async fn take(db: &Db) -> Result<Self, OpenError> {
        let holder = uuid::Uuid::new_v4();
        let first = "INSERT INTO $.migration_lease (name, holder, until) VALUES (?, ?, ?) IF NOT EXISTS";
        let after = "UPDATE $.migration_lease SET holder = ?, until = ? WHERE name = ? IF until < ?";
        let (first, after) = (db.prepare(How::Cas, first).await?, db.prepare(How::Cas, after).await?);
        let (mut tries, mut failures) = (0, 0);
        loop {
            let (now, until) = (now().0.cast_signed(), (now() + LEASE_FOR).0.cast_signed());
            let taken = match db.cas(&first, (LEASE, holder, until)).await {
                Ok(false) => db.cas(&after, (holder, until, LEASE, now)).await,
                other => other,
            };
            tries += 1;
            match taken {
                Ok(true) => return Ok(Self { holder }),
                Ok(false) if tries < PATIENCE => {}
                Ok(false) => return Err(OpenError::Cql { what: "its schema", why: TOO_LONG.into() }),
                // Asking again does not heal it.
                Err(StoreError::Corrupt(why)) => return Err(refused(db, why)),
                Err(error) => {
                    failures += 1;
                    if failures == FAILURES {
                        return Err(failed(&error));
                    }
                }
            }
            tokio::time::sleep(WAIT).await;
        }
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
