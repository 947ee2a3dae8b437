//! A few threads that read, each with a connection of its own, so that no read waits for a write.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::{
    error::execute,
    inline::Inline,
    letters::{Letter, Letters},
    writer::Writer,
};
use crate::{OpenError, Result, StoreError};

/// Reads that may wait for a thread.
const WAITING: usize = 4096;

/// How long a read may wait for a place, and then for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads, and gives what is to be told of it.
pub(super) type Read = Box<dyn FnOnce(&Connection) -> Letter + Send>;

/// How many reads share a state of the database at most.
const TOGETHER: usize = 16;

/// Who reads.
pub(super) enum Readers {
    Threads(Desk),
    Inline(Inline),
}

/// Where reads are handed in. The threads end when it is dropped, after what is there.
pub(super) struct Desk {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
    letters: Letters,
}

#[derive(Default)]
struct Queue {
    reads: Mutex<Reads>,
    news: Condvar,
}

#[derive(Default)]
struct Reads {
    waiting: VecDeque<Waiting>,
    /// A thread was woken up and has taken nothing yet: it takes what else comes until then.
    woken: bool,
    closed: bool,
}

struct Waiting {
    read: Read,
    /// It takes little time, and others of its kind may go with it.
    small: bool,
}

impl Queue {
    fn push(&self, waiting: Waiting) {
        let mut reads = self.reads.lock();
        reads.waiting.push_back(waiting);
        let wakes = !std::mem::replace(&mut reads.woken, true);
        // Whoever is woken up finds the lock free.
        drop(reads);
        if wakes {
            self.news.notify_one();
        }
    }

    /// Waits for the next one, or the next small ones; none after the last.
    fn next(&self) -> VecDeque<Read> {
        let mut reads = self.reads.lock();
        let mut taken = VecDeque::new();
        loop {
            while let Some(next) = reads.waiting.pop_front_if(|next| taken.is_empty() || next.small) {
                taken.push_back(next.read);
                if !next.small || taken.len() >= TOGETHER {
                    break;
                }
            }
            if !taken.is_empty() {
                // The rest is another thread's.
                reads.woken = !reads.waiting.is_empty();
                if reads.woken {
                    self.news.notify_one();
                }
                return taken;
            }
            if reads.closed {
                return taken;
            }
            reads.woken = false;
            self.news.wait(&mut reads);
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.queue.reads.lock().closed = true;
        self.queue.news.notify_all();
        self.letters.close();
    }
}

impl Readers {
    /// One thread for each connection.
    pub fn start(connections: Vec<Connection>, letters: Letters) -> std::result::Result<Self, OpenError> {
        let queue = Arc::<Queue>::default();
        for conn in connections {
            let (queue, letters) = (queue.clone(), letters.clone());
            let run = move || {
                loop {
                    let reads = queue.next();
                    if reads.is_empty() {
                        return;
                    }
                    letters.post(read_all(&conn, reads));
                }
            };
            thread::Builder::new().name("store-reader".into()).spawn(run).map_err(OpenError::Thread)?;
        }
        Ok(Self::Threads(Desk { queue, places: Arc::new(Semaphore::new(WAITING)), letters }))
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
        desk.read(work, |read| desk.queue.push(Waiting { read, small: false })).await
    }

    /// The same for what takes little time: the writer does it, if it is at rest, and several that come at once share a state of
    /// the database.
    pub async fn look<T, F>(&self, writer: &Writer, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let desk = match self {
            Self::Threads(desk) => desk,
            Self::Inline(inline) => return inline.read(work),
        };
        let hand_in = |read| {
            if let Some(read) = writer.read(read) {
                desk.queue.push(Waiting { read, small: true });
            }
        };
        desk.read(work, hand_in).await
    }
}

impl Desk {
    async fn read<T, F>(&self, work: F, hand_in: impl FnOnce(Read)) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let place = match timeout(PATIENCE, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(StoreError::Unavailable("the readers have ended".into())),
            Err(_) => return Err(StoreError::Unavailable(format!("{WAITING} reads are waiting"))),
        };
        let (reply, answer) = oneshot::channel();
        self.letters.attend();
        hand_in(Box::new(move |conn: &Connection| -> Letter {
            drop(place);
            // Who asked may be gone by now, or then.
            let found = (!reply.is_closed()).then(|| work(conn));
            Box::new(move || drop(found.map(|found| reply.send(found))))
        }));
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unavailable("a reader has ended".into())),
            Err(_) => Err(StoreError::Unavailable("no answer in time".into())),
        }
    }
}

/// Does several in one state of the database, or each in its own if there is none to be had.
pub(super) fn read_all(conn: &Connection, reads: VecDeque<Read>) -> Vec<Letter> {
    let together = reads.len() > 1 && execute(conn, "BEGIN", ()).is_ok();
    let letters = reads.into_iter().map(|read| read(conn)).collect();
    // Nothing was written. What did not end would be in the way of the next transaction.
    if together && execute(conn, "COMMIT", ()).is_err() {
        let _ = execute(conn, "ROLLBACK", ());
    }
    letters
}

/// Several statements that see one state of the database.
pub(super) fn snapshot<T>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    if !conn.is_autocommit() {
        return work(conn);
    }
    let transaction = conn.unchecked_transaction()?;
    let answer = work(&transaction)?;
    // Nothing was written: a rollback ends it as well, but a commit says what is meant.
    transaction.commit()?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(dir: &std::path::Path) -> Vec<Connection> {
        let file = dir.join("state.db");
        let open = || Connection::open(&file).unwrap();
        open().execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (n); INSERT INTO t VALUES (1)").unwrap();
        vec![open(), open()]
    }

    #[tokio::test]
    async fn small_reads_share_a_state_of_the_database_and_none_waits_for_a_long_one() {
        let dir = tempfile::tempdir().unwrap();
        let readers = Readers::start(connections(dir.path()), Letters::default()).unwrap();
        let Readers::Threads(desk) = &readers else { unreachable!() };
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let long = readers.read(move |_| {
            gone.recv().unwrap();
            Ok(())
        });
        let small = |_| async {
            let state =
                |conn: &Connection| Ok(conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))?);
            let push = |read| desk.queue.push(Waiting { read, small: true });
            desk.read(move |conn| snapshot(conn, state), push).await
        };
        let smalls = async {
            let answers = futures_util::future::join_all((0..100).map(small)).await;
            go.send(()).unwrap();
            answers
        };
        let (long, answers) = tokio::join!(long, smalls);
        assert_eq!(long, Ok(()));
        assert!(answers.iter().all(|answer| *answer == Ok(1)), "{answers:?}");
    }
}
