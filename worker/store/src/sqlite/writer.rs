//! Group commit: one thread writes, and takes all that wait into one transaction. Between two it also reads, for whoever finds it
//! at rest: its connection still holds the pages that it wrote, and the readers' hold none after any commit.

mod queue;

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
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

pub(super) use self::queue::Queue;
use self::queue::{Due, Next};
use super::{
    folder::WriteLock,
    inline::Inline,
    letters::{Letter, Letters},
    notes,
    readers::{Read, read_all},
};
use crate::notes::Notes;
use crate::{OpenError, Result, StoreError};

/// Writes that may wait. Whoever finds this many waits for a place, but not for ever.
const WAITING: usize = 4096;

/// How many writes one transaction takes at most. On a fast disk more than 256 would gain little; on a slow one, or a busy one, what
/// a transaction takes is all that gets through.
const BATCH: usize = 2048;
const BATCH_IF_FAILING: usize = 256;

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

/// The way to the thread, which ends when this is dropped and all is written.
pub(super) struct Mailbox {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
    letters: Letters,
    health: Arc<Health>,
    well_after: Duration,
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.queue.close();
        self.letters.close();
    }
}

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
    /// It is one statement, which SQLite does as a whole or not at all: after an error there is nothing to undo.
    fn is_one(&self) -> bool;
    /// Tells the kept answer, or what became of the whole transaction.
    fn answer(self: Box<Self>, transaction: &Result<()>);
}

struct Write<T, F> {
    work: Option<F>,
    kept: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    state: Arc<AtomicU8>,
    is_one: bool,
    _place: OwnedSemaphorePermit,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T> + Send> Job for Write<T, F> {
    fn run(&mut self, conn: &Connection) -> Result<()> {
        let taken = self.state.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        if let (Ok(_), Some(work)) = (taken, self.work.take()) {
            self.kept = Some(work(conn));
        }
        self.kept.as_ref().map_or(Ok(()), |kept| kept.as_ref().map(drop).map_err(Clone::clone))
    }
    fn is_one(&self) -> bool {
        self.is_one
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

    /// The same for what uplinks write, which is one statement: it may wait for others, for less time than anybody notices.
    pub async fn write_one<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        match self {
            Self::Thread(mailbox) => mailbox.write_now(work, true).await,
            Self::Inline(inline) => inline.write(work),
        }
    }

    /// The same for one statement that is not in a hurry: if others write within that time it goes along, and saves a transaction.
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

    /// Lets others who are about to write hand theirs in, too.
    pub async fn gather(&self) {
        if matches!(self, Self::Thread(_)) {
            tokio::task::yield_now().await;
        }
    }

    /// Has a read done by the thread, if it is at rest; else it is given back.
    pub fn read(&self, read: Read) -> Option<Read> {
        match self {
            Self::Thread(mailbox) => mailbox.queue.read(read),
            Self::Inline(_) => Some(read),
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
    pub fn start(
        conn: Connection,
        lock: WriteLock,
        notes: Arc<Notes>,
        letters: Letters,
    ) -> std::result::Result<Self, OpenError> {
        let (queue, health) = (Arc::<Queue>::default(), Arc::<Health>::default());
        let thread = Thread {
            conn,
            lock,
            notes,
            queue: queue.clone(),
            letters: letters.clone(),
            health: health.clone(),
            begun: None,
            told: None,
            untold: 0,
        };
        let spawned = thread::Builder::new().name("store-writer".into()).spawn(move || thread.run());
        spawned.map_err(OpenError::Thread)?;
        Ok(Self { queue, places: Arc::new(Semaphore::new(WAITING)), letters, health, well_after: WELL_AFTER })
    }

    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.write_now(work, false).await
    }

    async fn write_now<T, F>(&self, work: F, is_one: bool) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (job, answer, state) = job(work, is_one, self.place().await?);
        if !self.queue.write(job, if is_one { Due::Paced } else { Due::Now }) {
            return Err(ended());
        }
        answered(answer, &state).await
    }

    pub async fn write_along<T, F>(&self, within: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (job, mut answer, state) = job(work, true, self.place().await?);
        if !self.queue.write(job, Due::Along) {
            return Err(ended());
        }
        match timeout(within, &mut answer).await {
            Ok(answer) => answer.map_err(|_| ended())?,
            Err(_) => {
                // Nobody else has written: so there is a transaction for it.
                self.queue.go();
                answered(answer, &state).await
            }
        }
    }

    /// For a write that is about to be handed in.
    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.letters.attend();
        match timeout(PATIENCE, self.places.clone().acquire_owned()).await {
            Ok(place) => place.map_err(|_| ended()),
            Err(_) => Err(StoreError::Unavailable(format!("{WAITING} writes are waiting"))),
        }
    }

