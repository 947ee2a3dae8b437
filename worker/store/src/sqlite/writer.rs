//! Group commit: one thread writes, and takes all that wait into one transaction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{folder::WriteLock, inline::Inline, notes};
use crate::notes::Notes;
use crate::{OpenError, Result, StoreError};

/// Writes that may wait. Whoever finds this many waits for a place, but not for ever.
const WAITING: usize = 4096;

/// How many writes one transaction takes at most. More would make the last of them wait, and gain little (measured).
const BATCH: usize = 256;

/// How long a write may wait for a place, and then for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A writer that waits this long for its turn or for the disk is not ready for more.
const STALLED: Duration = Duration::from_secs(2);

/// After a failure the disk must have taken writes for so long before the store counts as well again: it has room for a
/// small write long before it has room for a batch.
const WELL_AFTER: Duration = Duration::from_secs(3);
/// What a probe writes (bytes): more than an ordinary batch needs.
const PROBE: u32 = 1 << 18;
/// The same failure is told once in this time, with how often it came.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The state of one write, shared by the one who waits and the one who does it.
const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Who writes.
pub(super) enum Writer {
    Thread(Mailbox),
    Inline(Inline),
}

/// The way to the thread, which ends when the last of them is dropped and all is written.
pub(super) struct Mailbox {
    jobs: mpsc::Sender<Box<dyn Job>>,
    along: Along,
    health: Arc<Health>,
    well_after: Duration,
}

/// Writes that go along with the next transaction, whoever's it is. No more than their callers are, each of which waits.
type Along = Arc<Mutex<Vec<Box<dyn Job>>>>;

/// How the thread is, for readiness.
#[derive(Default)]
pub(super) struct Health {
    /// When it began with the batch that it is at.
    busy_since: Mutex<Option<Instant>>,
    /// Why a transaction failed last, or a write in it for reasons of the machine, and when. Only a probe ends it.
    failing: Mutex<Option<(StoreError, Instant)>>,
}

/// A write without its types.
pub(super) trait Job: Send {
    /// Does it, and keeps the answer. After an error, what it wrote is to be undone.
    fn run(&mut self, conn: &Connection) -> Result<()>;
    /// Tells the kept answer, or what became of the whole transaction.
    fn answer(self: Box<Self>, transaction: &Result<()>);
}

struct Write<T, F> {
    work: Option<F>,
    kept: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    state: Arc<AtomicU8>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T> + Send> Job for Write<T, F> {
    fn run(&mut self, conn: &Connection) -> Result<()> {
        let taken = self.state.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        if let (Ok(_), Some(work)) = (taken, self.work.take()) {
            self.kept = Some(work(conn));
        }
        self.kept.as_ref().map_or(Ok(()), |kept| kept.as_ref().map(drop).map_err(Clone::clone))
    }
    fn answer(self: Box<Self>, transaction: &Result<()>) {
        // Also an error stands on what others wrote in this transaction, so it is one only if that was committed.
        let answer = match (transaction, self.kept) {
            (Ok(()), Some(kept)) => kept,
            (Ok(()), None) => return,
            (Err(failed), _) => Err(failed.clone()),
        };
        // Nobody may wait any more.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    pub fn inline(inline: Inline) -> Self {
        Self::Inline(inline)
    }

    /// Runs `work` inside a transaction and gives its answer once that is committed, durably. An error undoes what
    /// `work` wrote, and nothing else.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        match self {
            Self::Thread(mailbox) => mailbox.write(work).await,
            Self::Inline(inline) => inline.write(work),
        }
    }

    /// The same for what is not in a hurry: if others write within that time it goes along, and saves a transaction.
    pub async fn write_along<T, F>(&self, within: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        match self {
            Self::Thread(mailbox) => mailbox.write_along(within, work).await,
            Self::Inline(inline) => inline.write(work),
        }
    }

    /// Whether writes get through.
    pub async fn check(&self) -> Result<()> {
        match self {
            Self::Thread(mailbox) => mailbox.check().await,
            Self::Inline(_) => Ok(()),
        }
    }
}

