//! Receptions, leases, and when things were heard.

use std::collections::HashMap;

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::{DedupKey, DeviceSeen, GatewaySeen, Reception};
use scylla::statement::prepared::PreparedStatement;

use super::{
    db::{Db, How},
    json::{decode, encode},
    now,
};
use crate::{MOST_COPIES, OpenError, Result, StoreError};

/// Receptions of one key that are read before only the latest are kept.
const READ_AT_MOST: i32 = 20_000;

/// Statements about receptions and leases.
pub(super) struct Receptions {
    put: PreparedStatement,
    of_key: PreparedStatement,
    keys: PreparedStatement,
    keys_after: PreparedStatement,
    lease: PreparedStatement,
    lease_serial: PreparedStatement,
    lease_first: PreparedStatement,
    lease_next: PreparedStatement,
}

impl Receptions {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put =
            "INSERT INTO $.reception (key, gateway, context, received_at, body, last_at) VALUES (?, ?, ?, ?, ?, ?)
                   USING TIMESTAMP ?";
        let lease = "SELECT holder, until FROM $.lease WHERE name = ?";
        let first = "INSERT INTO $.lease (name, holder, until) VALUES (?, ?, ?) IF NOT EXISTS";
        let next = "UPDATE $.lease SET holder = ?, until = ? WHERE name = ? IF holder = ? AND until = ?";
        Ok(Self {
            put: db.prepare(How::Write, put).await?,
            of_key: db.prepare(How::Read, "SELECT received_at, body FROM $.reception WHERE key = ? LIMIT ?").await?,
            keys: db.prepare(How::Scan, "SELECT DISTINCT key, last_at FROM $.reception").await?,
            keys_after: db
                .prepare(How::Scan, "SELECT DISTINCT key, last_at FROM $.reception WHERE token(key) > token(?)")
                .await?,
            lease: db.prepare(How::Read, lease).await?,
            lease_serial: db.prepare(How::Serial, lease).await?,
            lease_first: db.prepare(How::Cas, first).await?,
            lease_next: db.prepare(How::Cas, next).await?,
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

    /// Asking costs a plain read as long as there is nothing to change: a conditional write is made only when the lease is
    /// free, or its holder has less than two thirds left of what it asks for.
    pub async fn lease(&self, db: &Db, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool> {
        let (now, until) = (now.0.cast_signed(), until.0.cast_signed());
        let seen: Option<(String, i64)> = db.row(&self.lease, (name,)).await?;
        let taken = match &seen {
            None => db.cas(&self.lease_first, (name, holder, until)).await,
            Some((other, ends)) if other != holder && *ends > now => return Ok(false),
            Some((mine, ends))
                if mine == holder && until > now && (now + (until - now) / 3 * 2..=until).contains(ends) =>
            {
                return Ok(true);
            }
            Some((other, ends)) => db.cas(&self.lease_next, (holder, until, name, other, ends)).await,
        };
        match taken {
            Err(StoreError::Unknown(_)) => {
                let holds: Option<(String, i64)> = db.row(&self.lease_serial, (name,)).await?;
                Ok(holds == Some((holder.to_owned(), until)))
            }
            answer => answer,
        }
    }
}

/// Statements about when devices and gateways were heard.
pub(super) struct Heard {
    put_device: PreparedStatement,
    device: PreparedStatement,
    put_gateway: PreparedStatement,
    all_gateways: PreparedStatement,
    gateway: PreparedStatement,
    device_written: PreparedStatement,
    gateway_written: PreparedStatement,
    forget_device: PreparedStatement,
    forget_gateway: PreparedStatement,
}

impl Heard {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put_device =
            "INSERT INTO $.device_seen (id, last_seen_at, data_rate, battery, margin) VALUES (?, ?, ?, ?, ?)
                          USING TIMESTAMP ?";
        let put_gateway = "INSERT INTO $.gateway_seen (id, last_seen_at, address, location) VALUES (?, ?, ?, ?)
                           USING TIMESTAMP ?";
        let device_written =
            "SELECT WRITETIME(last_seen_at), WRITETIME(data_rate), WRITETIME(battery), WRITETIME(margin)
                              FROM $.device_seen WHERE id = ?";
        let gateway_written = "SELECT WRITETIME(last_seen_at), WRITETIME(address), WRITETIME(location)
                               FROM $.gateway_seen WHERE id = ?";
        let device = "SELECT last_seen_at, data_rate, battery, margin FROM $.device_seen WHERE id = ?";
        let gateway = "SELECT last_seen_at, address, location FROM $.gateway_seen WHERE id = ?";
        Ok(Self {
            put_device: db.prepare(How::Write, put_device).await?,
            device: db.prepare(How::Read, device).await?,
            put_gateway: db.prepare(How::Write, put_gateway).await?,
            gateway: db.prepare(How::Read, gateway).await?,
            all_gateways: db.prepare(How::Scan, "SELECT id, last_seen_at FROM $.gateway_seen").await?,
            device_written: db.prepare(How::Read, device_written).await?,
            gateway_written: db.prepare(How::Read, gateway_written).await?,
            forget_device: db.prepare(How::Write, "DELETE FROM $.device_seen USING TIMESTAMP ? WHERE id = ?").await?,
            forget_gateway: db.prepare(How::Write, "DELETE FROM $.gateway_seen USING TIMESTAMP ? WHERE id = ?").await?,
        })
    }

    pub async fn put_device(&self, db: &Db, dev_eui: Eui64, seen: &DeviceSeen) -> Result<()> {
        let at = seen.last_seen_at.map_or(0, stamp);
        let small = |value: Option<u8>| set(value.map(i32::from));
        let values = (
            dev_eui.to_string(),
            set(seen.last_seen_at.map(|at| at.0.cast_signed())),
            small(seen.data_rate),
            small(seen.battery),
            set(seen.margin.map(i32::from)),
            at,
        );
        db.write(&self.put_device, values).await
    }

    pub async fn device(&self, db: &Db, dev_eui: &str) -> Result<DeviceSeen> {
        type Columns = (Option<i64>, Option<i32>, Option<i32>, Option<i32>);
        let found: Option<Columns> = db.row(&self.device, (dev_eui,)).await?;
        let (at, data_rate, battery, margin) = found.unwrap_or_default();
        let small = |value: Option<i32>| value.and_then(|v| u8::try_from(v).ok());
        Ok(DeviceSeen {
            last_seen_at: at.map(|at| UnixMicros(at.cast_unsigned())),
            data_rate: small(data_rate),
            battery: small(battery),
            margin: margin.and_then(|v| i8::try_from(v).ok()),
        })
    }

    pub async fn put_gateway(&self, db: &Db, eui: Eui64, seen: &GatewaySeen) -> Result<()> {
        let location = seen.location.as_ref().map(encode).transpose()?;
        let at = set(seen.last_seen_at.map(|at| at.0.cast_signed()));
        let written = seen.last_seen_at.map_or(0, stamp);
        let values = (eui.to_string(), at, set(seen.address.clone()), set(location), written);
        db.write(&self.put_gateway, values).await
    }

    pub async fn gateway(&self, db: &Db, eui: &str) -> Result<GatewaySeen> {
        let found: Option<(Option<i64>, Option<String>, Option<String>)> = db.row(&self.gateway, (eui,)).await?;
        let (at, address, location) = found.unwrap_or_default();
        let location = location.as_deref().map(decode).transpose()?;
        Ok(GatewaySeen { last_seen_at: at.map(|at| UnixMicros(at.cast_unsigned())), address, location })
    }

    /// When each gateway was heard last.
    pub async fn all_gateways(&self, db: &Db) -> Result<HashMap<Eui64, UnixMicros>> {
        let mut all = HashMap::new();
        let collect = |(eui, at): (String, Option<i64>)| {
            if let (Ok(eui), Some(at)) = (eui.parse(), at) {
                all.insert(eui, UnixMicros(at.cast_unsigned()));
            }
            Ok(true)
        };
        db.scan(&self.all_gateways, (), collect).await?;
        Ok(all)
    }

    /// Of a device that is gone; up to the last note, for a deletion at today's time would hide notes of its successor.
    pub async fn forget_device(&self, db: &Db, dev_eui: &str) -> Result<()> {
        type Columns = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let found: Option<Columns> = db.row(&self.device_written, (dev_eui,)).await?;
        let Some((at, data_rate, battery, margin)) = found else { return Ok(()) };
        let last = at.max(data_rate).max(battery).max(margin);
        db.write(&self.forget_device, (last.unwrap_or_default(), dev_eui)).await
    }

    pub async fn forget_gateway(&self, db: &Db, eui: &str) -> Result<()> {
        type Columns = (Option<i64>, Option<i64>, Option<i64>);
        let found: Option<Columns> = db.row(&self.gateway_written, (eui,)).await?;
        let Some((at, address, location)) = found else { return Ok(()) };
        let last = at.max(address).max(location);
        db.write(&self.forget_gateway, (last.unwrap_or_default(), eui)).await
    }
}

/// A column that a note leaves out stays as it was.
fn set<T>(value: Option<T>) -> scylla::value::MaybeUnset<T> {
    value.map_or(scylla::value::MaybeUnset::Unset, scylla::value::MaybeUnset::Set)
}

/// Databases refuse timestamps that are days ahead, and one that is ahead at all hides what is written until then.
const AHEAD: i64 = 60_000_000;

/// A time that another's clock told, as the timestamp of a write: the later one wins, column by column, but none is later than
/// our own clock allows.
fn stamp(at: UnixMicros) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX).min(now().saturating_add(AHEAD))
}
