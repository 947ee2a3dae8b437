//! What commit e024af5 wrote (`tests/fixtures`): its store opens, its export imports, and nothing of either is lost.

use std::{fs, path::Path};

use limpet_shared::{DevAddr, Eui64, RadioTime, UnixMicros};
use limpet_store::{
    Freshness, IntegrationId, SqliteStore, Store, migrate,
    moving::{self, Checked, Counters, check},
    open,
};
use limpet_worker_core::model::{EventKind, SessionRow};
use rusqlite::Connection;

pub const STORE: &str = include_str!("../../../../tests/fixtures/e024af5.sql");
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
    let migrated = migrate(&url).await.unwrap();
    assert_eq!(migrated.from, 1);
    assert_eq!(migrate(&url).await.unwrap().from, migrated.to, "nothing is left to do");
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
