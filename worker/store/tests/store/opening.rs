//! Opening: URLs, modes, what is refused and by which words.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use limpet_store::{Directory, FrameStore, List, OpenError, SqliteStore, Store, open};
use limpet_store_testing::conformance::Samples;
use rusqlite::Connection;

fn schema(dir: &Path, version: i64, name: &str) {
    let conn = Connection::open(dir.join("state.db")).unwrap();
    conn.execute("INSERT OR REPLACE INTO schema (version, name) VALUES (?1, ?2)", (version, name)).unwrap();
    conn.pragma_update(None, "user_version", version).unwrap();
}

fn refused(outcome: Result<impl Sized, OpenError>) -> String {
    outcome.err().expect("must be refused").to_string()
}

#[tokio::test]
async fn a_url_opens_what_it_names_or_says_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("a/b c");
    let store = open(&format!("sqlite:{}", nested.display())).await.unwrap();
    store.ping().await.unwrap();
    assert!(store.describe().contains("a/b c"), "{}", store.describe());
    open("memory:").await.unwrap().ping().await.unwrap();
    for url in ["", "sqlite:", "postgres://user:hush@host/x", "memory", "/var/lib/limpet"] {
        let words = refused(open(url).await);
        assert!(words.contains("sqlite:DIR") && words.contains("memory:") && !words.contains("hush"), "{words}");
    }
    for (url, named) in [
        ("cql://user:hush@127.0.0.1:1/keyspace", "cannot reach the database at 127.0.0.1:1"),
        ("cql://user:hush@host/Keyspace", "a keyspace's name"),
        ("cql://user:hush@host/keyspace?consistency=one", "local_quorum"),
    ] {
        let words = refused(open(url).await);
        assert!(words.contains(named) && !words.contains("hush"), "{words}");
    }
    fs::write(dir.path().join("file"), "x").unwrap();
    let words = refused(open(&format!("sqlite:{}", dir.path().join("file").display())).await);
    assert!(words.contains("file"), "{words}");
}

#[tokio::test]
async fn what_is_stored_is_there_after_reopening_and_only_its_owner_reads_it() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data/store");
    let tenant = Samples::new().tenant();
    {
        let store = SqliteStore::open(&dir).unwrap();
        store.create_tenant(&tenant).await.unwrap();
        for file in fs::read_dir(&dir).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
        }
    }
    for folder in [&dir, &top.path().join("data")] {
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let store = SqliteStore::open(&dir).unwrap();
    assert_eq!(store.tenant(tenant.id).await.unwrap(), Some(tenant));
}

#[tokio::test]
async fn the_next_schema_is_run_on_and_a_later_one_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    schema(dir.path(), 7, "class B");
    let store = SqliteStore::open(dir.path()).unwrap();
    store.create_tenant(&Samples::new().tenant()).await.unwrap();
    drop(store);
    schema(dir.path(), 8, "multicast");
    let words = refused(SqliteStore::open(dir.path()));
    assert!(words.contains("schema 8 (\"multicast\")") && words.contains("at most 7"), "{words}");
    let conn = Connection::open(dir.path().join("state.db")).unwrap();
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 8, "and nothing was changed");
}

/// What version 1 left behind: no change was ever noted, and nobody had counted what waits.
#[tokio::test]
async fn a_store_of_the_first_schema_is_listed_and_followed_after_its_migration() {
    let (dir, new) = (tempfile::tempdir().unwrap(), Samples::new());
    let store = SqliteStore::open(dir.path()).unwrap();
    let tenant = new.tenant();
    store.create_tenant(&tenant).await.unwrap();
    store.create_gateway(&new.gateway(tenant.id)).await.unwrap();
    let (integration, device) = (new.integration(), new.eui());
    store.put_pending(new.pending(integration, device, 1)).await.unwrap();
    drop(store);
    let conn = Connection::open(dir.path().join("state.db")).unwrap();
    let triggers: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND (sql LIKE '%list_change%' OR tbl_name = 'pending')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        conn.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    conn.execute_batch(
        "DROP TABLE list_change; DROP TABLE pending_device; DROP INDEX pending_by_integration;
         ALTER TABLE pending DROP COLUMN written_at; DELETE FROM schema WHERE version > 1; PRAGMA user_version = 1",
    )
    .unwrap();
    drop(conn);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.pending_devices(integration, 9).await.unwrap(), [device]);
    assert_eq!(store.pending_backlog().await.unwrap()[0].events, 1);
    let all = List { limit: 9, ..List::default() };
    assert_eq!(store.gateways(&all).await.unwrap().total, 1);
    store.create_gateway(&new.gateway(tenant.id)).await.unwrap();
    assert_eq!(store.gateways(&all).await.unwrap().total, 2);
}

