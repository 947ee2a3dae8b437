//! Opening: URLs, modes, what is refused and by which words.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use limpet_store::{Directory, MemoryStore, OpenError, SqliteStore, conformance::Samples, open};
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
    schema(dir.path(), 2, "class B");
    let store = SqliteStore::open(dir.path()).unwrap();
    store.create_tenant(&Samples::new().tenant()).await.unwrap();
    drop(store);
    schema(dir.path(), 3, "multicast");
    let words = refused(SqliteStore::open(dir.path()));
    assert!(words.contains("schema 3 (\"multicast\")") && words.contains("at most 2"), "{words}");
    let conn = Connection::open(dir.path().join("state.db")).unwrap();
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 3, "and nothing was changed");
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
    let (one, two) = (MemoryStore::new(), MemoryStore::new());
    let tenant = Samples::new().tenant();
    one.create_tenant(&tenant).await.unwrap();
    assert_eq!(two.tenant(tenant.id).await.unwrap(), None);
}
