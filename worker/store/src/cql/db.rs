//! The connection: how statements are prepared and run, with deadlines of our own, and what their errors mean.

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use scylla::{
    client::{
        PoolSize,
        execution_profile::{ExecutionProfile, ExecutionProfileBuilder, ExecutionProfileHandle},
        session::Session,
        session_builder::SessionBuilder,
    },
    deserialize::row::DeserializeRow,
    errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError},
    policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy},
    response::{PagingState, query_result::QueryResult},
    serialize::{batch::BatchValues, row::SerializeRow},
    statement::{
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
        unprepared::Statement,
    },
    value::{CqlValue, Row},
};

use super::{
    datacenters::Home,
    engine::Engine,
    gate::Patience,
    routing::{InOrder, by_replica},
    url::{CqlUrl, Level},
};
use crate::{OpenError, Result, StoreError, rows::Form};

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A read or a plain write: one more replica may be asked beside the first, see [`Patience`].
const HOT_LIMIT: Duration = Duration::from_millis(800);
/// A conditional write, and a read that settles one. Neither is ever sent twice.
const CAS_LIMIT: Duration = Duration::from_millis(1_500);
/// One page of a long read.
const SCAN_LIMIT: Duration = Duration::from_secs(5);
const SCAN_PAGE: i32 = 1_000;
/// Tables are made and changed at the pace of the slowest node.
const SCHEMA_LIMIT: Duration = Duration::from_secs(30);
/// Who makes a keyspace owns it a moment later, and nodes remember for a while what a role may not do.
const OWNED_AFTER: Duration = Duration::from_millis(500);
const OWNED_TRIES: u32 = 10;

/// How a statement is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Read,
    /// Sees, or settles, every conditional write begun before.
    Serial,
    /// Plain; may be repeated.
    Write,
    /// Conditional.
    Cas,
    /// A read of many rows, page by page.
    Scan,
}

/// See the module.
pub(super) struct Db {
    pub session: Session,
    pub keyspace: String,
    pub engine: Engine,
    pub home: Home,
    /// Rows are written in the compact form: from when the schema says that all servers read it.
    pub compact: AtomicBool,
    level: Level,
    pub patience: Arc<Patience>,
    hot: ExecutionProfileHandle,
    cas: ExecutionProfileHandle,
    scan: ExecutionProfileHandle,
}

impl Db {
    /// How rows are written now.
    pub fn form(&self) -> Form {
        if self.compact.load(Ordering::Relaxed) { Form::Compact } else { Form::Json }
    }

    /// Connects, and looks what database it is and where copies are; nothing is made yet.
    pub async fn connect(url: &CqlUrl) -> std::result::Result<Self, OpenError> {
        let look = builder(url)?.pool_size(PoolSize::PerHost(NonZeroUsize::MIN)).fetch_schema_metadata(false);
        let look = match look.build().await {
            Ok(session) => session,
            Err(error) => return Err(not_connected(url, &error).await),
        };
        let (engine, home) = (Engine::ask(&look).await?, Home::find(&look, url).await?);
        let replicas = by_replica(home.datacenter.as_deref(), url.level == Level::Quorum);
        let patience = Arc::new(Patience::default());
        let hot = hot(url.level, patience.clone()).load_balancing_policy(replicas.clone()).build().into_handle();
        let mut builder = builder(url)?
            .default_execution_profile_handle(hot.clone())
            .keepalive_interval(engine.keepalive())
            .keepalive_timeout(engine.keepalive())
            // What waits is sent together anyway; waiting for more costs a turn of the event loop for each request.
            .write_coalescing(false)
            .fetch_schema_metadata(true)
            .keyspaces_to_fetch([url.keyspace.clone()]);
        if let Some(name) = &home.datacenter {
            builder = builder.prefer_datacenter(name.clone());
        }
        let session = match builder.build().await {
            Ok(session) => session,
            Err(error) => return Err(not_connected(url, &error).await),
        };
        let scan = careful(url.level, SCAN_LIMIT).load_balancing_policy(replicas.clone());
        let cas = careful(url.level, CAS_LIMIT).load_balancing_policy(Arc::new(InOrder(replicas)));
        Ok(Self {
            session,
            keyspace: url.keyspace.clone(),
            engine,
            compact: AtomicBool::new(false),
            home,
            level: url.level,
            patience,
            hot,
            cas: cas.build().into_handle(),
            scan: scan.build().into_handle(),
        })
    }

