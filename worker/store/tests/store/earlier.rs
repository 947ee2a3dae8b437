//! What commit e024af5 wrote (`tests/fixtures`): its store opens, its export imports, and nothing of either is lost.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use limpet_shared::{DevAddr, Eui64, RadioTime, UnixMicros, admin::Server};
use limpet_store::{
    Commit, Finish, Freshness, IntegrationId, Migrated, OpenError, READS_ROWS, SqliteStore, Store, migrate,
    moving::{self, Checked, Counters, check},
    open,
};
use limpet_store_testing::conformance;
use limpet_worker_core::model::{EventKind, SessionRow};
use rusqlite::Connection;

const STORE: &str = include_str!("../../../../tests/fixtures/e024af5.sql");
const EXPORT: &str = include_str!("../../../../tests/fixtures/e024af5.jsonl");

/// A device by ABP, and one that has joined.
const ABP: (Eui64, DevAddr) = (Eui64(0x70b3_d57e_d000_0002), DevAddr(0x0100_0002));
const OTAA: (Eui64, DevAddr) = (Eui64(0x70b3_d57e_d000_0003), DevAddr(0x01b9_758d));
const INTEGRATION: &str = "27acba1a-ae4f-8586-93d2-2956ae7d8630";

/// The export, found to be whole.
pub fn checked(folder: &Path) -> Checked {
    let file = folder.join("e024af5");
    fs::write(&file, EXPORT).unwrap();
    check(&file, &|_| {}).unwrap()
}

async fn session(store: &dyn Store, (dev_eui, dev_addr): (Eui64, DevAddr)) -> SessionRow {
    let mut rows = store.sessions_by_addr(dev_addr, Freshness::Serial).await.unwrap();
    assert_eq!((rows.len(), rows[0].session.key.dev_eui), (1, dev_eui));
    rows.remove(0)
}

/// All that its devices need to go on.
pub async fn holds_all(store: &dyn Store) {
    let abp = session(store, ABP).await;
    assert_eq!((abp.session.seen.next, abp.session.next_fcnt_down, abp.session.joined), (4, 2, false));
    assert_eq!((abp.marks.out, abp.marks.sent, abp.session.item.map(|item| item.seq)), (4, 2, Some(1)));
    let answer = abp.session.slot_answer().expect("the answer that was decided").downlink.clone();
    assert_eq!((answer.fcnt_down, answer.item.map(|item| item.seq)), (1, Some(1)));
    assert_eq!(answer.windows[0].radio, RadioTime::Counter(19_919_563));
    let EventKind::Up(up) = &abp.session.slot.events[0].kind else { panic!("{:?}", abp.session.slot) };
    assert_eq!(
        (up.fcnt, &up.data[..], &up.receptions[0].rx.radio),
        (3, &b"waits"[..], &Some(RadioTime::Counter(18_919_563)))
    );
    let otaa = session(store, OTAA).await;
    assert_eq!((otaa.session.seen.next, otaa.session.next_fcnt_down, otaa.session.joined), (4, 2, true));
    let state = store.device_state(OTAA.0, Freshness::Serial).await.unwrap();
    assert_eq!((state.next_join_nonce, state.current.map(|current| current.key)), (2, Some(otaa.session.key)));
    let join = store.join_row(OTAA.0, 1, Freshness::Serial).await.unwrap().unwrap();
    assert_eq!(join.session.key, otaa.session.key);
    assert_eq!(store.queue_last(ABP.0).await.unwrap(), 3);
    let queue = store.queue(ABP.0, 0, 9).await.unwrap();
    assert_eq!(queue.iter().map(|item| &item.data[..]).collect::<Vec<_>>(), [&b"two"[..], b"three"]);
    let integration = IntegrationId(INTEGRATION.parse().unwrap());
    for ((device, _), kinds) in [(ABP, &["up", "txack"][..]), (OTAA, &["up"])] {
        let waits = store.pending(integration, device, 9).await.unwrap();
        assert_eq!(waits.iter().map(|event| event.event.kind.name()).collect::<Vec<_>>(), kinds);
    }
    assert!(store.gateway(Eui64(0x0250_0000_0000_0001)).await.unwrap().is_some());
}

