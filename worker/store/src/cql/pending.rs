//! Events that an integration has not taken yet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use limpet_shared::{Eui64, UnixMicros};
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;

use super::{
    db::{Db, How},
    json::{decode, encode, parse},
    now,
};
use crate::{Backlog, IntegrationId, OpenError, PendingBounds, PendingEvent, Result, Trimmed, words::in_turn};

/// From here timestamps count down with the time of writing, so that the first writer of an event wins.
const FIRST_WINS: i64 = 2_500_000_000_000_000;
/// A deletion is made at this time, the year 2001. What was written from 2017 to 2049 is older, so that no later writer of the
/// same event overtakes it. All of this lies in the past: ScyllaDB refuses what is days ahead.
const DELETED_AT: i64 = 1_000_000_000_000_000;
/// Events whose deletion needs a time of its own, as read last. More than that are read again first.
const MOST_AHEAD: usize = 10_000;
/// Devices whose oldest event is looked up at one moment, and in one call at most.
const AT_ONCE: usize = 16;
const MOST_DEVICES: usize = 100_000;
/// Events dropped by one call at most; the next one goes on.
const MOST_TRIMMED: u64 = 100_000;
/// How often the table itself is walked for devices that are missing in the list: a writer whose clock is behind, or that
/// died between two writes, may have left one out.
const SEARCH_EVERY: Duration = Duration::from_secs(60);

/// Statements about pending events.
pub(super) struct Pending {
    put: PreparedStatement,
    first: PreparedStatement,
    events: PreparedStatement,
    keys: PreparedStatement,
    delete: PreparedStatement,
    size: PreparedStatement,
    oldest: PreparedStatement,
    list: PreparedStatement,
    listed: PreparedStatement,
    unlist: PreparedStatement,
    any: PreparedStatement,
    devices: PreparedStatement,
    search: PreparedStatement,
    /// When the table was searched last (Unix, us).
    searched: AtomicI64,
    /// Events that an earlier version wrote, with timestamps that lie ahead: when each was written.
    ahead: Mutex<HashMap<Key, i64>>,
}

/// Integration, device, session start, slot, part, as stored.
type Key = (String, String, i64, i64, i64);

/// A device in the list: since when something waits, and when that was written.
type Listed = (String, String, i64, i64);