    /// `$` in a statement is our keyspace.
    pub async fn prepare(&self, how: How, cql: &str) -> std::result::Result<PreparedStatement, OpenError> {
        let text = cql.replace('$', &self.keyspace);
        let prepared = self.session.prepare(text).await;
        let mut prepared =
            prepared.map_err(|e: PrepareError| OpenError::Cql { what: "a statement", why: e.to_string() })?;
        let (profile, idempotent) = match how {
            How::Read | How::Write => (&self.hot, true),
            How::Serial | How::Cas => (&self.cas, false),
            How::Scan => (&self.scan, true),
        };
        prepared.set_execution_profile_handle(Some(profile.clone()));
        prepared.set_is_idempotent(idempotent);
        if how == How::Serial {
            prepared.set_consistency(self.level.serial());
        }
        if how == How::Scan {
            prepared.set_page_size(SCAN_PAGE);
        }
        Ok(prepared)
    }

    /// A batch of one partition, some of whose statements are conditional: all or nothing.
    pub fn conditional_batch(&self, statements: &[&PreparedStatement]) -> Batch {
        let mut batch = Batch::new(BatchType::Unlogged);
        for statement in statements {
            batch.append_statement((*statement).clone());
        }
        batch.set_execution_profile_handle(Some(self.cas.clone()));
        batch.set_is_idempotent(false);
        batch
    }

    /// Makes or changes a table.
    pub async fn define(&self, cql: &str) -> std::result::Result<(), OpenError> {
        let mut statement = Statement::new(cql.replace('$', &self.keyspace));
        statement.set_request_timeout(Some(SCHEMA_LIMIT));
        statement.set_execution_profile_handle(Some(self.scan.clone()));
        let mut tries = 0;
        loop {
            tries += 1;
            match self.session.query_unpaged(statement.clone(), ()).await {
                Ok(_) => return Ok(()),
                Err(e) if tries < OWNED_TRIES && is_forbidden(&e) => tokio::time::sleep(OWNED_AFTER).await,
                Err(e) => return Err(OpenError::Cql { what: "its schema", why: e.to_string() }),
            }
        }
    }

    /// Reads at the level of conditional writes, whatever it finds.
    pub async fn touch(&self, cql: &str) -> std::result::Result<(), OpenError> {
        let mut statement = Statement::new(cql.replace('$', &self.keyspace));
        statement.set_request_timeout(Some(SCHEMA_LIMIT));
        statement.set_consistency(self.level.serial());
        statement.set_execution_profile_handle(Some(self.cas.clone()));
        let touched = self.session.query_unpaged(statement, ()).await;
        touched.map(drop).map_err(|e| OpenError::Cql { what: "its schema", why: e.to_string() })
    }

