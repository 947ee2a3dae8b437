//! Why an export or an import ended before its time.

use std::{io, path::PathBuf};

use super::Counters;
use crate::StoreError;

/// See the module. What was done so far is kept where the text says so.
#[derive(Debug, thiserror::Error)]
pub enum MovingError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} exists already; choose another name, or move it away", .0.display())]
    FileExists(PathBuf),
    #[error("another export is writing {}", .0.display())]
    PartInUse(PathBuf),
    #[error("the store is empty: there is nothing to export")]
    NothingToExport,
    #[error("{what} was made or moved while the export went on; what was written is thrown away, run it again")]
    Changed { what: String },
    #[error("line {line} of {}: {what}", path.display())]
    Line { path: PathBuf, line: u64, what: String },
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error(
        "the store is not empty: it has {0}. Import into a new store, which an import makes by itself: for SQLite a folder that \
         does not exist, for CQL a keyspace that does not exist. A first start of a server is enough to fill a store; to get rid \
         of one, stop all servers, then delete the folder or DROP KEYSPACE"
    )]
    NotEmpty(String),
    #[error("servers are running on this store ({}); stop them first", .0.join(", "))]
    Running(Vec<String>),
    #[error(
        "the store holds an unfinished import of another file (sha256 {sha256}); finish that one, or begin with a new store"
    )]
    OtherImport { sha256: String },
    #[error(
        "the store holds an unfinished import of this file that was begun with {}; finish it the same way, or begin with a new \
         store",
        flag(*.0)
    )]
    OtherCounters(Counters),
    #[error(
        "the store holds an unfinished import (sha256 {sha256}): run `limpet ctl import FILE --store URL` again with the same \
         file to finish it"
    )]
    Unfinished { sha256: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How the command line says it.
fn flag(counters: Counters) -> String {
    match counters {
        Counters::Keep => "--keep-counters".into(),
        Counters::Skip(by) => format!("--skip-fcnt-down {by}"),
    }
}
