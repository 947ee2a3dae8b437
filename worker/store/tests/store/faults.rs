//! Counting by compare-and-set through a store that fails: every increment is there once, whatever the caller was told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use limpet_store::{Commit, FrameStore, Freshness, SqliteStore, Store, StoreError};
use limpet_store_testing::{
    conformance::Samples,
    fault::{FaultStore, Faults},
};
use limpet_worker_core::model::{Session, SessionKey};

const FAULTS: Faults = Faults { delay: Duration::from_millis(3), refuse: 60, lose: 80, hide: 80, crash: 30 };

/// What each worker has counted, kept in a text of the row.
type Counted = BTreeMap<String, u32>;

fn counted(session: &Session) -> Counted {
    serde_json::from_str(&session.region).unwrap()
}

/// The row with one more of `me`; none if `me` has all of `wanted`.
fn next(row: &Session, me: &str, wanted: u32) -> Option<Session> {
    let mut counts = counted(row);
    let mine = counts.entry(me.into()).or_default();
    if *mine == wanted {
        return None;
    }
    *mine += 1;
    let mut next = row.clone();
    next.rev += 1;
    next.next_fcnt_down += 1;
    next.region = serde_json::to_string(&counts).unwrap();
    Some(next)
}

/// A worker: knows nothing but what the row says, and may be dropped at any point.
async fn count(store: Arc<FaultStore>, key: SessionKey, me: String, wanted: u32) {
    loop {
        let row = match store.session(&key, Freshness::Serial).await {
            Ok(row) => row.unwrap().session,
            Err(StoreError::Unavailable(_)) => continue,
            Err(other) => panic!("a read gave {other}"),
        };
        let Some(next) = next(&row, &me, wanted) else { return };
        match store.commit_session(&next).await {
            Ok(Commit::Applied | Commit::Refused) | Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {}
            Err(other) => panic!("a write gave {other}"),
        }
    }
}

/// Runs `workers` of them, starting each again when it has crashed, and checks the row. Gives how many crashed.
async fn count_all(store: Arc<dyn Store>, seed: u64, workers: u32, wanted: u32, faults: Faults) -> u32 {
    let new = Samples::new();
    let session = Session { region: "{}".into(), next_fcnt_down: 0, ..new.session(new.session_key()) };
    store.create_session(&session).await.unwrap();
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let faulty = FaultStore::new(store.clone(), seed ^ u64::from(worker) << 32, faults);
            tokio::spawn(async move {
                let mut crashes = 0;
                loop {
                    tokio::select! {
                        () = count(faulty.clone(), session.key, format!("worker {worker}"), wanted) => return crashes,
                        () = faulty.crashed() => {
                            crashes += 1;
                            faulty.revive();
                        }
                    }
                }
            })
        })
        .collect();
    let mut crashes = 0;
    for task in tasks {
        crashes += task.await.unwrap();
    }
    let row = store.session(&session.key, Freshness::Serial).await.unwrap().unwrap().session;
    assert!(counted(&row).values().all(|mine| *mine == wanted), "seed {seed}: {:?}", counted(&row));
    assert_eq!(row.next_fcnt_down, workers * wanted, "seed {seed}: an update was lost or came twice");
    assert_eq!(row.rev - 1, u64::from(workers * wanted), "seed {seed}");
    crashes
}

#[tokio::test(start_paused = true)]
async fn no_increment_is_lost_or_doubled_in_memory() {
    let mut crashes = 0;
    for seed in 0..30 {
        println!("seed {seed}");
        crashes += count_all(SqliteStore::in_memory().unwrap(), seed, 5, 20, FAULTS).await;
    }
    assert!(crashes > 0, "the schedule has crashes");
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_run_again() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let start = tokio::time::Instant::now();
        let crashes = count_all(SqliteStore::in_memory().unwrap(), 7, 4, 10, FAULTS).await;
        runs.push((crashes, start.elapsed()));
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn after_a_crash_nothing_is_answered_until_it_is_revived() {
    let memory = SqliteStore::in_memory().unwrap();
    let store = FaultStore::new(memory.clone(), 1, Faults { crash: 1000, ..Faults::default() });
    let new = Samples::new();
    let session = new.session(new.session_key());
    tokio::select! {
        answer = store.create_session(&session) => panic!("a dead caller was told {answer:?}"),
        () = store.crashed() => {}
    }
    assert!(memory.session(&session.key, Freshness::Serial).await.unwrap().is_some(), "its write is there");
    tokio::select! {
        biased;
        answer = store.ping() => panic!("a dead caller was told {answer:?}"),
        () = tokio::task::yield_now() => {}
    }
    store.revive();
    store.set_faults(Faults::default());
    assert_eq!(store.commit_session(&Session { rev: 2, ..session }).await, Ok(Commit::Applied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_or_doubled_in_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        println!("seed {seed}");
        let store = SqliteStore::open(&dir.path().join(seed.to_string())).unwrap();
        count_all(store, seed, 4, 10, FAULTS).await;
    }
}
