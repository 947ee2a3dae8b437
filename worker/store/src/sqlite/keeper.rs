//! Housekeeping on a thread of its own: rings for the notes, and moves the write-ahead log into the database.
//!
//! Of all processes on one store, one does the latter: the one that holds the lock file. With several, or with each
//! writer doing it by itself, checkpoints meet each other's readers and starve, and the log grows without end.

use std::{
    fs::{self, File},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use limpet_shared::LogLimit;
use rusqlite::Connection;

use super::{
    folder::{WriteLock, try_lock},
    writer::Queue,
};
use crate::{OpenError, notes::Notes, words::now};

/// How often notes are written, and the log is looked at.
const TICK: Duration = Duration::from_secs(1);

/// A log of this many pages (of 4 KiB) is moved while writers go on.
const LONG: i64 = 1000;

/// A log of this many pages is made to start over, which writers wait for. By then little of it is left to move.
const TOO_LONG: i64 = 8000;

/// What keeps the log from being moved, such as a full disk, may last: it is said a few times in so much time.
const TOLD: Duration = Duration::from_secs(60);

/// Ends the thread when it is dropped.
pub(super) struct Keeper {
    _stop: mpsc::Sender<()>,
}

/// What the thread works with.
pub(super) struct Tools {
    pub conn: Connection,
    pub lock: WriteLock,
    /// The process whose file this is, locked, is the one that checkpoints.
    pub appointment: File,
    pub notes: Arc<Notes>,
    pub bell: Arc<Queue>,
}

impl Keeper {
    pub fn start(tools: Tools) -> Result<Self, OpenError> {
        let (stop, stopped) = mpsc::channel();
        let run = move || tools.run(&stopped);
        thread::Builder::new().name("store-keeper".into()).spawn(run).map_err(OpenError::Thread)?;
        Ok(Self { _stop: stop })
    }
}

impl Tools {
    fn run(self, stopped: &mpsc::Receiver<()>) {
        let (mut appointed, mut seen) = (false, None);
        let mut said = LogLimit::of(TOLD);
        while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.ring();
            appointed = appointed || try_lock(&self.appointment);
            // Where nobody has written since the last look there is nothing to move.
            if !appointed || seen.is_some() && seen == self.log() {
                continue;
            }
            seen = self.log();
            let Err(error) = self.checkpoint() else { continue };
            seen = None;
            if let Some(unsaid) = said.admit(now()) {
                tracing::warn!(%error, unsaid, "the write-ahead log could not be moved into the database");
            }
        }
    }

    /// How long the log is, and when it was written last.
    fn log(&self) -> Option<(u64, SystemTime)> {
        let log = fs::metadata(format!("{}-wal", self.conn.path()?)).ok()?;
        Some((log.len(), log.modified().ok()?))
    }

    fn ring(&self) {
        if !self.notes.is_empty() {
            self.bell.flush(&self.notes);
        }
    }

    fn checkpoint(&self) -> Result<(), Box<dyn std::error::Error>> {
        let (pages, moved) = self.run_checkpoint("NOOP")?;
        if pages - moved > LONG || pages > TOO_LONG {
            let (pages, _) = self.run_checkpoint("PASSIVE")?;
            if pages > TOO_LONG {
                let _turn = self.lock.take()?;
                self.run_checkpoint("RESTART")?;
            }
        }
        Ok(())
    }

    /// Pages in the log, and how many of them are in the database.
    fn run_checkpoint(&self, mode: &str) -> rusqlite::Result<(i64, i64)> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        self.conn.query_row(&sql, [], |row| Ok((row.get(1)?, row.get(2)?)))
    }
}