/// A store of that version in this folder.
fn lay_out(folder: &Path) -> String {
    Connection::open(folder.join("state.db")).unwrap().execute_batch(STORE).unwrap();
    format!("sqlite:{}", folder.display())
}

#[tokio::test]
async fn a_store_of_an_earlier_version_opens_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let url = lay_out(folder.path());
    let migrated = migrate(&url, Finish::Later).await.unwrap();
    assert_eq!(migrated, Migrated { from: 1, to: 5, unfinished: true });
    assert_eq!(migrate(&url, Finish::Later).await.unwrap().from, migrated.to, "nothing is left to do");
    let store = open(&url).await.unwrap();
    holds_all(&*store).await;
    let keys = store.reception_keys(UnixMicros(0), None, 99).await.unwrap();
    assert_eq!(keys.len(), 9);
    for key in keys {
        let copies = store.receptions(key).await.unwrap();
        assert!(copies.len() == 1 && matches!(copies[0].rx.radio, Some(RadioTime::Counter(_))), "{copies:?}");
    }
    // The same as its export says, and no less: both as this version writes them.
    let (_, exported) = crate::moving::exported(&*store, folder.path(), "again").await;
    let moved = SqliteStore::in_memory().unwrap();
    moving::import(&*moved, &checked(folder.path()), Counters::Keep, &|_| {}).await.unwrap();
    assert_eq!(crate::moving::exported(&*moved, folder.path(), "moved").await.1.summary, exported.summary);
}

#[tokio::test]
async fn an_export_of_an_earlier_version_imports_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (checked, store) = (checked(folder.path()), SqliteStore::in_memory().unwrap());
    let imported = moving::import(&*store, &checked, Counters::Keep, &|_| {}).await.unwrap();
    assert_eq!((imported.summary.lines, imported.used_up), (28, 0));
    holds_all(&*store).await;
    let (_, exported) = crate::moving::exported(&*store, folder.path(), "again").await;
    assert_eq!(exported.summary.counts, checked.summary.counts);
}

/// A worker that says up to which form it reads rows.
fn worker(reads_rows: u32, state: &str) -> Server {
    let seen_at = UnixMicros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64);
    Server { name: "w1".into(), role: "worker".into(), state: state.into(), seen_at, reads_rows, ..Server::default() }
}

