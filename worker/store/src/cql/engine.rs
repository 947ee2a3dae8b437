//! Which database it is, and what it needs to be told that the other does not know.

use std::time::Duration;

use scylla::{
    client::session::Session,
    errors::{DbError, ExecutionError, RequestAttemptError},
};

use crate::OpenError;

/// A node that says nothing for so long is not asked again until it does. The driver's own 30 s would let a frozen node
/// take a share of all conditional writes with it all that time.
const KEEPALIVE: Duration = Duration::from_millis(500);
/// ScyllaDB has a connection for each shard, and a shard that is busy for a moment is not dead.
const KEEPALIVE_OF_SHARDS: Duration = Duration::from_secs(2);

/// `repair`, the default of newer versions, would keep every tombstone and every expired row until somebody repairs.
const PURGE_BY_AGE: &str = "tombstone_gc = {'mode': 'timeout'}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Cassandra,
    ScyllaDb {
        /// It lays new keyspaces out in tablets, and could not do conditional writes there.
        tablets_refuse: bool,
    },
}

impl Engine {
    /// Asks a node.
    pub async fn ask(session: &Session) -> Result<Self, OpenError> {
        let failed = |why: String| OpenError::Cql { what: "the question which database it is", why };
        let answer = session.query_unpaged("SELECT supported_features FROM system.local", ()).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if no_such_column(&error) => return Ok(Self::of(None)),
            Err(error) => return Err(failed(error.to_string())),
        };
        let rows = answer.into_rows_result().map_err(|e| failed(e.to_string()))?;
        let row = rows.maybe_first_row::<(Option<String>,)>().map_err(|e| failed(e.to_string()))?;
        Ok(Self::of(Some(&row.and_then(|(features,)| features).unwrap_or_default())))
    }

    /// `features`: the names, with commas, of what the whole cluster can do; Cassandra does not tell.
    fn of(features: Option<&str>) -> Self {
        let Some(features) = features else { return Self::Cassandra };
        let has = |name: &str| features.split(',').any(|feature| feature.trim() == name);
        Self::ScyllaDb { tablets_refuse: has("TABLETS") && !has("LWT_WITH_TABLETS") }
    }

    pub fn is_scylla(self) -> bool {
        self != Self::Cassandra
    }

    pub fn keepalive(self) -> Duration {
        if self.is_scylla() { KEEPALIVE_OF_SHARDS } else { KEEPALIVE }
    }

    /// The statement that makes a keyspace, with what this database needs besides.
    pub fn keyspace(self, statement: &str) -> String {
        match self {
            Self::ScyllaDb { tablets_refuse: true } => format!("{statement} AND tablets = {{'enabled': false}}"),
            _ => statement.into(),
        }
    }

    /// Likewise one that makes a table; others stay as they are.
    pub fn table(self, statement: &str) -> String {
        if !self.is_scylla() || !statement.starts_with("CREATE TABLE ") {
            return statement.into();
        }
        let word = if statement.split_whitespace().any(|word| word == "WITH") { "AND" } else { "WITH" };
        format!("{statement} {word} {PURGE_BY_AGE}")
    }

    /// What brings a table up to date that was made without [`Self::table`].
    pub fn alter(self, table: &str) -> Option<String> {
        self.is_scylla().then(|| format!("ALTER TABLE $.{table} WITH {PURGE_BY_AGE}"))
    }
}

fn no_such_column(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid | DbError::SyntaxError, _))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of what the versions say of themselves.
    const V5_4: &str = "AGGREGATE_STORAGE_OPTIONS,ALTERNATOR_TTL,CDC,LWT,RANGE_TOMBSTONES,TOMBSTONE_GC_OPTIONS";
    const V6_2: &str = "LWT,PARALLELIZED_AGGREGATION,TABLETS,TOMBSTONE_GC_OPTIONS,VIEWS_WITH_TABLETS";
    const V2025_4: &str = "LWT,LWT_WITH_TABLETS,TABLETS,TOMBSTONE_GC_OPTIONS,VIEWS_WITH_TABLETS";

    #[test]
    fn what_a_database_says_of_itself_tells_which_it_is() {
        assert_eq!(Engine::of(None), Engine::Cassandra);
        for (features, tablets_refuse) in [(V5_4, false), (V6_2, true), (V2025_4, false), ("", false)] {
            assert_eq!(Engine::of(Some(features)), Engine::ScyllaDb { tablets_refuse }, "{features}");
        }
    }

    #[test]
    fn a_keyspace_goes_without_tablets_only_where_they_refuse_conditional_writes() {
        let made = |features| Engine::of(features).keyspace("CREATE KEYSPACE x WITH replication = {}");
        for plain in [None, Some(V5_4), Some(V2025_4)] {
            assert_eq!(made(plain), "CREATE KEYSPACE x WITH replication = {}");
        }
        assert_eq!(made(Some(V6_2)), "CREATE KEYSPACE x WITH replication = {} AND tablets = {'enabled': false}");
    }

    #[test]
    fn tables_of_scylladb_are_purged_by_age() {
        let scylla = Engine::of(Some(V2025_4));
        let (plain, with) = ("CREATE TABLE a (id int)", "CREATE TABLE a (id int) WITH gc_grace_seconds = 1");
        assert_eq!(scylla.table(plain), format!("{plain} WITH {PURGE_BY_AGE}"));
        assert_eq!(scylla.table(with), format!("{with} AND {PURGE_BY_AGE}"));
        let broken = "CREATE TABLE a (id int)\nWITH gc_grace_seconds = 1";
        assert_eq!(scylla.table(broken), format!("{broken} AND {PURGE_BY_AGE}"));
        assert_eq!(scylla.table("ALTER TABLE a ADD b int"), "ALTER TABLE a ADD b int");
        assert_eq!(scylla.alter("a"), Some(format!("ALTER TABLE $.a WITH {PURGE_BY_AGE}")));
        assert_eq!((Engine::Cassandra.table(with), Engine::Cassandra.alter("a")), (with.to_owned(), None));
    }
}
