//! How often sessions were written, as their store shows it: each conditional write that was done adds one to the row's revision.

use std::{collections::BTreeMap, path::Path};

use limpet_shared::Eui64;
use rusqlite::{Connection, OpenFlags};
use scylla::client::session_builder::SessionBuilder;

/// Writes of all sessions of each device since they began.
pub type Revisions = BTreeMap<Eui64, i64>;

pub async fn revisions(store: &str) -> Revisions {
    let rows = match store.strip_prefix("sqlite:") {
        Some(folder) => sqlite(&Path::new(folder).join("state.db")),
        None => cql(store).await,
    };
    let mut sums = Revisions::new();
    for (dev_eui, rev) in rows {
        *sums.entry(dev_eui.parse().unwrap()).or_default() += rev;
    }
    sums
}

fn sqlite(database: &Path) -> Vec<(String, i64)> {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    conn.busy_timeout(crate::support::PATIENCE).unwrap();
    let mut statement = conn.prepare("SELECT dev_eui, rev FROM session").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn cql(store: &str) -> Vec<(String, i64)> {
    let (hosts, login, keyspace) = limpet_bench::engine::parts(store);
    let mut builder = SessionBuilder::new().known_nodes(hosts);
    if let Some((user, password)) = login {
        builder = builder.user(user, password);
    }
    let session = builder.build().await.unwrap();
    let rows = format!("SELECT dev_eui, rev FROM {keyspace}.session");
    let answer = session.query_unpaged(rows, ()).await.unwrap().into_rows_result().unwrap();
    let rows = answer.rows::<(String, Option<i64>)>().unwrap();
    rows.map(Result::unwrap).filter_map(|(dev_eui, rev)| Some((dev_eui, rev?))).collect()
}