/// Writes the session anew, and says what kind of value holds it then.
async fn written_as(folder: &Path, store: &dyn Store) -> String {
    let mut next = session(store, ABP).await.session;
    next.rev += 1;
    next.resets += 1;
    assert_eq!(store.commit_session(&next).await.unwrap(), Commit::Applied);
    assert_eq!(session(store, ABP).await.session, next);
    let kind = "SELECT typeof(body) FROM session WHERE dev_addr = ?1";
    Connection::open(folder.join("state.db")).unwrap().query_row(kind, [ABP.1.0], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn rows_stay_as_the_version_before_reads_them_until_the_migration_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let url = lay_out(folder.path());
    let store = open(&url).await.unwrap();
    assert_eq!(written_as(folder.path(), &*store).await, "text");
    store.heartbeat(&worker(0, "ready")).await.unwrap();
    let refused = migrate(&url, Finish::Now).await.unwrap_err().to_string();
    assert!(refused.contains("w1") && refused.contains("Restart them"), "{refused}");
    assert_eq!(migrate(&url, Finish::Later).await.unwrap(), Migrated { from: 5, to: 5, unfinished: true });
    // It has ended, or was replaced.
    for replaced in [worker(0, "gone"), worker(READS_ROWS, "ready")] {
        store.heartbeat(&replaced).await.unwrap();
        let to = migrate(&url, Finish::Now).await.unwrap();
        assert_eq!((to.to, to.unfinished), (6, false));
    }
    assert_eq!(written_as(folder.path(), &*store).await, "text", "who was there before goes on so");
    let new = open(&url).await.unwrap();
    let otaa = session(&*new, OTAA).await.session;
    assert_eq!(written_as(folder.path(), &*new).await, "blob");
    assert_eq!(written_as(folder.path(), &*store).await, "text", "all of them read both");
    assert_eq!(written_as(folder.path(), &*new).await, "blob");
    assert_eq!(session(&*new, OTAA).await.session, otaa, "what nobody has written is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_whose_migration_is_not_finished_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&lay_out(folder.path())).await.unwrap();
    conformance::suite(|| async { store.clone() }).await;
}

/// The tables of the first schema, with the sessions of the fixture, on a real engine.
pub async fn a_keyspace_of_an_earlier_version_goes_on(url: &str, session_of_engine: &scylla::client::session::Session) {
    let run = async |statement: String| {
        session_of_engine.query_unpaged(statement, ()).await.unwrap();
    };
    let replication = "{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}";
    run(format!("CREATE KEYSPACE before WITH replication = {replication}")).await;
    let text: Vec<_> =
        include_str!("../../src/cql/schema/1.cql").lines().filter(|line| !line.starts_with("--")).collect();
    for statement in text.join("\n").split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        run(statement.replacen("CREATE TABLE ", "CREATE TABLE before.", 1)).await;
    }
    let version = "id int, version int, name text, applied_at bigint, PRIMARY KEY (id, version)";
    run(format!("CREATE TABLE before.schema_version ({version})")).await;
    run("INSERT INTO before.schema_version (id, version, name) VALUES (0, 1, 'the cluster')".into()).await;
    for (dev_addr, dev_eui, id, rev, body) in sessions_of_fixture() {
        let row =
            "INSERT INTO before.session (dev_addr, dev_eui, id, kind, rev, key_wrap, body) VALUES (?, ?, ?, 0, ?, 0, ?)
                   IF NOT EXISTS";
        session_of_engine.query_unpaged(row, (dev_addr, dev_eui, id, rev, body)).await.unwrap();
    }
    assert!(matches!(open(url).await, Err(OpenError::CqlSchemaTooOld { found: 1, .. })));
    assert_eq!(migrate(url, Finish::Later).await.unwrap(), Migrated { from: 1, to: 4, unfinished: true });
    let columns = async || -> (String, Option<Vec<u8>>) {
        // It has no marks, so this is the only row of its DevAddr.
        let row = "SELECT body, packed FROM before.session WHERE dev_addr = ?";
        let row = session_of_engine.query_unpaged(row, (i64::from(ABP.1.0),)).await.unwrap();
        row.into_rows_result().unwrap().first_row().unwrap()
    };
    let write = async |store: &dyn Store| {
        let mut next = session(store, ABP).await.session;
        next.rev += 1;
        assert_eq!(store.commit_session(&next).await.unwrap(), Commit::Applied);
        assert_eq!(session(store, ABP).await.session, next);
    };
    let before = open(url).await.unwrap();
    write(&*before).await;
    let (body, packed) = columns().await;
    assert!(body.starts_with('{') && packed.is_none(), "{body} {packed:?}");
    before.heartbeat(&worker(0, "ready")).await.unwrap();
    assert!(matches!(migrate(url, Finish::Now).await, Err(OpenError::Behind(names)) if names == ["w1"]));
    before.heartbeat(&worker(READS_ROWS, "ready")).await.unwrap();
    assert_eq!(migrate(url, Finish::Now).await.unwrap(), Migrated { from: 4, to: 5, unfinished: false });
    let finished = open(url).await.unwrap();
    write(&*finished).await;
    let (body, packed) = columns().await;
    assert!(body.is_empty() && packed.is_some(), "{body} {packed:?}");
    // One that has not seen it yet writes as before, and everybody reads what was written last.
    write(&*before).await;
    write(&*finished).await;
}

/// dev_addr, dev_eui, id, rev, body
fn sessions_of_fixture() -> Vec<(i64, String, i64, i64, String)> {
    let fixture = Connection::open_in_memory().unwrap();
    fixture.execute_batch(STORE).unwrap();
    let mut rows = fixture.prepare("SELECT dev_addr, dev_eui, id, rev, body FROM session").unwrap();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let rows = rows.query_map([], read).unwrap();
    rows.map(Result::unwrap).collect()
}
