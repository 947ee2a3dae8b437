//! The tables, their versions, and what a connection is set to.

use std::{path::Path, time::Duration};

use limpet_shared::admin::Server;
use rusqlite::{Connection, OpenFlags, OptionalExtension, config::DbConfig};

use super::error::{all, decode};
use crate::{Finish, Migrated, OpenError, moving, rows::Form};

/// Migrations only add. Each has the version that it leads to, a name for people, and its statements.
const STEPS: [(i64, &str, &str); 6] = [
    (1, "first light", include_str!("schema/1.sql")),
    (2, "lists that are followed", include_str!("schema/2.sql")),
    (3, "what waits is known", include_str!("schema/3.sql")),
    (4, "turns are found", include_str!("schema/4.sql")),
    (5, "rows of two forms are read", ""),
    (6, "rows are compact", ""),
];

/// The schema that this version needs.
const VERSION: i64 = 5;

/// The last that it makes, from which on the version before does not run. It also runs on the next one, so that a rolling upgrade
/// can migrate first.
const LAST: i64 = STEPS[STEPS.len() - 1].0;

/// From here on rows are written in the compact form.
const COMPACT: i64 = 6;

/// "LMPT", in the database's header.
const APPLICATION_ID: i64 = 0x4c4d_5054;

/// How long SQLite itself waits for a lock. A backstop: writers wait for each other at the lock file.
const BUSY: Duration = Duration::from_secs(10);

/// Statements that each connection keeps prepared; more than this crate has.
const STATEMENTS: usize = 160;

/// The write-ahead log is cut back to this many bytes when it starts over.
const LOG_LIMIT: i64 = 64 << 20;

fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "cache_size", -16_384)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    one_plan(&conn)?;
    Ok(conn)
}

/// The only connection of a database in memory.
pub(super) fn connect_memory() -> rusqlite::Result<Connection> {
    let conn = Connection::open_in_memory()?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "foreign_keys", true)?;
    one_plan(&conn)?;
    Ok(conn)
}

/// A prepared statement stays as it is, whatever its parameters are: else each new value of a LIMIT has it prepared again.
fn one_plan(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// A connection that writes. The file must exist.
pub(super) fn connect_writer(file: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // The checkpointer does that, in one process.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    Ok(conn)
}

/// A connection that checkpoints. It gives up soon: others wait for it, and it comes again.
pub(super) fn connect_keeper(file: &Path) -> rusqlite::Result<Connection> {
    let conn = connect_writer(file)?;
    conn.busy_timeout(Duration::from_millis(200))?;
    Ok(conn)
}

/// A connection that reads only.
pub(super) fn connect_reader(file: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// Brings the database to [`VERSION`] (one that is new, or is to be finished, to [`LAST`]), or says why not. To be called under the
/// write lock.
pub(super) fn migrate(file: &Path, conn: &mut Connection, finish: Finish) -> Result<Migrated, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: file.into(), source };
    let found = read_version(conn).map_err(sqlite)?;
    let Some(found) = found else { return Err(OpenError::NotOurs { path: file.into() }) };
    if found > LAST + 1 {
        let name = read_name(conn, found).map_err(sqlite)?;
        return Err(OpenError::SchemaTooNew { path: file.into(), found, name, known: LAST });
    }
    conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)).map_err(sqlite)?;
    let goal = match finish {
        _ if found == 0 => LAST,
        Finish::Later => VERSION,
        Finish::Now => LAST,
    };
    if goal > found && found >= STEPS[0].0 && goal >= COMPACT {
        let behind = moving::behind(&servers(conn).map_err(OpenError::Servers)?);
        if !behind.is_empty() {
            return Err(OpenError::Behind(behind));
        }
    }
    step_up(conn, found, goal).map_err(sqlite)?;
    let to = found.max(goal);
    Ok(Migrated { from: found, to, unfinished: to < LAST })
}

/// How rows are written in a database that was migrated to there.
pub(super) fn form(migrated: Migrated) -> Form {
    if migrated.to >= COMPACT { Form::Compact } else { Form::Json }
}

fn servers(conn: &Connection) -> crate::Result<Vec<Server>> {
    all(conn, "SELECT body FROM server", [], |row| decode(row, 0))
}

/// 0 for a new database, `None` for one that something else made.
fn read_version(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = (application, version, tables) == (0, 0, 0);
    Ok((fresh || application == APPLICATION_ID).then_some(version))
}

fn read_name(conn: &Connection, version: i64) -> rusqlite::Result<String> {
    let sql = "SELECT name FROM schema WHERE version = ?1";
    Ok(conn.query_row(sql, [version], |row| row.get(0)).optional()?.unwrap_or_default())
}

fn step_up(conn: &mut Connection, from: i64, goal: i64) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch("CREATE TABLE IF NOT EXISTS schema (version INTEGER PRIMARY KEY, name TEXT NOT NULL)")?;
    for (version, name, statements) in STEPS.into_iter().filter(|(version, ..)| *version > from && *version <= goal) {
        transaction.execute_batch(statements)?;
        transaction.execute("INSERT INTO schema (version, name) VALUES (?1, ?2)", (version, name))?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        tracing::info!(version, name, "migrated the store");
    }
    transaction.commit()
}
