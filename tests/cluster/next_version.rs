//! What the next version of Limpet does to a store before anything of it runs: its migration, which only adds.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use scylla::client::{session::Session, session_builder::SessionBuilder};

/// Raises the schema of this store by one while others have it open: a table more, and in every table a column more.
/// Returns the version that it has now.
pub async fn migrate(store: &str) -> i64 {
    match store.strip_prefix("sqlite:") {
        Some(folder) => sqlite(&Path::new(folder).join("state.db")),
        None => cql(store).await,
    }
}

fn name(version: i64) -> String {
    format!("what version {version} adds")
}

fn sqlite(database: &Path) -> i64 {
    let mut conn = Connection::open(database).unwrap();
    conn.busy_timeout(crate::support::PATIENCE).unwrap();
    let all = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let before: i64 = all.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let version = before + 1;
    for table in tables(&all) {
        let column = format!("ALTER TABLE \"{table}\" ADD COLUMN added_{version} TEXT NOT NULL DEFAULT 'x'");
        all.execute_batch(&column).unwrap();
    }
    all.execute_batch(&format!("CREATE TABLE added_{version} (id TEXT PRIMARY KEY, body TEXT NOT NULL)")).unwrap();
    all.execute("INSERT INTO schema (version, name) VALUES (?1, ?2)", (version, name(version))).unwrap();
    all.pragma_update(None, "user_version", version).unwrap();
    all.commit().unwrap();
    version
}

fn tables(conn: &Connection) -> Vec<String> {
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let mut statement = conn.prepare(names).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn cql(store: &str) -> i64 {
    let (hosts, login, keyspace) = limpet_bench::engine::parts(store);
    let mut builder = SessionBuilder::new().known_nodes(hosts);
    if let Some((user, password)) = login {
        builder = builder.user(user, password);
    }
    let session = builder.build().await.unwrap();
    let versions = format!("SELECT version FROM {keyspace}.schema_version WHERE id = 0");
    let before = column::<i32>(&session, &versions).await.into_iter().max().unwrap();
    let version = before + 1;
    let names = format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'");
    for table in column::<String>(&session, &names).await {
        let column = format!("ALTER TABLE {keyspace}.{table} ADD added_{version} text");
        session.query_unpaged(column, ()).await.unwrap();
    }
    let table = format!("CREATE TABLE {keyspace}.added_{version} (id text PRIMARY KEY, body text)");
    session.query_unpaged(table, ()).await.unwrap();
    let note = format!("INSERT INTO {keyspace}.schema_version (id, version, name, applied_at) VALUES (0, ?, ?, 0)");
    session.query_unpaged(note, (version, name(version.into()))).await.unwrap();
    version.into()
}

/// The only column of what a statement finds.
async fn column<T>(session: &Session, statement: &str) -> Vec<T>
where
    T: for<'a> scylla::deserialize::value::DeserializeValue<'a, 'a>,
{
    let found = session.query_unpaged(statement, ()).await.unwrap().into_rows_result().unwrap();
    found.rows::<(T,)>().unwrap().map(|row| row.unwrap().0).collect()
}
