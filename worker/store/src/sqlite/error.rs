//! What SQLite says, in the store's words; and rows to and from JSON.

use rusqlite::{
    Connection, ErrorCode, Params, Row, ToSql,
    types::{ToSqlOutput, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Result, StoreError,
    rows::{self, Body, Stored},
};

impl From<rusqlite::Error> for StoreError {
    /// Before a commit nothing is written, so what the machine did not do is `Unavailable`; what the file holds and we
    /// cannot read is `Corrupt`.
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => Self::Corrupt(text),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => Self::Corrupt(text),
            Some(_) => Self::Unavailable(text),
            None => Self::Corrupt(text),
        }
    }
}

pub(super) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(format!("cannot write a row: {e}")))
}

/// What column `at` of the row holds.
pub(super) fn decode<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<T> {
    let corrupt = |e: &dyn std::fmt::Display| StoreError::Corrupt(format!("cannot read a row: {e}"));
    let text = row.get_ref(at)?.as_str().map_err(|e| corrupt(&e))?;
    serde_json::from_str(text).map_err(|e| corrupt(&e))
}

/// The same of a row that has a form of its own: a blob in a column of texts is compact.
pub(super) fn decode_row<T: Stored>(row: &Row<'_>, at: usize) -> Result<T> {
    match row.get_ref(at)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => rows::decode(bytes),
        _ => Err(StoreError::Corrupt("cannot read a row: it holds nothing".into())),
    }
}

impl ToSql for Body {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Json(text) => ValueRef::Text(text.as_bytes()),
            Self::Compact(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Keys in a row are wrapped as column `at` says. This version knows 0 only: not wrapped.
pub(super) fn check_wrap(row: &Row<'_>, at: usize) -> Result<()> {
    match row.get(at)? {
        0 => Ok(()),
        wrap => {
            let wrap: i64 = wrap;
            Err(StoreError::Corrupt(format!("device keys are wrapped in a way (version {wrap}) of a newer Limpet")))
        }
    }
}

pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    conn.prepare_cached(sql)?.query_and_then(params, read)?.collect()
}

pub(super) fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

/// How many rows it changed.
pub(super) fn execute(conn: &Connection, sql: &str, params: impl Params) -> Result<usize> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

/// Times and counters as SQLite has them. Beyond its range they are cut: such a value is nonsense, and `body` keeps it.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
