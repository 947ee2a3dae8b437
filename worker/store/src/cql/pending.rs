//! Events that an integration has not taken yet.

mod looking;
mod trim;

use std::collections::HashMap;

use futures_util::future;
use limpet_shared::{Eui64, UnixMicros};
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;
use tokio::time::Instant;

use self::looking::{Followed, Looks};
use super::{
    db::{Db, How},
    gate::Gate,
    json::{decode_row, parse},
    now,
    signs::Signs,
    waiting::{Count, Note, Waiter, Waiting},
};
use crate::{IntegrationId, OpenError, PendingEvent, Result, rows::Body, waiting_body::WaitingBody};

/// From here timestamps count down with the time of writing, so that the first writer of an event wins.
const FIRST_WINS: i64 = 2_500_000_000_000_000;
/// A deletion is made at this time, the year 2001. What was written from 2017 to 2049 is older, so that no later writer of the
/// same event overtakes it. All of this lies in the past: ScyllaDB refuses what is days ahead.
const DELETED_AT: i64 = 1_000_000_000_000_000;
/// Events whose deletion needs a time of its own, as read last. More than that are read again first.
const MOST_AHEAD: usize = 10_000;
/// Devices that are looked at at one moment.
const AT_ONCE: usize = 16;
/// Devices of the list that are read in one go.
const LIST_PAGE: i32 = 1_000;
/// Devices in one page of a search: deletions that nobody has purged yet are walked too, and a page with too many of them fails.
const SEARCH_PAGE: i32 = 100;
/// An event waits behind those of so many slots before it, if the session is that old. What lies further back has been sent, for
/// events are sent in order; unless as many answers in a row had no event.
const SLOTS_BACK: i64 = 64;

/// Statements about pending events.
pub(super) struct Pending {
    put: PreparedStatement,
    put_compact: PreparedStatement,
    slots: PreparedStatement,
    before: PreparedStatement,
    events: PreparedStatement,
    events_from: PreparedStatement,
    keys: PreparedStatement,
    delete: PreparedStatement,
    sizes: PreparedStatement,
    list: PreparedStatement,
    unlist: PreparedStatement,
    listed: PreparedStatement,
    listed_of: PreparedStatement,
    search: PreparedStatement,
    signs: Signs,
    waiting: Mutex<Waiting>,
    followed: tokio::sync::Mutex<Followed>,
    looks: tokio::sync::Mutex<Looks>,
    /// Since when times of a steady clock are counted.
    began: Instant,
    /// Events that an earlier version wrote, with timestamps that lie ahead: when each was written.
    ahead: Mutex<HashMap<Key, i64>>,
}

/// Integration, device, session start, slot, part, as stored.
type Key = (String, String, i64, i64, i64);

/// A device in the list: its integration, since when something waits, and when that was written.
type Listed = (String, String, i64, i64);

