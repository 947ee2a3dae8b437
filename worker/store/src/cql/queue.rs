//! Downlink queues: one partition a device, numbered by compare-and-set.

use limpet_shared::Eui64;
use limpet_worker_core::model::QueueItem;
use scylla::{
    statement::{batch::Batch, prepared::PreparedStatement},
    value::CqlValue::{BigInt, Text},
};

use super::{
    db::{Db, How, after_lost_race},
    json::{decode, encode},
};
use crate::{OpenError, Result, StoreError, words};

/// The clustering row with the last number.
const HEAD: i64 = 0;
/// How often a number is asked for when others are faster.
const TRIES: u32 = 200;
/// Items that one batch deletes, and batches in which the longest queue is flushed, some of them lost to faster writers.
const FLUSH_AT_ONCE: i32 = 50;
const FLUSH_ROUNDS: u32 = 1_000;
/// A queue that is longer is refused: what waits so long is not wanted any more.
const LONGEST: i32 = 10_000;

/// Statements about queues.
pub(super) struct Queues {
    head: PreparedStatement,
    head_serial: PreparedStatement,
    last: PreparedStatement,
    ids: PreparedStatement,
    items: PreparedStatement,
    delete: PreparedStatement,
    delete_head: PreparedStatement,
    any: PreparedStatement,
    first: Batch,
    next: Batch,
    same: PreparedStatement,
    take: PreparedStatement,
}