impl Mailbox {
    /// Starts the thread.
    pub fn start(conn: Connection, lock: WriteLock, notes: Arc<Notes>) -> std::result::Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel(WAITING);
        let health = Arc::new(Health::default());
        let along = Along::default();
        let (with, health_of) = (along.clone(), health.clone());
        let thread = Thread { conn, lock, notes, queue, along: with, health: health_of, told: None, untold: 0 };
        let spawned = thread::Builder::new().name("store-writer".into()).spawn(move || thread.run());
        spawned.map_err(OpenError::Thread)?;
        Ok(Self { jobs, along, health, well_after: WELL_AFTER })
    }

    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (job, answer, state) = job(work);
        self.hand_in(job).await?;
        answered(answer, &state).await
    }

    pub async fn write_along<T, F>(&self, within: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (job, mut answer, state) = job(work);
        self.along.lock().push(job);
        match timeout(within, &mut answer).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) => return Err(StoreError::Unavailable("the writer has ended".into())),
            Err(_) => {}
        }
        // Nobody else has written: so there is a transaction for it.
        if let Err(error) = self.hand_in(Box::new(Nothing)).await {
            return Err(given_up(&state, &error.to_string()));
        }
        answered(answer, &state).await
    }

    async fn hand_in(&self, job: Box<dyn Job>) -> Result<()> {
        match timeout(PATIENCE, self.jobs.send(job)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(StoreError::Unavailable("the writer has ended".into())),
            Err(_) => Err(StoreError::Unavailable(format!("{WAITING} writes are waiting"))),
        }
    }

    /// The way to the thread that does not keep it alive.
    pub fn notes_bell(&self) -> mpsc::WeakSender<Box<dyn Job>> {
        self.jobs.downgrade()
    }

    /// After a failure it tries one that needs room: nobody else would, if the worker is not ready.
    pub async fn check(&self) -> Result<()> {
        if let Some(since) = *self.health.busy_since.lock()
            && since.elapsed() > STALLED
        {
            let stalled = format!("a write transaction has taken {} ms so far", since.elapsed().as_millis());
            return Err(StoreError::Unavailable(stalled));
        }
        let Some((error, at)) = self.health.failing.lock().clone() else { return Ok(()) };
        self.write(probe).await?;
        if at.elapsed() < self.well_after {
            return Err(error);
        }
        let mut failing = self.health.failing.lock();
        // A failure since then stays.
        if failing.as_ref().is_some_and(|(_, last)| *last == at) {
            *failing = None;
            tracing::info!("the store can write again");
        }
        Ok(())
    }
}

/// A write, where its answer comes, and how it is.
type Waited<T> = (Box<dyn Job>, oneshot::Receiver<Result<T>>, Arc<AtomicU8>);

fn job<T, F>(work: F) -> Waited<T>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let state = Arc::new(AtomicU8::new(QUEUED));
    (Box::new(Write { work: Some(work), kept: None, reply, state: state.clone() }), answer, state)
}

async fn answered<T>(answer: oneshot::Receiver<Result<T>>, state: &AtomicU8) -> Result<T> {
    let why = match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => return answer,
        Ok(Err(_)) => "the writer has ended",
        Err(_) => "the writer waits for the disk, or for another process that has stopped while it wrote",
    };
    Err(given_up(state, why))
}

/// Nobody waits for the write any more: it is not done, unless it is being done.
fn given_up(state: &AtomicU8, why: &str) -> StoreError {
    match state.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => StoreError::Unavailable(why.into()),
        Err(_) => StoreError::Unknown(why.into()),
    }
}

/// Writes what needs as much room as a large batch. It stays, for what a transaction deletes again needs no room; each
/// probe takes the place of the one before.
fn probe(conn: &Connection) -> Result<()> {
    super::error::execute(conn, "CREATE TABLE IF NOT EXISTS write_probe (one INTEGER PRIMARY KEY, body BLOB)", ())?;
    super::error::execute(conn, "REPLACE INTO write_probe (one, body) VALUES (1, randomblob(?1))", [PROBE]).map(drop)
}

