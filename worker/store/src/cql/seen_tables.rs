//! When devices and gateways were heard last, and what was learnt of them then.

use std::collections::HashMap;

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::{DeviceSeen, GatewaySeen};
use scylla::statement::prepared::PreparedStatement;

use super::{
    db::{Db, How},
    json::{decode, encode},
    receptions::stamp,
};
use crate::{OpenError, Result};

/// Statements about when devices and gateways were heard.
pub(super) struct SeenTables {
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

impl SeenTables {
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
