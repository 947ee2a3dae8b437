//! Receptions, by their keys.

use limpet_shared::UnixMicros;
use limpet_worker_core::model::{DedupKey, Reception};
use scylla::statement::prepared::PreparedStatement;

use super::{
    db::{Db, How},
    json::{decode, encode},
    now,
};
use crate::{MOST_COPIES, OpenError, Result, StoreError};

/// Receptions of one key that are read before only the latest are kept.
const READ_AT_MOST: i32 = 20_000;

/// Statements about receptions.
pub(super) struct Receptions {
    put: PreparedStatement,
    of_key: PreparedStatement,
    keys: PreparedStatement,
    keys_after: PreparedStatement,
}

impl Receptions {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put =
            "INSERT INTO $.reception (key, gateway, context, received_at, body, last_at) VALUES (?, ?, ?, ?, ?, ?)
                   USING TIMESTAMP ?";
        Ok(Self {
            put: db.prepare(How::Write, put).await?,
            of_key: db.prepare(How::Read, "SELECT received_at, body FROM $.reception WHERE key = ? LIMIT ?").await?,
            keys: db.prepare(How::Scan, "SELECT DISTINCT key, last_at FROM $.reception").await?,
            keys_after: db
                .prepare(How::Scan, "SELECT DISTINCT key, last_at FROM $.reception WHERE token(key) > token(?)")
                .await?,
        })
    }

    pub async fn put(&self, db: &Db, reception: &Reception) -> Result<()> {
        let at = i64::try_from(reception.received_at.0).unwrap_or(i64::MAX);
        let (key, gateway) = (reception.key.0.to_be_bytes(), reception.gateway.to_string());
        let context = reception.context.cast_signed();
        let values = (&key[..], gateway, context, at, encode(reception)?, at, stamp(reception.received_at));
        db.write(&self.put, values).await
    }

    /// Those received at or after `since`.
    pub async fn of_key(&self, db: &Db, key: DedupKey, since: UnixMicros) -> Result<Vec<Reception>> {
        let key = key.0.to_be_bytes();
        let mut rows: Vec<(i64, String)> = db.rows(&self.of_key, (&key[..], READ_AT_MOST)).await?;
        rows.retain(|(at, _)| at.cast_unsigned() >= since.0);
        rows.sort_by_key(|(at, _)| *at);
        let latest = rows.split_off(rows.len().saturating_sub(MOST_COPIES));
        let mut found: Vec<Reception> = latest.iter().map(|(_, body)| decode(body)).collect::<Result<_>>()?;
        found.sort_by_key(|r| (r.received_at, r.gateway, r.context));
        Ok(found)
    }

    /// In the order of the ring of the database.
    pub async fn keys(&self, db: &Db, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        let collect = |(key, last_at): (Vec<u8>, Option<i64>)| {
            // Without a time it is what is left of a partition that has expired.
            if last_at.is_some_and(|at| at.cast_unsigned() >= since.0) {
                let bytes = key.as_slice().try_into();
                let bytes = bytes.map_err(|_| StoreError::Corrupt("a deduplication key is not of 16 bytes".into()))?;
                found.push(DedupKey(u128::from_be_bytes(bytes)));
            }
            Ok(found.len() < limit as usize)
        };
        match after {
            None => db.scan(&self.keys, (), collect).await?,
            Some(key) => db.scan(&self.keys_after, (&key.0.to_be_bytes()[..],), collect).await?,
        }
        Ok(found)
    }
}

/// Databases refuse timestamps that are days ahead, and one that is ahead at all hides what is written until then.
const AHEAD: i64 = 60_000_000;

/// A time that another's clock told, as the timestamp of a write: the later one wins, column by column, but none is later than
/// our own clock allows.
pub(super) fn stamp(at: UnixMicros) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX).min(now().saturating_add(AHEAD))
}