    /// All rows that it gives; for what is known to be few.
    pub async fn rows<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Vec<R>>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let result = self.session.execute_unpaged(statement, values).await.map_err(plain)?;
        let rows = result.into_rows_result().map_err(unreadable)?;
        let read: std::result::Result<Vec<R>, _> = rows.rows::<R>().map_err(unreadable)?.collect();
        read.map_err(unreadable)
    }

    /// All rows that it gives, read page by page; for what is nearly always one page, of the statement's size.
    pub async fn pages<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Vec<R>>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let (mut all, mut from) = (Vec::new(), PagingState::start());
        loop {
            let page = self.session.execute_single_page(statement, &values, from).await;
            let (result, next) = page.map_err(plain)?;
            let rows = result.into_rows_result().map_err(unreadable)?;
            for row in rows.rows::<R>().map_err(unreadable)? {
                all.push(row.map_err(unreadable)?);
            }
            match next.into_paging_control_flow() {
                ControlFlow::Continue(state) => from = state,
                ControlFlow::Break(()) => return Ok(all),
            }
        }
    }

    /// Its only row.
    pub async fn row<R>(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<Option<R>>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        Ok(self.rows(statement, values).await?.into_iter().next())
    }

    /// One row, while another server may be making the keyspace: see [`OWNED_AFTER`].
    pub async fn row_once_ours<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow + Clone,
    ) -> Result<Option<R>>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.row(statement, values.clone()).await {
                Err(StoreError::Unavailable(_)) if tries < OWNED_TRIES => tokio::time::sleep(OWNED_AFTER).await,
                done => return done,
            }
        }
    }

    /// Walks many rows; `each` says whether to go on.
    pub async fn scan<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        mut each: impl FnMut(R) -> Result<bool>,
    ) -> Result<()>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm> + 'static,
    {
        let unavailable = |e: &dyn std::fmt::Display| StoreError::Unavailable(e.to_string());
        let pager = self.session.execute_iter(statement.clone(), values).await.map_err(|e| unavailable(&e))?;
        let mut rows = pager.rows_stream::<R>().map_err(unreadable)?;
        while let Some(row) = rows.try_next().await.map_err(|e| unavailable(&e))? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    /// A plain write: it may be repeated, so an unknown outcome is no different from none.
    pub async fn write(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<()> {
        self.session.execute_unpaged(statement, values).await.map(drop).map_err(plain)
    }

    /// A conditional write. True if it was applied.
    pub async fn cas(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<bool> {
        applied(self.session.execute_unpaged(statement, values).await.map_err(conditional)?)
    }

    /// A batch from [`Self::conditional_batch`]. True if it was applied.
    pub async fn cas_batch(&self, batch: &Batch, values: impl BatchValues) -> Result<bool> {
        applied(self.session.batch(batch, values).await.map_err(conditional)?)
    }

    /// A conditional statement, and with it plain rows of the same partition: all or nothing. True if it was applied.
    pub async fn cas_partition(
        &self,
        (head, values): (&PreparedStatement, Vec<CqlValue>),
        row: &PreparedStatement,
        rows: &[Vec<CqlValue>],
    ) -> Result<bool> {
        if rows.is_empty() {
            return self.cas(head, values).await;
        }
        let batch = self.conditional_batch(&[&[head][..], &vec![row; rows.len()]].concat());
        self.cas_batch(&batch, [&[values][..], rows].concat()).await
    }
}

/// What every session has in common.
fn builder(url: &CqlUrl) -> std::result::Result<SessionBuilder, OpenError> {
    let mut builder = SessionBuilder::new().known_nodes(&url.hosts).connection_timeout(CONNECT_LIMIT);
    if let Some((user, password)) = &url.login {
        builder = builder.user(user, password);
    }
    #[cfg(feature = "cql-tls")]
    if let Some(ca) = &url.ca {
        builder = builder.tls_context(Some(super::tls::trusting(ca)?));
    }
    #[cfg(not(feature = "cql-tls"))]
    if url.ca.is_some() {
        return Err(OpenError::CqlTls);
    }
    Ok(builder)
}

fn hot(level: Level, patience: Arc<Patience>) -> ExecutionProfileBuilder {
    ExecutionProfile::builder()
        .consistency(level.plain())
        .request_timeout(Some(HOT_LIMIT))
        .retry_policy(Arc::new(DefaultRetryPolicy::new()))
        .speculative_execution_policy(Some(patience))
}

/// Asks once.
fn careful(level: Level, limit: Duration) -> ExecutionProfileBuilder {
    ExecutionProfile::builder()
        .consistency(level.plain())
        .serial_consistency(Some(level.conditional()))
        .request_timeout(Some(limit))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
}

/// A pause that is longer after each lost race, and different for each writer.
pub(super) async fn after_lost_race(tries: u32) {
    let spread = uuid::Uuid::new_v4().as_fields().0 % 16;
    tokio::time::sleep(Duration::from_millis(u64::from(spread * (tries.min(8) + 1)))).await;
}

/// The engines answer a conditional write in different shapes; the first column says whether it was applied in all of them.
fn applied(result: QueryResult) -> Result<bool> {
    let rows = result.into_rows_result().map_err(unreadable)?;
    match rows.first_row::<Row>().map_err(unreadable)?.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(StoreError::Unknown("the answer does not say whether the write was applied".into())),
    }
}

async fn not_connected(url: &CqlUrl, error: &NewSessionError) -> OpenError {
    let why = match tls_objection(url).await {
        Some(why) => why,
        None => error.to_string(),
    };
    OpenError::CqlUnreachable { hosts: url.hosts.join(", "), why }
}

#[cfg(feature = "cql-tls")]
async fn tls_objection(url: &CqlUrl) -> Option<String> {
    super::tls::objection(url.ca.as_ref()?, &url.hosts).await
}

#[cfg(not(feature = "cql-tls"))]
async fn tls_objection(_: &CqlUrl) -> Option<String> {
    None
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("cannot read the database's answer: {error}"))
}

/// Of a read, or of a write that may be repeated.
fn plain(error: ExecutionError) -> StoreError {
    if is_ours(&error) { StoreError::Corrupt(error.to_string()) } else { StoreError::Unavailable(error.to_string()) }
}

/// Of a conditional write: only what certainly came before its first round leaves nothing behind.
fn conditional(error: ExecutionError) -> StoreError {
    let text = error.to_string();
    if is_ours(&error) {
        return StoreError::Corrupt(text);
    }
    match &error {
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) | ExecutionError::PrepareError(_) => {
            StoreError::Unavailable(text)
        }
        ExecutionError::LastAttemptError(
            RequestAttemptError::UnableToAllocStreamId
            | RequestAttemptError::DbError(
                DbError::Unavailable { .. } | DbError::Overloaded | DbError::IsBootstrapping | DbError::Unauthorized,
                _,
            ),
        ) => StoreError::Unavailable(text),
        _ => StoreError::Unknown(text),
    }
}

fn is_forbidden(error: &ExecutionError) -> bool {
    matches!(error, ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unauthorized, _)))
}

/// The statement itself is wrong for this database: its schema is not ours.
fn is_ours(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::BadQuery(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                DbError::SyntaxError | DbError::Invalid,
                _
            ))
    )
}
