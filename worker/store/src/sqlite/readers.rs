//! A few threads that read, each with a connection of its own, so that no read waits for a write.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
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
    Threads(Desk),
    Inline(Inline),
}

/// Where reads are handed in. The threads end when it is dropped, after what is there.
pub(super) struct Desk {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
}

/// A read wakes one thread, and no other.
#[derive(Default)]
struct Queue {
    reads: Mutex<Reads>,
    news: Condvar,
}

#[derive(Default)]
struct Reads {
    /// Each with its place.
    waiting: VecDeque<(Read, OwnedSemaphorePermit)>,
    closed: bool,
}

impl Queue {
    /// Waits for the next one; `None` after the last.
    fn next(&self) -> Option<Read> {
        let mut reads = self.reads.lock();
        loop {
            if let Some((read, _place)) = reads.waiting.pop_front() {
                return Some(read);
            }
            if reads.closed {
                return None;
            }
            self.news.wait(&mut reads);
        }
    }
}

impl Desk {
    async fn hand_in(&self, read: Read) -> Result<()> {
        match timeout(PATIENCE, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => self.queue.reads.lock().waiting.push_back((read, place)),
            Ok(Err(_)) => return Err(StoreError::Unavailable("the readers have ended".into())),
            Err(_) => return Err(StoreError::Unavailable(format!("{WAITING} reads are waiting"))),
        }
        self.queue.news.notify_one();
        Ok(())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.queue.reads.lock().closed = true;
        self.queue.news.notify_all();
    }
}

impl Readers {
    /// One thread for each connection.
    pub fn start(connections: Vec<Connection>) -> std::result::Result<Self, OpenError> {
        let queue = Arc::<Queue>::default();
        for conn in connections {
            let queue = queue.clone();
            let run = move || {
                while let Some(read) = queue.next() {
                    read(&conn);
                }
            };
            thread::Builder::new().name("store-reader".into()).spawn(run).map_err(OpenError::Thread)?;
        }
        Ok(Self::Threads(Desk { queue, places: Arc::new(Semaphore::new(WAITING)) }))
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
        let desk = match self {
            Self::Threads(desk) => desk,
            Self::Inline(inline) => return inline.read(work),
        };
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |conn| {
            if !reply.is_closed() {
                // Who asked may be gone by now.
                let _ = reply.send(work(conn));
            }
        });
        desk.hand_in(read).await?;
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
