//! A few threads that read, each with a connection of its own, so that no read waits for a write.

use std::{sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::inline::Inline;
use crate::{OpenError, Result, StoreError};

/// Reads that may wait for a thread.
const WAITING: usize = 4096;

/// How long a read may wait for a place, and then for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Who reads.
pub(super) enum Readers {
    /// The threads' mailbox. They end when it is dropped.
    Threads(mpsc::Sender<Read>),
    Inline(Inline),
}

impl Readers {
    /// One thread for each connection.
    pub fn start(connections: Vec<Connection>) -> std::result::Result<Self, OpenError> {
        let (reads, queue) = mpsc::channel::<Read>(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        for conn in connections {
            let queue = queue.clone();
            let run = move || {
                // One waits in the channel, the others for the mutex: whoever gets a read lets the next one wait there.
                loop {
                    let Some(read) = queue.lock().blocking_recv() else { return };
                    read(&conn);
                }
            };
            thread::Builder::new().name("store-reader".into()).spawn(run).map_err(OpenError::Thread)?;
        }
        Ok(Self::Threads(reads))
    }

    pub fn inline(inline: Inline) -> Self {
        Self::Inline(inline)
    }

    /// Runs `work` on one of the threads. It sees every write that was answered before.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let reads = match self {
            Self::Threads(reads) => reads,
            Self::Inline(inline) => return inline.read(work),
        };
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |conn| {
            if !reply.is_closed() {
                // Who asked may be gone by now.
                let _ = reply.send(work(conn));
            }
        });
        match timeout(PATIENCE, reads.send(read)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(StoreError::Unavailable("the readers have ended".into())),
            Err(_) => return Err(StoreError::Unavailable(format!("{WAITING} reads are waiting"))),
        }
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unavailable("a reader has ended".into())),
            Err(_) => Err(StoreError::Unavailable("no answer in time".into())),
        }
    }
}

/// Several statements that see one state of the database.
pub(super) fn snapshot<T>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let transaction = conn.unchecked_transaction()?;
    let answer = work(&transaction)?;
    // Nothing was written: a rollback ends it as well, but a commit says what is meant.
    transaction.commit()?;
    Ok(answer)
}
