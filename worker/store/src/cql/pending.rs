//! Events that an integration has not taken yet.

mod trim;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future, stream};
use limpet_shared::{Eui64, UnixMicros};
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use super::{
    db::{Db, How},
    json::{decode, encode, parse},
    now,
    signs::Signs,
    waiting::{Note, Of, Waiting},
};
use crate::{Backlog, IntegrationId, OpenError, PendingEvent, Result};

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
/// How often it is looked for what nobody signed: in the list, and in the table itself, for the list may lack what a writer
/// wrote whose clock is behind, or that died between two writes.
const LIST_EVERY: Duration = Duration::from_secs(10);
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// Where nobody asks for the backlog, which looks too.
const LOOKED_AT_LEAST: Duration = Duration::from_secs(45);
/// Who has not read signs for so long begins anew: notes end after an hour.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1_200);
/// How often a device's events are counted, and how many devices' in one go: between that, signs and deletions are.
const COUNT_EVERY: Duration = Duration::from_secs(600);
const COUNTED_AT_ONCE: usize = 2_000;
/// An event waits behind those of so many slots before it, if the session is that old. What lies further back has been sent, for
/// events are sent in order; unless as many answers in a row had no event.
const SLOTS_BACK: i64 = 64;

/// Statements about pending events.
pub(super) struct Pending {
    put: PreparedStatement,
    slots: PreparedStatement,
    before: PreparedStatement,
    events: PreparedStatement,
    events_from: PreparedStatement,
    keys: PreparedStatement,
    delete: PreparedStatement,
    size: PreparedStatement,
    list: PreparedStatement,
    unlist: PreparedStatement,
    devices: PreparedStatement,
    search: PreparedStatement,
    signs: Signs,
    waiting: Mutex<Waiting>,
    followed: tokio::sync::Mutex<Followed>,
    /// Events that an earlier version wrote, with timestamps that lie ahead: when each was written.
    ahead: Mutex<HashMap<Key, i64>>,
}

