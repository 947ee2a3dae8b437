//! From a store URL to the store.

use std::{io, path::PathBuf, sync::Arc};

use crate::{CqlStore, SqliteStore, Store};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{0:?} is no store URL: use sqlite:DIR (a folder on a local disk), cql://HOST,HOST/KEYSPACE (ScyllaDB or Apache \
         Cassandra) or memory:"
    )]
    Url(String),
    #[error(
        "the store URL: {0} (the form is \
         cql://user:password@host1,host2/keyspace?replication=datacenter1:3&consistency=local_quorum)"
    )]
    CqlUrl(String),
    #[error(
        "this build cannot talk TLS to a database (ca=FILE in the store URL): build Limpet with --features cql-tls"
    )]
    CqlTls,
    #[error("ca={}: {why}", path.display())]
    CqlCa { path: PathBuf, why: String },
    #[error("cannot reach the database at {hosts}: {why}")]
    CqlUnreachable { hosts: String, why: String },
    #[error("the database does not answer for {what} now: {why}")]
    CqlAway { what: &'static str, why: String },
    #[error("the database did not do what was needed of {what}: {why}")]
    Cql { what: &'static str, why: String },
    #[error(
        "keyspace {keyspace} refuses conditional writes (LWT), and Limpet cannot do without: {why}. ScyllaDB before 2025.4 has \
         none in keyspaces with tablets: use another keyspace, made by Limpet or with tablets = {{'enabled': false}}"
    )]
    CqlNoConditionalWrites { keyspace: String, why: String },
    #[error("keyspace {keyspace}: {why}")]
    CqlDatacenter { keyspace: String, why: String },
    #[error(
        "keyspace {keyspace} has schema {found} ({name:?}); this version of Limpet knows {known} and runs on at most {}: \
         start a newer version",
        known + 1
    )]
    CqlSchemaTooNew { keyspace: String, found: i32, name: String, known: i32 },
    #[error(
        "keyspace {keyspace} has schema {found}, and this version of Limpet needs {known}: run `limpet ctl migrate --store URL` \
         first; servers of the version before go on running on the new schema"
    )]
    CqlSchemaTooOld { keyspace: String, found: i32, known: i32 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is on a network file system ({kind}), where SQLite's locks and its write-ahead log cannot be trusted: \
         choose a folder on a local disk",
        path.display()
    )]
    NetworkFileSystem { path: PathBuf, kind: &'static str },
    #[error(
        "the store in {} has schema {found} ({name:?}); this version of Limpet knows {known} and runs on at most {}: \
         start a newer version",
        path.display(), known + 1
    )]
    SchemaTooNew { path: PathBuf, found: i64, name: String, known: i64 },
    #[error(
        "these workers are of a version before, and would not be able to read what is written then: {}. Restart them with this \
         version first",
        .0.join(", ")
    )]
    Behind(Vec<String>),
    #[error("the servers in the store cannot be read: {0}")]
    Servers(crate::StoreError),
    #[error("{} is a database, but not one of Limpet's", path.display())]
    NotOurs { path: PathBuf },
    #[error("the database in {}: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("a thread of the store did not start: {0}")]
    Thread(io::Error),
}

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema that was found; 0 for a store that held nothing.
    pub from: i64,
    /// The schema that it has now.
    pub to: i64,
    /// [`Finish::Now`] would go on from there.
    pub unfinished: bool,
}

/// Whether the step is taken that leaves the version before behind: from then on rows are written as it cannot read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Servers of the version before go on.
    Later,
    /// None of them is at work any more; else it is refused.
    Now,
}

/// Brings the schema of the store up to date, and does nothing else. A store that held nothing is finished in any case.
pub async fn migrate(url: &str, finish: Finish) -> Result<Migrated, OpenError> {
    if url.starts_with("cql:") {
        return CqlStore::migrate(url, finish).await;
    }
    let dir = sqlite_dir(url)?;
    let migrated = tokio::task::spawn_blocking(move || SqliteStore::migrate(&dir, finish)).await;
    migrated.map_err(|e| OpenError::Thread(io::Error::other(e)))?
}

/// Opens what the URL names: `sqlite:DIR`, made if it does not exist, `cql://…`, or `memory:`.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, OpenError> {
    if url == "memory:" {
        return Ok(SqliteStore::in_memory()?);
    }
    if url.starts_with("cql:") {
        return Ok(CqlStore::open(url).await?);
    }
    let dir = sqlite_dir(url)?;
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&dir)).await;
    Ok(opened.map_err(|e| OpenError::Thread(io::Error::other(e)))??)
}

fn sqlite_dir(url: &str) -> Result<PathBuf, OpenError> {
    match url.strip_prefix("sqlite:") {
        Some(dir) if !dir.is_empty() => Ok(PathBuf::from(dir)),
        // The URL is not echoed whole: whatever it is, it may hold a password.
        _ => Err(OpenError::Url(url.split_inclusive(':').next().unwrap_or_default().chars().take(64).collect())),
    }
}