impl Pending {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        use How::{Read, Scan, Write};
        let of = "integration = ? AND device = ?";
        let key = &format!("{of} AND session_since = ? AND slot = ? AND part = ?");
        let put = "INSERT INTO $.pending (integration, device, session_since, slot, part, written_at, bytes, body)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
        let delete = &format!("DELETE FROM $.pending USING TIMESTAMP ? WHERE {key}");
        let list =
            "INSERT INTO $.pending_device (one, integration, device, since) VALUES (0, ?, ?, ?) USING TIMESTAMP ?";
        let unlist = &format!("DELETE FROM $.pending_device USING TIMESTAMP ? WHERE one = 0 AND {of}");
        Ok(Self {
            put: db.prepare(Write, put).await?,
            first: db.prepare(Read, &format!("SELECT slot FROM $.pending WHERE {of} LIMIT 1")).await?,
            events: db
                .prepare(
                    Read,
                    &format!(
                        "SELECT session_since, slot, part, body, WRITETIME(body) FROM $.pending WHERE {of} LIMIT ?"
                    ),
                )
                .await?,
            keys: db
                .prepare(
                    Scan,
                    &format!(
                        "SELECT session_since, slot, part, written_at, bytes, WRITETIME(body) FROM $.pending WHERE {of}"
                    ),
                )
                .await?,
            delete: db.prepare(Write, delete).await?,
            size: db
                .prepare(Read, &format!("SELECT count(*), sum(bytes), min(written_at) FROM $.pending WHERE {of}"))
                .await?,
            oldest: db.prepare(Read, &format!("SELECT min(written_at) FROM $.pending WHERE {of}")).await?,
            list: db.prepare(Write, list).await?,
            listed: db.prepare(Read, &format!("SELECT since FROM $.pending_device WHERE one = 0 AND {of}")).await?,
            unlist: db.prepare(Write, unlist).await?,
            any: db.prepare(Read, "SELECT integration FROM $.pending_device WHERE one = 0 LIMIT 1").await?,
            devices: db
                .prepare(
                    Scan,
                    "SELECT integration, device, since, WRITETIME(since) FROM $.pending_device WHERE one = 0",
                )
                .await?,
            search: db.prepare(Scan, "SELECT DISTINCT integration, device FROM $.pending").await?,
            searched: AtomicI64::new(now()),
            ahead: Mutex::default(),
        })
    }

    pub async fn put(&self, db: &Db, event: &PendingEvent) -> Result<()> {
        let (integration, device, since, slot, part) = key_of(event);
        let (body, at) = (encode(&event.event)?, now());
        let values = (&integration, &device, since, slot, part, at, body.len() as i64, &body, FIRST_WINS - at);
        // The event first: a device that is not listed is found by the search, an event that is not there by nothing.
        db.write(&self.put, values).await?;
        self.list(db, &integration, &device, at).await
    }

    async fn list(&self, db: &Db, integration: &str, device: &str, at: i64) -> Result<()> {
        let listed: Option<(i64,)> = db.row(&self.listed, (integration, device)).await?;
        // Written again in any case, so that whoever found the device empty just before does not take this out.
        let since = listed.map_or(at, |(since,)| since);
        db.write(&self.list, (integration, device, since, at)).await
    }

    pub async fn has(&self, db: &Db, integration: IntegrationId, device: Eui64) -> Result<bool> {
        let found: Option<(i64,)> = db.row(&self.first, (integration.0.to_string(), device.to_string())).await?;
        Ok(found.is_some())
    }

    async fn listed(&self, db: &Db) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        let collect = |row: Listed| {
            all.push(row);
            Ok(all.len() < MOST_DEVICES)
        };
        db.scan(&self.devices, (), collect).await?;
        Ok(all)
    }

    /// Devices with the integrations that something waits for.
    pub async fn keys(&self, db: &Db) -> Result<Vec<(Eui64, IntegrationId)>> {
        let mut keys = Vec::new();
        let collect = |(integration, device): (String, String)| {
            keys.push((parse(&device, "DevEUI")?, IntegrationId(parse(&integration, "integration")?)));
            Ok(true)
        };
        db.scan(&self.search, (), collect).await?;
        Ok(keys)
    }

    /// Lists what the table holds and the list does not.
    async fn search(&self, db: &Db) -> Result<()> {
        let at = now();
        let since = self.searched.load(Ordering::Relaxed);
        if at.saturating_sub(since) < SEARCH_EVERY.as_micros() as i64
            || self.searched.compare_exchange(since, at, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Ok(());
        }
        let known: BTreeSet<(String, String)> =
            self.listed(db).await?.into_iter().map(|(integration, device, ..)| (integration, device)).collect();
        let mut missing = Vec::new();
        let collect = |row: (String, String)| {
            if !known.contains(&row) {
                missing.push(row);
            }
            Ok(missing.len() < MOST_DEVICES)
        };
        db.scan(&self.search, (), collect).await?;
        for (integration, device) in missing {
            self.list(db, &integration, &device, at).await?;
        }
        Ok(())
    }

    /// Whether a device is listed; it may be one whose last event went a moment ago.
    pub async fn may_have(&self, db: &Db) -> Result<bool> {
        self.search(db).await?;
        let any: Option<(String,)> = db.row(&self.any, ()).await?;
        Ok(any.is_some())
    }

    /// Of more devices than are asked for, those that were listed first are looked at.
    pub async fn devices(&self, db: &Db, limit: u32) -> Result<Vec<(IntegrationId, Eui64)>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut listed = self.listed(db).await?;
        listed.sort_by_key(|(.., since, _)| *since);
        listed.truncate((limit as usize).saturating_mul(2).max(64));
        let mut waiting = self.look(db, listed).await?;
        waiting.truncate(limit as usize);
        Ok(waiting)
    }

    /// As [`Self::devices`], of each integration that is not aside.
    pub async fn turns(&self, db: &Db, each: u32, aside: &[IntegrationId]) -> Result<Vec<(IntegrationId, Eui64)>> {
        let aside: BTreeSet<String> = aside.iter().map(|id| id.0.to_string()).collect();
        let mut listed = self.listed(db).await?;
        listed.sort_by_key(|(.., since, _)| *since);
        let listed = listed.into_iter().filter(|(integration, ..)| !aside.contains(integration));
        let waiting = self.look(db, in_turn(listed, |(integration, ..)| integration.clone(), each)).await?;
        Ok(in_turn(waiting, |(integration, _)| *integration, each))
    }

    /// Which of those listed have something waiting, the oldest first; the others are listed no more.
    async fn look(&self, db: &Db, listed: Vec<Listed>) -> Result<Vec<(IntegrationId, Eui64)>> {
        let looks = listed.into_iter().map(|row| async move {
            let oldest: Option<(Option<i64>,)> = db.row(&self.oldest, (&row.0, &row.1)).await?;
            Ok::<_, crate::StoreError>((oldest.and_then(|(at,)| at), row))
        });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut waiting = Vec::new();
        for (oldest, (integration, device, _, written)) in looked {
            match oldest {
                Some(at) => waiting.push((at, integration, device)),
                None => db.write(&self.unlist, (written, &integration, &device)).await?,
            }
        }
        waiting.sort();
        let read = |(_, integration, device): (i64, String, String)| {
            Ok((IntegrationId(parse(&integration, "integration")?), parse(&device, "DevEUI")?))
        };
        waiting.into_iter().map(read).collect()
    }

    pub async fn events(
        &self,
        db: &Db,
        integration: IntegrationId,
        device: Eui64,
        limit: u32,
    ) -> Result<Vec<PendingEvent>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let values = (integration.0.to_string(), device.to_string(), limit);
        let found: Vec<(i64, i64, i64, String, i64)> = db.rows(&self.events, values).await?;
        let mut ahead = self.ahead.lock();
        for &(since, slot, part, _, written) in found.iter().filter(|row| row.4 > DELETED_AT) {
            if ahead.len() >= MOST_AHEAD {
                ahead.clear();
            }
            ahead.insert((integration.0.to_string(), device.to_string(), since, slot, part), written);
        }
        drop(ahead);
        read_events(integration, device, found.into_iter().map(|(s, n, p, body, _)| (s, n, p, body)).collect())
    }

    /// An event that an earlier version wrote was read before it is deleted, so it is known when that has to be.
    pub async fn delete(&self, db: &Db, event: &PendingEvent) -> Result<()> {
        let key = key_of(event);
        let ahead = self.ahead.lock().remove(&key);
        let at = ahead.unwrap_or(DELETED_AT);
        let (integration, device, since, slot, part) = &key;
        let deleted = db.write(&self.delete, (at, integration, device, since, slot, part)).await;
        if let (Err(_), Some(written)) = (&deleted, ahead) {
            self.ahead.lock().insert(key, written);
        }
        deleted
    }

    /// The integration's devices that are listed.
    async fn of_integration(&self, db: &Db, integration: IntegrationId) -> Result<Vec<String>> {
        let name = integration.0.to_string();
        let listed = self.listed(db).await?.into_iter();
        Ok(listed.filter(|(id, ..)| *id == name).map(|(_, device, ..)| device).collect())
    }

    pub async fn size(&self, db: &Db, integration: IntegrationId) -> Result<(u64, u64)> {
        let name = integration.0.to_string();
        let (mut count, mut bytes) = (0, 0);
        for device in self.of_integration(db, integration).await? {
            let sizes: Option<Size> = db.row(&self.size, (&name, device)).await?;
            let (events, size, _) = sizes.unwrap_or_default();
            count += events.cast_unsigned();
            bytes += size.unwrap_or_default().cast_unsigned();
        }
        Ok((count, bytes))
    }

    /// What waits, of each integration that has a device in the list.
    pub async fn backlog(&self, db: &Db) -> Result<Vec<Backlog>> {
        let sizes = self.listed(db).await?.into_iter().map(|(integration, device, ..)| async move {
            let size: Option<Size> = db.row(&self.size, (&integration, &device)).await?;
            Ok::<_, crate::StoreError>((integration, size))
        });
        let sizes: Vec<_> = stream::iter(sizes).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut all = BTreeMap::<String, Backlog>::new();
        for (name, size) in sizes {
            let Some((count, bytes, Some(oldest))) = size else { continue };
            let oldest = UnixMicros(oldest.cast_unsigned());
            let integration = IntegrationId(parse(&name, "integration")?);
            let backlog = all.entry(name).or_insert(Backlog { integration, events: 0, bytes: 0, oldest });
            backlog.events += count.cast_unsigned();
            backlog.bytes += bytes.unwrap_or_default().cast_unsigned();
            backlog.oldest = backlog.oldest.min(oldest);
        }
        Ok(all.into_values().collect())
    }

    pub async fn trim(&self, db: &Db, integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed> {
        let name = integration.0.to_string();
        let (mut old, (mut events, mut bytes)) = (Oldest::default(), (0_u64, 0_u64));
        let since = i64::try_from(bounds.since.0).unwrap_or(i64::MAX);
        let devices = self.of_integration(db, integration).await?;
        for device in &devices {
            let count = |row: KeyColumns| {
                events += 1;
                bytes += row.4.cast_unsigned();
                if row.3 < since {
                    old.add(device, row);
                    old.keep_within(u64::MAX, u64::MAX);
                }
                Ok(true)
            };
            db.scan(&self.keys, (&name, device), count).await?;
        }
        let too_old = self.drop_all(db, &name, &old).await?;
        let (events, bytes) = (events - too_old, bytes - old.bytes);
        let surplus = (events.saturating_sub(bounds.events), bytes.saturating_sub(bounds.bytes));
        if surplus == (0, 0) {
            return Ok(Trimmed { too_old, overflow: 0 });
        }
        let mut oldest = Oldest::default();
        for device in &devices {
            let collect = |row: KeyColumns| {
                oldest.add(device, row);
                oldest.keep_within(surplus.0, surplus.1);
                Ok(true)
            };
            db.scan(&self.keys, (&name, device), collect).await?;
        }
        Ok(Trimmed { too_old, overflow: self.drop_all(db, &name, &oldest).await? })
    }

    async fn drop_all(&self, db: &Db, integration: &str, oldest: &Oldest) -> Result<u64> {
        // What is written now has a stamp below `DELETED_AT`; what an earlier version wrote goes at its own.
        for ((_, device, since, slot, part), (_, at)) in &oldest.events {
            db.write(&self.delete, (at, integration, device, since, slot, part)).await?;
        }
        Ok(oldest.events.len() as u64)
    }
}