    /// Where the keeper has notes written.
    pub fn notes_bell(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    /// After a failure it tries one that needs room: nobody else would, if the worker is not ready.
    pub async fn check(&self) -> Result<()> {
        if self.queue.is_closed() {
            return Err(ended());
        }
        if let Some(since) = *self.health.busy_since.lock()
            && since.elapsed() > STALLED
        {
            let stalled = format!("the writer has been at one thing for {} ms so far", since.elapsed().as_millis());
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

fn ended() -> StoreError {
    StoreError::Unavailable("the writer has ended".into())
}

/// A write, where its answer comes, and how it is.
type Waited<T> = (Box<dyn Job>, oneshot::Receiver<Result<T>>, Arc<AtomicU8>);

fn job<T, F>(work: F, is_one: bool, place: OwnedSemaphorePermit) -> Waited<T>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let state = Arc::new(AtomicU8::new(QUEUED));
    (
        Box::new(Write { work: Some(work), kept: None, reply, state: state.clone(), is_one, _place: place }),
        answer,
        state,
    )
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

impl Queue {
    /// Has notes written with the next transaction. After its end the thread has done so by itself.
    pub fn flush(&self, notes: &Arc<Notes>) {
        self.write(Box::new(FlushNotes(notes.clone())), Due::Paced);
    }
}

/// A write of what was noted; see [`Notes`].
struct FlushNotes(Arc<Notes>);

impl Job for FlushNotes {
    fn run(&mut self, conn: &Connection) -> Result<()> {
        notes::write_some(&self.0, conn)
    }
    fn is_one(&self) -> bool {
        false
    }
    fn answer(self: Box<Self>, _: &Result<()>) {}
}

struct Thread {
    conn: Connection,
    lock: WriteLock,
    notes: Arc<Notes>,
    queue: Arc<Queue>,
    letters: Letters,
    health: Arc<Health>,
    /// When the last transaction began.
    begun: Option<Instant>,
    /// When a failure was told last, and how many came since.
    told: Option<Instant>,
    untold: u64,
}

impl Drop for Thread {
    /// However it ended: nobody is to wait for it.
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl Thread {
    fn run(mut self) {
        loop {
            match self.queue.next(self.begun, self.most()) {
                Next::Read(reads) => {
                    *self.health.busy_since.lock() = Some(Instant::now());
                    let letters = read_all(&self.conn, reads);
                    *self.health.busy_since.lock() = None;
                    self.letters.post(letters);
                }
                Next::Write(batch) => self.serve(batch),
                Next::End => break,
            }
        }
        while !self.notes.is_empty() {
            self.serve(vec![Box::new(FlushNotes(self.notes.clone()))]);
        }
    }

    /// What a transaction takes: of a disk that may be full, no more than there is room for when the probe has found some.
    fn most(&self) -> usize {
        if self.health.failing.lock().is_some() { BATCH_IF_FAILING } else { BATCH }
    }

    fn serve(&mut self, mut batch: Vec<Box<dyn Job>>) {
        let now = Instant::now();
        (*self.health.busy_since.lock(), self.begun) = (Some(now), Some(now));
        let outcome = self.transact(&mut batch);
        *self.health.busy_since.lock() = None;
        let failing = outcome.as_ref().map_or_else(|error| Some(error.clone()), |odd| odd.clone());
        if let Some(error) = failing {
            self.tell(&error, batch.len());
            *self.health.failing.lock() = Some((error, Instant::now()));
        }
        let outcome = outcome.map(drop);
        let all: Letter = Box::new(move || batch.into_iter().for_each(|job| job.answer(&outcome)));
        self.letters.post([all]);
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
        batch.append(&mut self.queue.more(self.most().saturating_sub(batch.len())));
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
        if !job.is_one() {
            statement(conn, "SAVEPOINT one")?;
        }
        if let Err(error) = job.run(conn) {
            if conn.is_autocommit() {
                // Some errors, a full disk among them, can make SQLite roll all of it back.
                return Err(StoreError::Unavailable(error.to_string()));
            }
            if !job.is_one() {
                statement(conn, "ROLLBACK TO one")?;
            }
            if !matches!(error, StoreError::AlreadyExists(_) | StoreError::NotFound(_) | StoreError::Exhausted(_)) {
                odd = Some(error);
            }
        }
        if !job.is_one() {
            statement(conn, "RELEASE one")?;
        }
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