impl Queues {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let item = "INSERT INTO $.downlink_queue (dev_eui, seq, item, body) VALUES (?, ?, ?, ?)";
        let first = "INSERT INTO $.downlink_queue (dev_eui, seq, last, low) VALUES (?, 0, ?, ?) IF NOT EXISTS";
        let next = "UPDATE $.downlink_queue SET last = ?, low = ? WHERE dev_eui = ? AND seq = 0 IF last = ?";
        let item = db.prepare(How::Cas, item).await?;
        let (first, next) = (db.prepare(How::Cas, first).await?, db.prepare(How::Cas, next).await?);
        let head = "SELECT last, low FROM $.downlink_queue WHERE dev_eui = ? AND seq = 0";
        let last = "SELECT last FROM $.downlink_queue WHERE dev_eui = ? AND seq = 0";
        let ids = "SELECT seq, item FROM $.downlink_queue WHERE dev_eui = ? AND seq > ? LIMIT ?";
        let items = "SELECT body FROM $.downlink_queue WHERE dev_eui = ? AND seq > ? LIMIT ?";
        let delete = "DELETE FROM $.downlink_queue WHERE dev_eui = ? AND seq = ? IF EXISTS";
        let delete_head = "DELETE FROM $.downlink_queue WHERE dev_eui = ? AND seq = 0 IF last = ?";
        Ok(Self {
            head: db.prepare(How::Read, head).await?,
            head_serial: db.prepare(How::Serial, head).await?,
            last: db.prepare(How::Read, last).await?,
            ids: db.prepare(How::Serial, ids).await?,
            items: db.prepare(How::Read, items).await?,
            delete: db.prepare(How::Cas, delete).await?,
            delete_head: db.prepare(How::Cas, delete_head).await?,
            any: db.prepare(How::Serial, "SELECT seq FROM $.downlink_queue WHERE dev_eui = ? LIMIT 1").await?,
            first: db.conditional_batch(&[&first, &item]),
            next: db.conditional_batch(&[&next, &item]),
            same: next,
            take: db.prepare(How::Cas, "DELETE FROM $.downlink_queue WHERE dev_eui = ? AND seq = ?").await?,
        })
    }

    async fn head(&self, db: &Db, device: &str, statement: &PreparedStatement) -> Result<Option<(i64, i64)>> {
        let head: Option<(i64, Option<i64>)> = db.row(statement, (device,)).await?;
        Ok(head.map(|(last, low)| (last, low.unwrap_or_default())))
    }

    /// The last number that was given, and up to which number nothing waits.
    pub async fn numbers(&self, db: &Db, dev_eui: Eui64) -> Result<(u64, u64)> {
        let (last, low) = self.head(db, &dev_eui.to_string(), &self.head_serial).await?.unwrap_or_default();
        Ok((last.cast_unsigned(), low.cast_unsigned()))
    }

    /// The last number that was given, by writes that are over.
    pub async fn last(&self, db: &Db, dev_eui: Eui64) -> Result<u64> {
        let last: Option<(i64,)> = db.row(&self.last, (dev_eui.to_string(),)).await?;
        Ok(last.map_or(0, |(last,)| last.cast_unsigned()))
    }

    /// The number and the item in one batch, on the condition that nobody took that number meanwhile. So the last number may
    /// be an old one: it is read before the items are, and that read settles all writes begun before it. Then either no item
    /// is missing among them, or the batch is refused.
    pub async fn enqueue(&self, db: &Db, mut item: QueueItem) -> Result<QueueItem> {
        let device = item.dev_eui.to_string();
        let mut uncertain = false;
        for tries in 0..TRIES {
            let head = self.head(db, &device, &self.head).await?;
            let (last, low) = head.unwrap_or_default();
            // Nothing waits up to `low`, so that what was delivered long ago is not walked through each time.
            let ids: Vec<(i64, Option<String>)> = db.rows(&self.ids, (&device, low.max(HEAD), LONGEST)).await?;
            let same = ids.iter().find(|(_, id)| id.as_deref() == Some(&item.id)).map(|(seq, _)| *seq);
            match same {
                Some(seq) if uncertain && self.is_mine(db, &device, seq, &item).await? => {
                    item.seq = seq.cast_unsigned();
                    return Ok(item);
                }
                Some(_) => return Err(words::exists("queue item", &item.id)),
                None if ids.len() >= LONGEST as usize => {
                    return Err(StoreError::Unavailable(format!("the queue of {device} is full ({LONGEST} items)")));
                }
                None => {}
            }
            let seq = last + 1;
            // What is left behind the last number is of an owner whose deletion has broken off: it hides nothing.
            let low = ids.first().map_or(last, |(first, _)| (first - 1).min(last));
            item.seq = seq.cast_unsigned();
            let row = (&device, seq, &item.id, encode(&item)?);
            let applied = match head {
                None => db.cas_batch(&self.first, ((&device, seq, low), row)).await,
                Some(_) => db.cas_batch(&self.next, ((seq, low, &device, last), row)).await,
            };
            match applied {
                Ok(true) => return Ok(item),
                Ok(false) => after_lost_race(tries).await,
                Err(StoreError::Unknown(_)) => uncertain = true,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable(format!("too many writers at the queue of {device}")))
    }

    /// Whether the item at this number is the one that was being written.
    async fn is_mine(&self, db: &Db, device: &str, seq: i64, item: &QueueItem) -> Result<bool> {
        let found: Option<(String,)> = db.row(&self.items, (device, seq - 1, 1)).await?;
        let Some((body,)) = found else { return Ok(false) };
        let found: QueueItem = decode(&body)?;
        Ok(QueueItem { seq: 0, ..found } == QueueItem { seq: 0, ..item.clone() })
    }

    pub async fn items(&self, db: &Db, dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>> {
        let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
        let limit = i32::try_from(limit).unwrap_or(i32::MAX).min(LONGEST);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let device = dev_eui.to_string();
        let mut after = after;
        if after == HEAD {
            // From the start: what was delivered long ago is not walked through, and most queues are empty.
            match self.head(db, &device, &self.head).await? {
                Some((last, low)) if low < last => after = low,
                _ => return Ok(Vec::new()),
            }
        }
        let found: Vec<(String,)> = db.rows(&self.items, (device, after, limit)).await?;
        found.iter().map(|(body,)| decode(body)).collect()
    }

    pub async fn delete(&self, db: &Db, dev_eui: Eui64, seq: u64) -> Result<()> {
        let Ok(seq @ 1..) = i64::try_from(seq) else { return Ok(()) };
        db.cas(&self.delete, (dev_eui.to_string(), seq)).await.map(drop)
    }

    /// Some items in one batch each, on the condition that none was added meanwhile, with the note that nothing waits up to the
    /// last of them. Without a head nobody counts on them, and each goes by itself.
    pub async fn flush(&self, db: &Db, dev_eui: Eui64, upto: u64) -> Result<()> {
        let (device, upto) = (dev_eui.to_string(), i64::try_from(upto).unwrap_or(i64::MAX));
        for tries in 0..FLUSH_ROUNDS {
            let head = self.head(db, &device, &self.head_serial).await?;
            let (last, low) = head.unwrap_or_default();
            let ids: Vec<(i64, Option<String>)> = db.rows(&self.ids, (&device, low.max(HEAD), FLUSH_AT_ONCE)).await?;
            let gone: Vec<i64> = ids.into_iter().map(|(seq, _)| seq).take_while(|seq| *seq <= upto).collect();
            let Some(highest) = gone.last() else { return Ok(()) };
            if head.is_none() {
                for seq in gone {
                    db.cas(&self.delete, (&device, seq)).await?;
                }
                continue;
            }
            // A head counts nothing that waits behind its last number as gone.
            let highest = &last.min(*highest);
            let head = vec![BigInt(last), BigInt(*highest), Text(device.clone()), BigInt(last)];
            let rows: Vec<_> = gone.iter().map(|seq| vec![Text(device.clone()), BigInt(*seq)]).collect();
            match db.cas_partition((&self.same, head), &self.take, &rows).await {
                Ok(true) | Err(StoreError::Unknown(_)) => {}
                Ok(false) => after_lost_race(tries).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown(format!("the queue of {dev_eui} was not flushed whole")))
    }

    /// Whether there is anything that [`Self::delete_device`] would delete.
    pub async fn has_any(&self, db: &Db, dev_eui: Eui64) -> Result<bool> {
        Ok(!db.rows::<(i64,)>(&self.any, (dev_eui.to_string(),)).await?.is_empty())
    }

    /// Everything of a device that is gone: also the number, unless another item came meanwhile, which goes first.
    pub async fn delete_device(&self, db: &Db, dev_eui: Eui64) -> Result<()> {
        let device = dev_eui.to_string();
        for tries in 0..TRIES {
            let head = self.head(db, &device, &self.head_serial).await?;
            self.flush(db, dev_eui, u64::MAX).await?;
            let Some((last, _)) = head else { return Ok(()) };
            if db.cas(&self.delete_head, (&device, last)).await? {
                return Ok(());
            }
            after_lost_race(tries).await;
        }
        Err(StoreError::Unavailable(format!("too many writers at the queue of {device}")))
    }
}
