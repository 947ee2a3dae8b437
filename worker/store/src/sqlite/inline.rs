//! A connection that is used where it is asked for, one operation at a time: no thread, no waiting.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::error::execute;
use crate::Result;

#[derive(Clone)]
pub(super) struct Inline(Arc<Mutex<Connection>>);

impl Inline {
    pub fn new(conn: Connection) -> Self {
        Self(Arc::new(Mutex::new(conn)))
    }

    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        work(&self.0.lock())
    }

    /// In a transaction of its own. An error undoes what `work` wrote.
    pub fn write<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let conn = self.0.lock();
        execute(&conn, "BEGIN IMMEDIATE", ())?;
        let done = work(&conn);
        execute(&conn, if done.is_ok() { "COMMIT" } else { "ROLLBACK" }, ())?;
        done
    }
}