/// Count, bytes and the oldest `written_at` of a device's events.
type Size = (i64, Option<i64>, Option<i64>);

/// Session start, slot, part, written_at, bytes, the body's stamp.
type KeyColumns = (i64, i64, i64, i64, i64, i64);

/// The oldest events of an integration, by when they were written, with their size and the stamp that deletes them.
#[derive(Default)]
struct Oldest {
    events: BTreeMap<(i64, String, i64, i64, i64), (u64, i64)>,
    bytes: u64,
}

impl Oldest {
    fn add(&mut self, device: &str, (since, slot, part, written_at, bytes, stamp): KeyColumns) {
        let bytes = bytes.cast_unsigned();
        self.events.insert((written_at, device.to_owned(), since, slot, part), (bytes, stamp.max(DELETED_AT)));
        self.bytes += bytes;
    }

    /// Forgets the youngest that are not needed to reach so many events and bytes; of more than [`MOST_TRIMMED`] always.
    fn keep_within(&mut self, events: u64, bytes: u64) {
        while let Some((key, (size, stamp))) = self.events.pop_last() {
            let left = self.events.len() as u64;
            if left < MOST_TRIMMED && (left < events || self.bytes - size < bytes) {
                self.events.insert(key, (size, stamp));
                return;
            }
            self.bytes -= size;
        }
    }
}

/// Session start, slot, part, body, as stored.
pub(super) type EventColumns = (i64, i64, i64, String);

pub(super) fn read_events(
    integration: IntegrationId,
    device: Eui64,
    found: Vec<EventColumns>,
) -> Result<Vec<PendingEvent>> {
    let read = |(since, slot, part, body): EventColumns| {
        Ok(PendingEvent {
            integration,
            device,
            session_since: UnixMicros(since.cast_unsigned()),
            slot: slot.cast_unsigned(),
            part: u32::try_from(part).unwrap_or(u32::MAX),
            event: decode(&body)?,
        })
    };
    found.into_iter().map(read).collect()
}

fn key_of(event: &PendingEvent) -> Key {
    let (integration, device) = (event.integration.0.to_string(), event.device.to_string());
    let since = i64::try_from(event.session_since.0).unwrap_or(i64::MAX);
    (integration, device, since, i64::try_from(event.slot).unwrap_or(i64::MAX), i64::from(event.part))
}