impl Pending {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        use How::{Read, Scan, Write};
        let of = "integration = ? AND device = ?";
        let key = &format!("{of} AND session_since = ? AND slot = ? AND part = ?");
        let any = &format!("SELECT slot FROM $.pending WHERE {of}");
        let events = &format!(
            "SELECT session_since, slot, part, body, packed, WRITETIME(body), written_at FROM $.pending WHERE {of}"
        );
        let put = "INSERT INTO $.pending (integration, device, session_since, slot, part, written_at, bytes, body)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
        let put_compact =
            "INSERT INTO $.pending (integration, device, session_since, slot, part, written_at, bytes, body, packed)
                   VALUES (?, ?, ?, ?, ?, ?, ?, '', ?) USING TIMESTAMP ?";
        let delete = &format!("DELETE FROM $.pending USING TIMESTAMP ? WHERE {key}");
        let list =
            "INSERT INTO $.pending_device (one, integration, device, since) VALUES (0, ?, ?, ?) USING TIMESTAMP ?";
        let unlist = &format!("DELETE FROM $.pending_device USING TIMESTAMP ? WHERE one = 0 AND {of}");
        let listed = "SELECT integration, device, since, WRITETIME(since) FROM $.pending_device WHERE one = 0";
        let mut search = db.prepare(Scan, "SELECT DISTINCT integration, device FROM $.pending").await?;
        search.set_page_size(SEARCH_PAGE);
        Ok(Self {
            put: db.prepare(Write, put).await?,
            put_compact: db.prepare(Write, put_compact).await?,
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
            sizes: db.prepare(Scan, &format!("SELECT written_at, bytes FROM $.pending WHERE {of}")).await?,
            list: db.prepare(Write, list).await?,
            unlist: db.prepare(Write, unlist).await?,
            listed: db.prepare(Scan, &format!("{listed} AND (integration, device) > (?, ?) LIMIT ?")).await?,
            listed_of: db.prepare(Scan, &format!("{listed} AND integration = ? AND device > ? LIMIT ?")).await?,
            search,
            signs: Signs::prepare(db).await?,
            waiting: Mutex::default(),
            followed: tokio::sync::Mutex::default(),
            looks: tokio::sync::Mutex::default(),
            began: Instant::now(),
            ahead: Mutex::default(),
        })
    }

    /// Who waits for the turn to sign asks the database for nothing, so it takes no place in the gate.
    pub async fn put(&self, db: &Db, gate: &Gate, event: &PendingEvent) -> Result<()> {
        let (integration, device, since, slot, part) = key_of(event);
        let (body, at) = (db.form().encode(&WaitingBody::from(event))?, now());
        let (bytes, stamp) = (body.len() as u64, FIRST_WINS - at);
        let size = bytes.cast_signed();
        // The event first: one that nobody signed is found by a look, one that is not there by nothing.
        match body {
            Body::Json(body) => {
                let values = (&integration, &device, since, slot, part, at, size, body, stamp);
                gate.through(db.write(&self.put, values)).await?;
            }
            Body::Compact(packed) => {
                let values = (&integration, &device, since, slot, part, at, size, packed, stamp);
                gate.through(db.write(&self.put_compact, values)).await?;
            }
        }
        let note = Note { of: (event.integration, event.device), place: (since, slot, part), at, bytes };
        // Listed again in any case, so that whoever found the device empty just before does not take this out.
        let list = gate.through(db.write(&self.list, (integration, device, at, at)));
        future::try_join(list, self.signs.raise(db, &note)).await.map(drop)
    }

    pub async fn has(&self, db: &Db, of: Waiter, since: UnixMicros, slot: u64) -> Result<bool> {
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

    /// For who sends: read on from where the last read began, so that what was sent meanwhile is not walked again.
    pub async fn next(&self, db: &Db, of: Waiter, limit: u32) -> Result<Vec<PendingEvent>> {
        let (from, signs) = self.waiting.lock().reading(of);
        let values = (of.0.0.to_string(), of.1.to_string());
        let limit = i32::try_from(limit).unwrap_or(i32::MAX).max(1);
        let found: Vec<EventColumns> = match from {
            None => db.rows(&self.events, (values.0, values.1, limit)).await?,
            Some((since, slot, part)) => {
                db.rows(&self.events_from, (values.0, values.1, since, slot, part, limit)).await?
            }
        };
        let first = found.first().map(|(since, slot, part, .., at)| ((*since, *slot, *part), *at));
        let emptied = self.waiting.lock().was_read(of, signs, first);
        if let (None, Some(listed)) = (from, emptied) {
            self.unlist(db, of, listed).await;
        }
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

    fn read(&self, of: Waiter, found: Vec<EventColumns>) -> Result<Vec<PendingEvent>> {
        let mut ahead = self.ahead.lock();
        for &(since, slot, part, _, _, written, _) in found.iter().filter(|row| row.5 > DELETED_AT) {
            if ahead.len() >= MOST_AHEAD {
                ahead.clear();
            }
            ahead.insert((of.0.0.to_string(), of.1.to_string(), since, slot, part), written);
        }
        drop(ahead);
        let found = found.into_iter().map(|(since, slot, part, body, packed, ..)| (since, slot, part, body, packed));
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
            let bytes = db.form().encode(&WaitingBody::from(event))?.len() as u64;
            self.waiting.lock().deleted((event.integration, event.device), bytes);
        }
        deleted
    }

    /// A device that nothing waits for, unless it was listed again since then. One that stays is found empty again.
    async fn unlist(&self, db: &Db, of: Waiter, listed: i64) {
        if listed > 0
            && let Err(error) = db.write(&self.unlist, (listed, of.0.0.to_string(), of.1.to_string())).await
        {
            tracing::debug!(device = %of.1, %error, "a device without waiting events stays in the list");
        }
    }

    /// What waits of one device.
    async fn count(&self, db: &Db, integration: &str, device: &str) -> Result<Count> {
        let mut count = Count::default();
        let add = |(oldest, bytes): (i64, i64)| {
            count.add(Count { events: 1, bytes: bytes.cast_unsigned(), oldest });
            Ok(true)
        };
        db.scan(&self.sizes, (integration, device), add).await?;
        Ok(count)
    }
}

/// Session start, slot, part, body, packed, their stamp, written_at.
type EventColumns = (i64, i64, i64, String, Option<Vec<u8>>, i64, i64);
/// Session start, slot, part, body, packed.
pub(super) type Columns = (i64, i64, i64, String, Option<Vec<u8>>);

fn read_of(integration: &str, device: &str) -> Result<Waiter> {
    Ok((IntegrationId(parse(integration, "integration")?), parse(device, "DevEUI")?))
}

pub(super) fn read_events(integration: IntegrationId, device: Eui64, found: Vec<Columns>) -> Result<Vec<PendingEvent>> {
    let read = |(since, slot, part, body, packed): Columns| {
        let WaitingBody { event, refusals } = decode_row(&body, packed.as_deref())?;
        Ok(PendingEvent {
            integration,
            device,
            session_since: UnixMicros(since.cast_unsigned()),
            slot: slot.cast_unsigned(),
            part: u32::try_from(part).unwrap_or(u32::MAX),
            event,
            refusals,
        })
    };
    found.into_iter().map(read).collect()
}

fn key_of(event: &PendingEvent) -> Key {
    let (integration, device) = (event.integration.0.to_string(), event.device.to_string());
    let since = i64::try_from(event.session_since.0).unwrap_or(i64::MAX);
    (integration, device, since, i64::try_from(event.slot).unwrap_or(i64::MAX), i64::from(event.part))
}