#[tokio::test]
async fn a_list_holds_what_another_process_has_written_before() {
    let (dir, new) = (tempfile::tempdir().unwrap(), Samples::new());
    let (one, two) = (SqliteStore::open(dir.path()).unwrap(), SqliteStore::open(dir.path()).unwrap());
    lists_agree(&*one, &*two, &new).await;
}

/// What is written through one is listed by the other at once.
pub async fn lists_agree(one: &dyn Store, two: &dyn Store, new: &Samples) {
    let tenant = new.tenant();
    one.create_tenant(&tenant).await.unwrap();
    let (mut mine, mut theirs) = (new.gateway(tenant.id), new.gateway(tenant.id));
    (mine.name, theirs.name) = ("Roof".into(), "Tower".into());
    let list = |search: &str| List { limit: 9, tenant: Some(tenant.id), search: search.into(), ..List::default() };
    let names = async |store: &dyn Store, search: &str| -> Vec<String> {
        let page = store.gateways(&list(search)).await.unwrap();
        assert_eq!(page.total as usize, page.items.len());
        page.items.into_iter().map(|(gateway, _)| gateway.name).collect()
    };
    assert!(names(one, "").await.is_empty() && names(two, "").await.is_empty());
    one.create_gateway(&mine).await.unwrap();
    two.create_gateway(&theirs).await.unwrap();
    for store in [one, two] {
        assert_eq!(names(store, "").await, ["Roof", "Tower"]);
    }
    mine.name = "Wall".into();
    two.update_gateway(&mine).await.unwrap();
    assert_eq!((names(one, "").await, names(one, "roof").await.len()), (vec!["Tower".into(), "Wall".into()], 0));
    two.delete_gateway(theirs.eui).await.unwrap();
    for store in [one, two] {
        assert_eq!(names(store, "").await, ["Wall"]);
    }
}

#[tokio::test]
async fn a_database_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let conn = Connection::open(dir.path().join("state.db")).unwrap();
    conn.execute_batch("CREATE TABLE photo (id INTEGER)").unwrap();
    assert!(refused(SqliteStore::open(dir.path())).contains("not one of Limpet's"));
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    drop(conn);
    fs::write(dir.path().join("state.db"), vec![b'x'; 8192]).unwrap();
    assert!(refused(SqliteStore::open(dir.path())).contains("state.db"));
}

#[tokio::test]
async fn many_open_a_new_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let openings: Vec<_> = (0..8)
        .map(|_| {
            let dir = dir.path().to_owned();
            tokio::task::spawn_blocking(move || SqliteStore::open(&dir))
        })
        .collect();
    let mut stores = Vec::new();
    for opening in openings {
        stores.push(opening.await.unwrap().unwrap());
    }
    let tenant = Samples::new().tenant();
    stores[0].create_tenant(&tenant).await.unwrap();
    for store in &stores {
        assert_eq!(store.tenant(tenant.id).await.unwrap().as_ref(), Some(&tenant), "a read sees what was answered");
    }
}

#[tokio::test]
async fn memory_stores_share_nothing() {
    let (one, two) = (SqliteStore::in_memory().unwrap(), SqliteStore::in_memory().unwrap());
    let tenant = Samples::new().tenant();
    one.create_tenant(&tenant).await.unwrap();
    assert_eq!(two.tenant(tenant.id).await.unwrap(), None);
}
