//! Leases: who may do for a while what one worker at a time does.

use limpet_shared::UnixMicros;
use scylla::statement::prepared::PreparedStatement;

use tokio::time::Instant;

use super::db::{Db, How};
use crate::{OpenError, Result, StoreError, lease_ends::LeaseEnds};

/// Statements about leases.
pub(super) struct Leases {
    read: PreparedStatement,
    read_serial: PreparedStatement,
    take_first: PreparedStatement,
    take_next: PreparedStatement,
    ends: LeaseEnds,
}

impl Leases {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let read = "SELECT holder, until FROM $.lease WHERE name = ?";
        let first = "INSERT INTO $.lease (name, holder, until) VALUES (?, ?, ?) IF NOT EXISTS";
        let next = "UPDATE $.lease SET holder = ?, until = ? WHERE name = ? IF holder = ? AND until = ?";
        Ok(Self {
            read: db.prepare(How::Read, read).await?,
            read_serial: db.prepare(How::Serial, read).await?,
            take_first: db.prepare(How::Cas, first).await?,
            take_next: db.prepare(How::Cas, next).await?,
            ends: LeaseEnds::default(),
        })
    }

    /// Asking costs a plain read as long as there is nothing to change: a conditional write is made only when the lease is
    /// free, or its holder has less than two thirds left of what it asks for.
    pub async fn take(&self, db: &Db, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
        let (now, until) = (now.0.cast_signed(), until.0.cast_signed());
        let seen: Option<(String, i64)> = db.row(&self.read, (name,)).await?;
        // What may be told without a write.
        let lasts = now + (until - now) / 3 * 2;
        let is_over =
            |other: &str, ends: i64| ends <= now || self.ends.is_stale((name, holder), other, ends, Instant::now());
        let taken = match &seen {
            None => db.cas(&self.take_first, (name, holder, until)).await,
            Some((other, ends)) if other != holder && !is_over(other, *ends) => return Ok(false),
            Some((mine, ends)) if mine == holder && until > now && (lasts..=until).contains(ends) => return Ok(true),
            Some((other, ends)) => db.cas(&self.take_next, (holder, until, name, other, ends)).await,
        };
        match taken {
            // The same holder may have asked twice at a time.
            Ok(false) | Err(StoreError::Unknown(_)) => {
                let holds: Option<(String, i64)> = db.row(&self.read_serial, (name,)).await?;
                Ok(holds.is_some_and(|(mine, ends)| mine == holder && ends >= lasts))
            }
            answer => answer,
        }
    }
}
