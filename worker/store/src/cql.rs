//! The store of a cluster: ScyllaDB or Apache Cassandra 5, through one code path.
//!
//! Rows that decide something change by conditional writes only; all others are plain, and may be written again. A plain
//! write that could be overtaken carries a timestamp of its own, so that its place in the order is what it says and not
//! when it arrived. Every request has a deadline of ours.

mod datacenters;
mod db;
mod directory;
mod engine;
mod entities;
mod frames;
mod gate;
mod json;
mod leases;
mod listing;
mod membership;
mod moving;
mod parents;
mod pending;
mod queue;
mod receptions;
mod routing;
mod schema;
mod seen_tables;
mod sessions;
mod signs;
#[cfg(feature = "cql-tls")]
mod tls;
mod url;
mod waiting;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use self::{
    db::Db,
    entities::{Entities, Kind},
    gate::Gate,
    leases::Leases,
    listing::{Listing, Mark},
    membership::Servers,
    moving::Moves,
    parents::Parents,
    pending::Pending,
    queue::Queues,
    receptions::Receptions,
    seen_tables::SeenTables,
    sessions::Sessions,
    url::CqlUrl,
};
use crate::{Finish, Migrated, OpenError, Result, Store, lists::Lists, notes::Notes};

/// How often what was heard is written down.
const NOTES_EVERY: Duration = Duration::from_secs(2);

/// How often it is looked whether a migration was finished.
const LOOK_FOR_FORM: Duration = Duration::from_secs(60);

/// See the module.
pub struct CqlStore {
    db: Db,
    described: String,
    /// Receptions have a gate of their own, so that what gateways wait for does not queue behind the rest.
    inlet: Gate,
    flow: Gate,
    entities: Entities,
    listing: Listing,
    /// By owner.
    lists: Lists<Mark>,
    parents: Parents,
    servers: Servers,
    sessions: Sessions,
    queues: Queues,
    receptions: Receptions,
    leases: Leases,
    seen: SeenTables,
    pending: Pending,
    notes: Notes,
    moves: tokio::sync::OnceCell<Moves>,
    /// Receptions from before this time (Unix, us) count as expired, whether or not the database still has them.
    expired: AtomicU64,
}

impl CqlStore {
    /// Connects, and makes the tables of a new network. A schema that is too old or too new is refused by name.
    pub async fn open(url: &str) -> std::result::Result<Arc<Self>, OpenError> {
        let url = CqlUrl::parse(url).map_err(OpenError::CqlUrl)?;
        let db = Db::connect(&url).await?;
        schema::check_or_make(&db, &url).await?;
        let store = Arc::new(Self {
            entities: Entities::prepare(&db).await?,
            listing: Listing::prepare(&db).await?,
            lists: Lists::default(),
            parents: Parents::default(),
            servers: Servers::prepare(&db).await?,
            sessions: Sessions::prepare(&db).await?,
            queues: Queues::prepare(&db).await?,
            receptions: Receptions::prepare(&db).await?,
            leases: Leases::prepare(&db).await?,
            seen: SeenTables::prepare(&db).await?,
            pending: Pending::prepare(&db).await?,
            notes: Notes::default(),
            moves: tokio::sync::OnceCell::new(),
            expired: AtomicU64::new(0),
            described: url.describe(),
            inlet: Gate::new(db.patience.clone()),
            flow: Gate::new(db.patience.clone()),
            db,
        });
        tokio::spawn(write_notes(Arc::downgrade(&store)));
        tokio::spawn(listing::renew(Arc::downgrade(&store)));
        tokio::spawn(follow_form(Arc::downgrade(&store)));
        Ok(store)
    }

    /// Says what is wrong with a store URL, without repeating what may be a password; connects to nothing.
    pub fn check_url(url: &str) -> std::result::Result<(), String> {
        CqlUrl::parse(url).map(drop)
    }

    /// Brings the schema up to date.
    pub async fn migrate(url: &str, finish: Finish) -> std::result::Result<Migrated, OpenError> {
        let url = CqlUrl::parse(url).map_err(OpenError::CqlUrl)?;
        schema::migrate(&Db::connect(&url).await?, &url, finish).await
    }

    /// Whether the device is known is not asked, here or at each uplink: nobody reads a note of an unknown one, and who
    /// creates a device clears it away.
    async fn write_some_notes(&self) {
        let waiting = self.notes.take_some();
        for (dev_eui, seen) in waiting.devices {
            if let Err(error) = self.seen.put_device(&self.db, dev_eui, &seen).await {
                tracing::debug!(%dev_eui, %error, "a note was lost");
            }
        }
        for (eui, seen) in waiting.gateways {
            if let Err(error) = self.seen.put_gateway(&self.db, eui, &seen).await {
                tracing::debug!(gateway = %eui, %error, "a note was lost");
            }
        }
    }
}

/// As long as the store is in use.
async fn write_notes(store: Weak<CqlStore>) {
    loop {
        tokio::time::sleep(NOTES_EVERY).await;
        let Some(store) = store.upgrade() else { return };
        if !store.notes.is_empty() {
            store.write_some_notes().await;
        }
    }
}

/// Until rows are compact.
async fn follow_form(store: Weak<CqlStore>) {
    loop {
        tokio::time::sleep(LOOK_FOR_FORM).await;
        let Some(store) = store.upgrade() else { return };
        if store.db.compact.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = schema::look_for_form(&store.db).await {
            tracing::debug!(%error, "could not look how rows are to be written");
        }
    }
}

/// Unix time in microseconds, as the database's own timestamps are.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for CqlStore {
    /// A read at the level of every other: it answers as long as frames can be stored.
    async fn ping(&self) -> Result<()> {
        self.entities.exists(&self.db, Kind::Setting, "regions").await.map(drop)
    }
    fn describe(&self) -> String {
        self.described.clone()
    }
    fn is_shared(&self) -> bool {
        true
    }
}