/// What was read of the signs, and when it was looked for what nobody signed (Unix, us).
#[derive(Default)]
struct Followed {
    signed: HashMap<Uuid, i64>,
    read_at: i64,
    listed_at: i64,
    searched_at: i64,
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
        let any = &format!("SELECT slot FROM $.pending WHERE {of}");
        let events =
            &format!("SELECT session_since, slot, part, body, WRITETIME(body), written_at FROM $.pending WHERE {of}");
        let put = "INSERT INTO $.pending (integration, device, session_since, slot, part, written_at, bytes, body)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
        let delete = &format!("DELETE FROM $.pending USING TIMESTAMP ? WHERE {key}");
        let list =
            "INSERT INTO $.pending_device (one, integration, device, since) VALUES (0, ?, ?, ?) USING TIMESTAMP ?";
        let unlist = &format!("DELETE FROM $.pending_device USING TIMESTAMP ? WHERE one = 0 AND {of}");
        Ok(Self {
            put: db.prepare(Write, put).await?,
            slots: db
                .prepare(Read, &format!("{any} AND session_since = ? AND slot >= ? AND slot <= ? LIMIT 1"))
                .await?,
            before: db.prepare(Read, &format!("{any} AND (session_since, slot) <= (?, ?) LIMIT 1")).await?,
            events: db.prepare(Read, &format!("{events} LIMIT ?")).await?,
            events_from: db
                .prepare(Read, &format!("{events} AND (session_since, slot, part) >= (?, ?, ?) LIMIT ?"))
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
            list: db.prepare(Write, list).await?,
            unlist: db.prepare(Write, unlist).await?,
            devices: db
                .prepare(
                    Scan,
                    "SELECT integration, device, since, WRITETIME(since) FROM $.pending_device WHERE one = 0",
                )
                .await?,
            search: db.prepare(Scan, "SELECT DISTINCT integration, device FROM $.pending").await?,
            signs: Signs::prepare(db).await?,
            waiting: Mutex::default(),
            followed: tokio::sync::Mutex::default(),
            ahead: Mutex::default(),
        })
    }

    pub async fn put(&self, db: &Db, event: &PendingEvent) -> Result<()> {
        let (integration, device, since, slot, part) = key_of(event);
        let (body, at) = (encode(&event.event)?, now());
        let bytes = body.len() as u64;
        let values = (&integration, &device, since, slot, part, at, bytes.cast_signed(), &body, FIRST_WINS - at);
        // The event first: one that nobody signed is found by a look, one that is not there by nothing.
        db.write(&self.put, values).await?;
        let note = Note { of: (event.integration, event.device), place: (since, slot, part), at, bytes };
        // Listed again in any case, so that whoever found the device empty just before does not take this out.
        let list = db.write(&self.list, (integration, device, at, at));
        future::try_join(list, self.signs.raise(db, &note)).await.map(drop)
    }

    pub async fn has(&self, db: &Db, of: Of, since: UnixMicros, slot: u64) -> Result<bool> {
        let (integration, device) = (of.0.0.to_string(), of.1.to_string());
        let (since, slot) = (i64::try_from(since.0).unwrap_or(i64::MAX), i64::try_from(slot).unwrap_or(i64::MAX));
        // Events go out in order, so what was sent before need not be walked.
        let found: Option<(i64,)> = if slot > SLOTS_BACK {
            db.row(&self.slots, (integration, device, since, slot - SLOTS_BACK, slot)).await?
        } else {
            db.row(&self.before, (integration, device, since, slot)).await?
        };
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

    /// Learns what others have put since the last time; at the first time, and after a long while, what waits at all.
    async fn follow(&self, db: &Db) -> Result<()> {
        let mut followed = self.followed.lock().await;
        let at = now();
        let signed = self.signs.read(db).await?;
        if (at - followed.read_at).unsigned_abs() >= FORGOTTEN_AFTER.as_micros() as u64 {
            // What is signed from now on is read as notes; what was signed before is found.
            let mut anew = Followed { signed, read_at: at, ..Followed::default() };
            self.look(db, &mut anew).await?;
            *followed = anew;
            return Ok(());
        }
        for (writer, number) in &signed {
            let after = followed.signed.get(writer).copied().unwrap_or_default();
            if *number > after {
                let (last, notes) = self.signs.notes(db, *writer, after).await?;
                let mut waiting = self.waiting.lock();
                notes.iter().for_each(|note| waiting.note(note));
                followed.signed.insert(*writer, last);
            }
        }
        followed.signed.retain(|writer, _| signed.contains_key(writer));
        followed.read_at = at;
        Ok(())
    }

    /// Looks for what nobody signed: a writer of an earlier version, or one that died between two writes. Through the list often;
    /// through the table now and then, and then what neither has is forgotten.
    async fn look(&self, db: &Db, due: &mut Followed) -> Result<()> {
        let (at, every) = (now(), |time: Duration| time.as_micros() as i64);
        if at - due.listed_at < every(LIST_EVERY) {
            return Ok(());
        }
        let signs = self.waiting.lock().signs();
        let mut listed = self.listed(db).await;
        if let Ok(listed) = &mut listed {
            listed.sort_by_key(|(.., since, _)| *since);
            let mut waiting = self.waiting.lock();
            for (integration, device, _, written) in listed.iter() {
                waiting.listed(read_of(integration, device)?, *written);
            }
            due.listed_at = at;
        }
        if at - due.searched_at < every(SEARCH_EVERY) {
            return listed.map(drop);
        }
        let mut there = BTreeSet::new();
        let collect = |(integration, device): (String, String)| {
            there.insert((integration, device));
            Ok(there.len() < MOST_DEVICES)
        };
        let searched = db.scan(&self.search, (), collect).await;
        for (integration, device) in &there {
            self.waiting.lock().found(read_of(integration, device)?);
        }
        if searched.is_err() || there.len() >= MOST_DEVICES {
            // One of the two is enough to begin with.
            return if listed.is_ok() { Ok(()) } else { searched };
        }
        due.searched_at = at;
        self.forget(db, &there, signs, listed.unwrap_or_default()).await
    }

    /// While others follow what is signed.
    async fn look_around(&self, db: &Db) -> Result<()> {
        let mut due = {
            let followed = self.followed.lock().await;
            Followed { signed: HashMap::new(), ..*followed }
        };
        let looked = self.look(db, &mut due).await;
        let mut followed = self.followed.lock().await;
        (followed.listed_at, followed.searched_at) = (due.listed_at, due.searched_at);
        looked
    }

    /// What is not there, and was not signed since so many signs, waits no more.
    async fn forget(&self, db: &Db, there: &BTreeSet<(String, String)>, signs: u64, listed: Vec<Listed>) -> Result<()> {
        let is_there = |of: &Of| there.contains(&(of.0.0.to_string(), of.1.to_string()));
        let gone: Vec<Of> = self.waiting.lock().devices().into_iter().filter(|of| !is_there(of)).collect();
        for of in gone {
            self.waiting.lock().not_found(of, signs);
        }
        let mut unlisted = Vec::new();
        for (integration, device, _, written) in listed {
            let of = read_of(&integration, &device)?;
            if !is_there(&of) && !self.waiting.lock().has_turn(of) {
                unlisted.push(async move { db.write(&self.unlist, (written, &integration, &device)).await });
            }
        }
        stream::iter(unlisted).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Of more devices than are asked for, those that were listed first are looked at.
    pub async fn devices(&self, db: &Db, limit: u32) -> Result<Vec<(IntegrationId, Eui64)>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut listed = self.listed(db).await?;
        listed.sort_by_key(|(.., since, _)| *since);
        listed.truncate((limit as usize).saturating_mul(2).max(64));
        let looks = listed.into_iter().map(|(integration, device, ..)| async move {
            let size: Option<Size> = db.row(&self.size, (&integration, &device)).await?;
            let oldest = size.and_then(|(.., oldest)| oldest);
            Ok::<_, crate::StoreError>(oldest.map(|at| (at, integration, device)))
        });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut waiting: Vec<_> = looked.into_iter().flatten().collect();
        waiting.sort();
        waiting.truncate(limit as usize);
        waiting.iter().map(|(_, integration, device)| read_of(integration, device)).collect()
    }

    /// As far as it was signed, or found by a look.
    pub async fn turns(&self, db: &Db, each: u32, aside: &[IntegrationId]) -> Result<Vec<Of>> {
        self.follow(db).await?;
        // Whoever asks without sending, as operators do, has nobody else to look.
        if now() - self.followed.lock().await.listed_at > LOOKED_AT_LEAST.as_micros() as i64 {
            self.look_around(db).await?;
        }
        Ok(self.waiting.lock().turns(each, aside))
    }

    /// For who sends: read on from where the last read began, so that what was sent meanwhile is not walked again.
    pub async fn next(&self, db: &Db, of: Of, limit: u32) -> Result<Vec<PendingEvent>> {
        let (from, signs) = self.waiting.lock().reading(of);
        let values = (of.0.0.to_string(), of.1.to_string());
        let limit = i32::try_from(limit).unwrap_or(i32::MAX).max(1);
        let found: Vec<EventColumns> = match from {
            None => db.rows(&self.events, (values.0, values.1, limit)).await?,
            Some((since, slot, part)) => {
                db.rows(&self.events_from, (values.0, values.1, since, slot, part, limit)).await?
            }
        };
        let first = found.first().map(|(since, slot, part, _, _, at)| ((*since, *slot, *part), *at));
        self.waiting.lock().was_read(of, signs, first);
        self.read(of, found)
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
        self.read((integration, device), db.rows(&self.events, values).await?)
    }

    fn read(&self, of: Of, found: Vec<EventColumns>) -> Result<Vec<PendingEvent>> {
        let mut ahead = self.ahead.lock();
        for &(since, slot, part, _, written, _) in found.iter().filter(|row| row.4 > DELETED_AT) {
            if ahead.len() >= MOST_AHEAD {
                ahead.clear();
            }
            ahead.insert((of.0.0.to_string(), of.1.to_string(), since, slot, part), written);
        }
        drop(ahead);
        let found = found.into_iter().map(|(since, slot, part, body, ..)| (since, slot, part, body));
        read_events(of.0, of.1, found.collect())
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
        if deleted.is_ok() {
            // Its size as it was written: only totals follow from it, which are counted anew now and then.
            let bytes = encode(&event.event)?.len() as u64;
            self.waiting.lock().deleted((event.integration, event.device), bytes);
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

    /// What waits. Looks for what nobody signed, too, and counts some of the devices anew.
    pub async fn backlog(&self, db: &Db) -> Result<Vec<Backlog>> {
        self.follow(db).await?;
        self.look_around(db).await?;
        let at = now();
        let uncounted = self.waiting.lock().uncounted(at - COUNT_EVERY.as_micros() as i64, COUNTED_AT_ONCE);
        let counts = uncounted.into_iter().map(|of| async move {
            let size: Option<Size> = db.row(&self.size, (of.0.0.to_string(), of.1.to_string())).await?;
            let (events, bytes, oldest) = size.unwrap_or_default();
            let bytes = bytes.unwrap_or_default().cast_unsigned();
            Ok::<_, crate::StoreError>((of, (events.cast_unsigned(), bytes, oldest.unwrap_or(at))))
        });
        let counts: Vec<_> = stream::iter(counts).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut waiting = self.waiting.lock();
        counts.into_iter().for_each(|(of, count)| waiting.counted(of, at, count));
        Ok(waiting.backlog())
    }
}

/// Count, bytes and the oldest `written_at` of a device's events.
type Size = (i64, Option<i64>, Option<i64>);

/// Session start, slot, part, body, its stamp, written_at.
type EventColumns = (i64, i64, i64, String, i64, i64);

fn read_of(integration: &str, device: &str) -> Result<Of> {
    Ok((IntegrationId(parse(integration, "integration")?), parse(device, "DevEUI")?))
}

pub(super) fn read_events(
    integration: IntegrationId,
    device: Eui64,
    found: Vec<(i64, i64, i64, String)>,
) -> Result<Vec<PendingEvent>> {
    let read = |(since, slot, part, body): (i64, i64, i64, String)| {
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