/// A transaction for what goes along.
struct Nothing;

impl Job for Nothing {
    fn run(&mut self, _: &Connection) -> Result<()> {
        Ok(())
    }
    fn answer(self: Box<Self>, _: &Result<()>) {}
}

/// A write of what was noted; see [`Notes`].
pub(super) struct FlushNotes(pub Arc<Notes>);

impl Job for FlushNotes {
    fn run(&mut self, conn: &Connection) -> Result<()> {
        notes::write_some(&self.0, conn)
    }
    fn answer(self: Box<Self>, _: &Result<()>) {}
}

struct Thread {
    conn: Connection,
    lock: WriteLock,
    notes: Arc<Notes>,
    queue: mpsc::Receiver<Box<dyn Job>>,
    along: Along,
    health: Arc<Health>,
    /// When a failure was told last, and how many came since.
    told: Option<Instant>,
    untold: u64,
}

impl Thread {
    fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            self.serve(vec![first]);
        }
        while !self.notes.is_empty() {
            self.serve(vec![Box::new(FlushNotes(self.notes.clone()))]);
        }
    }

    fn serve(&mut self, mut batch: Vec<Box<dyn Job>>) {
        *self.health.busy_since.lock() = Some(Instant::now());
        let outcome = self.transact(&mut batch);
        *self.health.busy_since.lock() = None;
        let failing = outcome.as_ref().map_or_else(|error| Some(error.clone()), |odd| odd.clone());
        if let Some(error) = failing {
            self.tell(&error, batch.len());
            *self.health.failing.lock() = Some((error, Instant::now()));
        }
        let outcome = outcome.map(drop);
        for job in batch {
            job.answer(&outcome);
        }
    }

    fn tell(&mut self, error: &StoreError, writes: usize) {
        self.untold += 1;
        if self.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        tracing::error!(%error, writes, times = std::mem::take(&mut self.untold), "the store could not write");
    }

    /// One transaction. Takes in what has come while it waited for its turn. Gives what [`run_all`] gives.
    fn transact(&mut self, batch: &mut Vec<Box<dyn Job>>) -> Result<Option<StoreError>> {
        let turn = self.lock.take().map_err(|e| StoreError::Unavailable(format!("the write lock: {e}")))?;
        while batch.len() < BATCH
            && let Ok(job) = self.queue.try_recv()
        {
            batch.push(job);
        }
        // All of it: whoever waits has asked for a transaction once, and this may have been it.
        batch.append(&mut self.along.lock());
        let outcome = run_all(&self.conn, batch);
        if !self.conn.is_autocommit() {
            // What cannot be rolled back ends with the connection's next transaction; nothing was committed.
            let _ = statement(&self.conn, "ROLLBACK");
        }
        drop(turn);
        outcome
    }
}

/// Runs and commits them. Gives why one of them failed if that was the machine's fault.
fn run_all(conn: &Connection, batch: &mut [Box<dyn Job>]) -> Result<Option<StoreError>> {
    let mut odd = None;
    statement(conn, "BEGIN IMMEDIATE")?;
    for job in batch {
        statement(conn, "SAVEPOINT one")?;
        if let Err(error) = job.run(conn) {
            if conn.is_autocommit() {
                // Some errors, a full disk among them, can make SQLite roll all of it back.
                return Err(StoreError::Unavailable(error.to_string()));
            }
            statement(conn, "ROLLBACK TO one")?;
            if !matches!(error, StoreError::AlreadyExists(_) | StoreError::NotFound(_) | StoreError::Exhausted(_)) {
                odd = Some(error);
            }
        }
        statement(conn, "RELEASE one")?;
    }
    // The commit record may have reached the log before the failure, and count after a crash.
    statement(conn, "COMMIT").map_err(|e| StoreError::Unknown(e.to_string()))?;
    Ok(odd)
}

fn statement(conn: &Connection, sql: &str) -> Result<()> {
    super::error::execute(conn, sql, ()).map(drop)
}

#[cfg(test)]
mod tests;
