//! From a store URL to the store.

use std::{io, path::PathBuf, sync::Arc};

use crate::{MemoryStore, SqliteStore, Store};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0:?} is no store URL: use sqlite:DIR (a folder on a local disk) or memory:")]
    Url(String),
    #[error("a cql:// store comes with a later version; this one knows sqlite:DIR and memory:")]
    Cql,
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
    #[error("{} is a database, but not one of Limpet's", path.display())]
    NotOurs { path: PathBuf },
    #[error("the database in {}: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("a thread of the store did not start: {0}")]
    Thread(io::Error),
}

/// Opens what the URL names: `sqlite:DIR`, made if it does not exist, or `memory:`.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, OpenError> {
    if url == "memory:" {
        return Ok(MemoryStore::new());
    }
    if url.starts_with("cql:") {
        return Err(OpenError::Cql);
    }
    let dir = match url.strip_prefix("sqlite:") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        // The URL is not echoed whole: whatever it is, it may hold a password.
        _ => {
            return Err(OpenError::Url(url.split_inclusive(':').next().unwrap_or_default().chars().take(64).collect()));
        }
    };
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&dir)).await;
    Ok(opened.map_err(|e| OpenError::Thread(io::Error::other(e)))??)
}
