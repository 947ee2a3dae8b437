//! Several stores on one folder, in one process and in several, and processes that die without notice.
//!
//! The children are this test binary again, told by an environment variable what to do.

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use limpet_shared::{DevAddr, Eui64};
use limpet_store::{Commit, FrameStore, Freshness, SqliteStore, Store};
use limpet_store_testing::conformance::Samples;
use limpet_worker_core::model::{DedupKey, Session, SessionId, SessionKey};

const KEY: SessionKey = SessionKey { dev_addr: DevAddr(0x2601_0001), dev_eui: Eui64(7), id: SessionId(1) };
const ROLE: &str = "LIMPET_TEST_CHILD";

/// Runs `child` with a role; its lines are what it says.
fn start(role: &str, dir: &Path, number: u64) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env("LIMPET_TEST_DIR", dir)
        .env("LIMPET_TEST_NUMBER", number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// What a child does; in the ordinary run of the tests, nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let dir = env::var("LIMPET_TEST_DIR").unwrap();
    let number: u64 = env::var("LIMPET_TEST_NUMBER").unwrap().parse().unwrap();
    let store = SqliteStore::open(Path::new(&dir)).unwrap();
    match role.as_str() {
        "count" => {
            let won = count(&*store, 40).await;
            say(&format!("won {won}"));
        }
        "write" => {
            let tasks: Vec<_> =
                (0..16).map(|task| tokio::spawn(write_for_ever(store.clone(), number << 32 | task << 24))).collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
        other => panic!("no such role: {other}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Adds `wanted` to the session's counter by compare-and-set.
async fn count(store: &dyn Store, wanted: u32) -> u32 {
    let mut won = 0;
    while won < wanted {
        let mut next = store.session(&KEY, Freshness::Serial).await.unwrap().unwrap().session;
        next.rev += 1;
        next.next_fcnt_down += 1;
        if store.commit_session(&next).await.unwrap() == Commit::Applied {
            won += 1;
        }
    }
    won
}

/// Puts receptions, and tells each one that was acknowledged.
async fn write_for_ever(store: Arc<SqliteStore>, from: u64) {
    let new = Samples::new();
    for n in from.. {
        let mut reception = new.reception(DedupKey(u128::from(n)));
        reception.gateway = Eui64(n);
        store.put_reception(reception).await.unwrap();
        say(&format!("stored {n}"));
    }
}

/// The number in a line such as `stored 17`.
fn number(line: &str, word: &str) -> Option<u64> {
    line.strip_prefix(word)?.trim().parse().ok()
}

async fn counting_session(store: &dyn Store) {
    let session = Session { next_fcnt_down: 0, ..Samples::new().session(KEY) };
    assert_eq!(store.create_session(&session).await.unwrap(), Commit::Applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_stores_on_one_folder_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<_> = (0..3).map(|_| SqliteStore::open(dir.path()).unwrap()).collect();
    counting_session(&*stores[0]).await;
    let tasks: Vec<_> = (0..9)
        .map(|n| {
            let store = stores[n % 3].clone();
            tokio::spawn(async move { count(&*store, 15).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 15);
    }
    let row = stores[1].session(&KEY, Freshness::Serial).await.unwrap().unwrap();
    assert_eq!((row.session.next_fcnt_down, row.session.rev), (135, 136));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_on_one_folder_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    counting_session(&*store).await;
    let children: Vec<_> = (0..3).map(|n| start("count", dir.path(), n)).collect();
    let mut told = 0;
    for (mut child, lines) in children {
        told += lines.map_while(Result::ok).filter_map(|line| number(&line, "won ")).sum::<u64>();
        assert!(child.wait().unwrap().success());
    }
    let row = store.session(&KEY, Freshness::Serial).await.unwrap().unwrap();
    assert_eq!((u64::from(row.session.next_fcnt_down), told), (120, 120));
}

/// Kills a child under load, by its pid, as often as `rounds` says, while another process works on the same folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let bystander = SqliteStore::open(dir.path()).unwrap();
    counting_session(&*bystander).await;
    let mut stored = Vec::new();
    for round in 0..4_u64 {
        let (mut child, mut lines) = start("write", dir.path(), round + 1);
        let wanted = 60 + 137 * round as usize;
        let mut told = 0;
        while told < wanted {
            if let Some(n) = number(&lines.next().unwrap().unwrap(), "stored ") {
                stored.push(n);
                told += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        stored.extend(lines.map_while(Result::ok).filter_map(|line| number(&line, "stored ")));
        assert_eq!(count(&*bystander, 5).await, 5, "the lock of the dead is free");
    }
    drop(bystander);
    let store = SqliteStore::open(dir.path()).unwrap();
    for n in &stored {
        let found = store.receptions(DedupKey(u128::from(*n))).await.unwrap();
        assert_eq!(found.len(), 1, "{n:x} was acknowledged");
    }
    let sound = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    let verdict: String = sound.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}
