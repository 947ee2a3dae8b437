//! The store of one machine: an SQLite database in a folder, which several processes may have open at once.
//!
//! One thread writes: it takes all writes that wait into one transaction, in turn with the other processes, and answers
//! after the commit, which is durable. A few threads read, each with a connection of its own. A third kind looks after
//! the write-ahead log. Nothing blocks the async runtime.
//!
//! Waiting is bounded with the runtime's clock: under a paused one, time runs out while a thread works. So a store in memory
//! ([`SqliteStore::in_memory`]) has no threads: each operation is done where it is asked for, at once, by the same statements.

mod directory;
mod error;
mod folder;
mod frame_store;
mod inline;
mod keeper;
mod leases;
mod letters;
mod lists;
mod membership;
mod moving;
mod notes;
mod pending;
mod provisioning;
mod readers;
mod receptions;
mod schema;
mod sessions;
mod writer;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use rusqlite::Connection;

use self::{
    folder::{Folder, WriteLock},
    inline::Inline,
    keeper::{Keeper, Tools},
    letters::Letters,
    readers::Readers,
    writer::{Mailbox, Writer},
};
use crate::{
    Finish, Migrated, OpenError, Result, Store, lease_ends::LeaseEnds, lists::Lists, notes::Notes, rows::Form,
};

/// Threads that read.
const READERS: usize = 3;

/// See the module.
pub struct SqliteStore {
    /// Where it is; `None` in memory.
    folder: Option<Folder>,
    writer: Writer,
    readers: Readers,
    notes: Arc<Notes>,
    /// By the number of the last change that they hold.
    lists: Lists<i64>,
    lease_ends: Arc<LeaseEnds>,
    /// How rows are written here, from the start of this store to its end.
    form: Form,
    _keeper: Option<Keeper>,
}

impl SqliteStore {
    /// Opens the store in this folder, or makes it, and brings its schema up to date. Blocks.
    pub fn open(dir: &Path) -> std::result::Result<Arc<Self>, OpenError> {
        let folder = Folder::prepare(dir)?;
        let sqlite = |source| OpenError::Sqlite { path: folder.database.clone(), source };
        let failed = |source| OpenError::Io { path: folder.dir.clone(), source };
        let lock = WriteLock::open(&folder)?;
        let mut conn = schema::connect_writer(&folder.database).map_err(sqlite)?;
        let form = {
            // Of several processes that open a new store together one makes the tables.
            let _turn = lock.take().map_err(failed)?;
            schema::form(schema::migrate(&folder.database, &mut conn, Finish::Later)?)
        };
        let readers: rusqlite::Result<Vec<Connection>> =
            (0..READERS).map(|_| schema::connect_reader(&folder.database)).collect();
        let letters = Letters::default();
        let readers = Readers::start(readers.map_err(sqlite)?, letters.clone())?;
        let notes = Arc::new(Notes::default());
        let mailbox = Mailbox::start(conn, lock, notes.clone(), letters)?;
        let tools = Tools {
            conn: schema::connect_keeper(&folder.database).map_err(sqlite)?,
            lock: WriteLock::open(&folder)?,
            appointment: folder.lock_file("state.checkpoint")?,
            notes: notes.clone(),
            bell: mailbox.notes_bell(),
        };
        Ok(Arc::new(Self {
            folder: Some(folder),
            writer: Writer::Thread(mailbox),
            readers,
            notes,
            lists: Lists::default(),
            lease_ends: Arc::default(),
            form,
            _keeper: Some(Keeper::start(tools)?),
        }))
    }

    /// A new store in memory, which is gone with its last user. Everything is done at once, where it is asked for: for
    /// simulations, and tests under a paused clock.
    pub fn in_memory() -> std::result::Result<Arc<Self>, OpenError> {
        let place = Path::new(":memory:");
        let mut conn = schema::connect_memory().map_err(|source| OpenError::Sqlite { path: place.into(), source })?;
        let form = schema::form(schema::migrate(place, &mut conn, Finish::Later)?);
        let inline = Inline::new(conn);
        Ok(Arc::new(Self {
            folder: None,
            writer: Writer::inline(inline.clone()),
            readers: Readers::inline(inline),
            notes: Arc::new(Notes::none()),
            lists: Lists::default(),
            lease_ends: Arc::default(),
            form,
            _keeper: None,
        }))
    }

    /// Reads what an uplink needs: little, and often.
    async fn look<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.look(&self.writer, work).await
    }

    /// Brings the schema up to date. Blocks.
    pub fn migrate(dir: &Path, finish: Finish) -> std::result::Result<Migrated, OpenError> {
        let folder = Folder::prepare(dir)?;
        let failed = |source| OpenError::Io { path: folder.dir.clone(), source };
        let lock = WriteLock::open(&folder)?;
        let conn = schema::connect_writer(&folder.database);
        let mut conn = conn.map_err(|source| OpenError::Sqlite { path: folder.database.clone(), source })?;
        let _turn = lock.take().map_err(failed)?;
        schema::migrate(&folder.database, &mut conn, finish)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<()> {
        self.writer.check().await?;
        self.readers.read(|conn| directory::gateway_set_version(conn).map(drop)).await
    }
    fn describe(&self) -> String {
        // Whole, for who reads it may be in another folder.
        let Some(Folder { dir, .. }) = &self.folder else { return "SQLite in memory".into() };
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        format!("SQLite in {}", dir.display())
    }
}
