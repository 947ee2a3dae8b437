//! A store that misbehaves as real ones do, on a schedule that a seed decides.
//!
//! [`FaultStore`] stands before any other store. It delays, it refuses, it loses a write and does not say so, it
//! writes and does not say so, and it crashes its user: after that write the caller gets no answer, and no later call
//! is answered either. Reads are delayed or refused only: no store may answer them wrongly.

mod pass;

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_worker_core::model::DedupKey;
use parking_lot::Mutex;
use tokio::sync::watch;

use limpet_store::{Result, Store, StoreError};

/// How often what happens, in thousandths of the operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Every operation waits for up to this long before and after.
    pub delay: Duration,
    /// `Unavailable`: nothing was written.
    pub refuse: u32,
    /// `Unknown`, and the write did not happen.
    pub lose: u32,
    /// `Unknown`, and the write happened.
    pub hide: u32,
    /// The write happened, and its caller is dead.
    pub crash: u32,
}

/// What a store was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub reads: u64,
    pub writes: u64,
    /// The writes among them that compare: of sessions and joins.
    pub conditional: u64,
}

/// See the module. One of it is one worker's view of the store: a crash is of this view alone.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    faults: Mutex<Faults>,
    random: Mutex<u64>,
    asked: Mutex<Asked>,
    /// Receptions of this key are never read in time.
    unreadable: Mutex<Option<DedupKey>>,
    crashed: watch::Sender<bool>,
    /// There is no room.
    full: AtomicBool,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Refused,
    Lost,
    Hidden,
    Crash,
}

impl FaultStore {
    /// The same seed over the same order of operations gives the same faults.
    pub fn new(inner: Arc<dyn Store>, seed: u64, faults: Faults) -> Arc<Self> {
        let crashed = watch::Sender::new(false);
        let (asked, unreadable, full) = Default::default();
        Arc::new(Self { inner, faults: Mutex::new(faults), random: Mutex::new(seed), asked, unreadable, crashed, full })
    }

    /// From now on these faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }

    /// From now on every write is refused, and reads go on; or no more.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// From now on the receptions of this key are too many to be read in time.
    pub fn make_unreadable(&self, key: DedupKey) {
        *self.unreadable.lock() = Some(key);
    }

    /// What it was asked for so far.
    pub fn asked(&self) -> Asked {
        *self.asked.lock()
    }

    /// Returns when a write has crashed its caller: whoever runs the worker then drops it.
    pub async fn crashed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Whether a write has crashed its caller.
    pub fn has_crashed(&self) -> bool {
        *self.crashed.borrow()
    }

    /// A crash now, from outside.
    pub fn crash(&self) {
        self.crashed.send_replace(true);
    }

    /// The worker started again: operations are answered.
    pub fn revive(&self) {
        self.crashed.send_replace(false);
    }

    /// splitmix64: the next number below `bound`.
    fn roll(&self, bound: u64) -> u64 {
        let mut state = self.random.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound.max(1)
    }

    async fn delay(&self) {
        let longest = self.faults.lock().delay;
        let micros = self.roll(u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).saturating_add(1));
        if micros > 0 {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        if *self.crashed.borrow() {
            pending::<()>().await;
        }
    }

    fn fate(&self) -> Fate {
        let faults = *self.faults.lock();
        if self.full.load(Ordering::Relaxed) {
            return Fate::Refused;
        }
        let mut roll = self.roll(1000);
        let shares = [
            (faults.refuse, Fate::Refused),
            (faults.lose, Fate::Lost),
            (faults.hide, Fate::Hidden),
            (faults.crash, Fate::Crash),
        ];
        for (share, fate) in shares {
            if roll < u64::from(share) {
                return fate;
            }
            roll -= u64::from(share);
        }
        Fate::Done
    }

    async fn read<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        self.asked.lock().reads += 1;
        self.delay().await;
        let refused = self.roll(1000) < u64::from(self.faults.lock().refuse);
        let answer =
            if refused { Err(StoreError::Unavailable("refused by the fault plan".into())) } else { operation.await };
        self.delay().await;
        answer
    }

    async fn write_if<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        self.asked.lock().conditional += 1;
        self.write(operation).await
    }

    async fn write<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        self.asked.lock().writes += 1;
        self.delay().await;
        let answer = match self.fate() {
            Fate::Done => operation.await,
            Fate::Refused => Err(StoreError::Unavailable("refused by the fault plan".into())),
            Fate::Lost => Err(StoreError::Unknown("lost by the fault plan".into())),
            Fate::Hidden => {
                operation.await?;
                Err(StoreError::Unknown("hidden by the fault plan".into()))
            }
            Fate::Crash => {
                operation.await?;
                self.crash();
                pending().await
            }
        };
        self.delay().await;
        answer
    }
}
