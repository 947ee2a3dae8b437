//! Receptions, by their keys.

use limpet_shared::UnixMicros;
use limpet_worker_core::model::{DedupKey, Reception};
use scylla::statement::prepared::PreparedStatement;

use super::{
    db::{Db, How},
    gate::Gate,
    json::decode_row,
    now,
};
use crate::{MOST_COPIES, OpenError, Result, StoreError, rows::Body, words::readable};

/// Honest copies of a frame are fewer, and are read at once. Of more, their times are read first.
const FEW: i32 = 128;
/// Receptions that one statement names: ScyllaDB takes a hundred.
const NAMED: usize = 100;

/// Statements about receptions.
pub(super) struct Receptions {
    put: PreparedStatement,
    put_compact: PreparedStatement,
    few: PreparedStatement,
    times: PreparedStatement,
    named: PreparedStatement,
    keys: PreparedStatement,
    keys_after: PreparedStatement,
}

impl Receptions {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put =
            "INSERT INTO $.reception (key, gateway, context, received_at, body, last_at) VALUES (?, ?, ?, ?, ?, ?)
                   USING TIMESTAMP ?";
        let put_compact =
            "INSERT INTO $.reception (key, gateway, context, received_at, body, packed, last_at) VALUES (?, ?, ?, ?, '', ?, ?)
                   USING TIMESTAMP ?";
        let named = "SELECT body, packed FROM $.reception WHERE key = ? AND (gateway, context) IN ?";
        Ok(Self {
            put: db.prepare(How::Write, put).await?,
            put_compact: db.prepare(How::Write, put_compact).await?,
            few: db
                .prepare(How::Read, "SELECT received_at, body, packed FROM $.reception WHERE key = ? LIMIT ?")
                .await?,
            times: db.prepare(How::Scan, "SELECT gateway, context, received_at FROM $.reception WHERE key = ?").await?,
            named: db.prepare(How::Scan, named).await?,
            keys: db.prepare(How::Scan, "SELECT DISTINCT key, last_at FROM $.reception").await?,
            keys_after: db
                .prepare(How::Scan, "SELECT DISTINCT key, last_at FROM $.reception WHERE token(key) > token(?)")
                .await?,
        })
    }

    pub async fn put(&self, db: &Db, reception: &Reception) -> Result<()> {
        let at = i64::try_from(reception.received_at.0).unwrap_or(i64::MAX);
        let (key, gateway) = (reception.key.0.to_be_bytes(), reception.gateway.to_string());
        let (context, stamp) = (reception.context.cast_signed(), stamp(reception.received_at));
        match db.form().encode(reception)? {
            Body::Json(body) => db.write(&self.put, (&key[..], gateway, context, at, body, at, stamp)).await,
            Body::Compact(packed) => {
                db.write(&self.put_compact, (&key[..], gateway, context, at, packed, at, stamp)).await
            }
        }
    }

    /// Those received at or after `since`. A frame that is replayed without end is read with patience, and takes no place in the
    /// gate meanwhile.
    pub async fn of_key(&self, db: &Db, gate: &Gate, key: DedupKey, since: UnixMicros) -> Result<Vec<Reception>> {
        let bytes = key.0.to_be_bytes();
        let mut rows: Vec<(i64, String, Option<Vec<u8>>)> = gate.through(db.rows(&self.few, (&bytes[..], FEW))).await?;
        let mut found = if rows.len() < FEW as usize {
            rows.retain(|(at, ..)| at.cast_unsigned() >= since.0);
            readable(rows.iter().map(|(_, body, packed)| decode_row(body, packed.as_deref())))?
        } else {
            self.latest(db, &bytes, since).await?
        };
        found.sort_by_key(|r| (r.received_at, r.gateway, r.context));
        Ok(found)
    }

    /// Of very many the [`MOST_COPIES`] received last, whatever their gateways are called.
    async fn latest(&self, db: &Db, key: &[u8], since: UnixMicros) -> Result<Vec<Reception>> {
        let mut times: Vec<(i64, (String, i64))> = Vec::new();
        let collect = |(gateway, context, at): (String, i64, i64)| {
            if at.cast_unsigned() >= since.0 {
                times.push((at, (gateway, context)));
            }
            // Memory stays bounded: what is not among the latest of these is not among the latest of all.
            if times.len() >= 64 * MOST_COPIES {
                keep_latest(&mut times);
            }
            Ok(true)
        };
        db.scan(&self.times, (key,), collect).await?;
        keep_latest(&mut times);
        let names: Vec<_> = times.into_iter().map(|(_, name)| name).collect();
        let mut bodies: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        for some in names.chunks(NAMED) {
            bodies.extend(db.rows(&self.named, (key, some)).await?);
        }
        readable(bodies.iter().map(|(body, packed)| decode_row(body, packed.as_deref())))
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

fn keep_latest(times: &mut Vec<(i64, (String, i64))>) {
    times.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    times.truncate(MOST_COPIES);
}

/// Databases refuse timestamps that are days ahead, and one that is ahead at all hides what is written until then.
const AHEAD: i64 = 60_000_000;

/// A time that another's clock told, as the timestamp of a write: the later one wins, column by column, but none is later than
/// our own clock allows.
pub(super) fn stamp(at: UnixMicros) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX).min(now().saturating_add(AHEAD))
}
