//! Sessions with their marks, and joins: what changes by compare-and-set.

use limpet_shared::{DevAddr, Eui64};
use limpet_worker_core::model::{DeviceState, JoinRow, Marks, Session, SessionId, SessionKey, SessionRow};
use scylla::statement::{batch::Batch, prepared::PreparedStatement};

use super::{
    db::{Db, How},
    json::{decode, decode_row, encode, parse},
};
use crate::{Commit, Freshness, OpenError, Result, StoreError, rows::Body};

mod ending;

/// Clustering rows of a session.
const ROW: i32 = 0;
const MARKS: i32 = 1;
/// The clustering row of a device's state, below all DevNonces.
const STATE: i32 = -1;
/// Rows of a DevAddr's partition that are read at once: of nearly all of them, everything. A database gives no answer to a read that
/// is too large.
const PAGE: i32 = 256;
/// DevNonces that one batch forgets.
const FORGET_AT_ONCE: i32 = 50;
/// Rounds in which all 65,536 of them are forgotten, and some that are lost to faster writers.
const FORGET_ROUNDS: u32 = 2_000;

/// Statements about sessions and joins.
pub(super) struct Sessions {
    by_addr: PreparedStatement,
    by_addr_serial: PreparedStatement,
    by_key: PreparedStatement,
    by_key_serial: PreparedStatement,
    list: PreparedStatement,
    unlist: PreparedStatement,
    of_device: PreparedStatement,
    create: PreparedStatement,
    create_compact: PreparedStatement,
    replace: PreparedStatement,
    replace_compact: PreparedStatement,
    delete: PreparedStatement,
    delete_marks: PreparedStatement,
    mark_out: PreparedStatement,
    mark_sent: PreparedStatement,
    join_row: PreparedStatement,
    join_row_serial: PreparedStatement,
    nonces: PreparedStatement,
    first_state: PreparedStatement,
    first_state_with_join: Batch,
    next_state: PreparedStatement,
    next_state_with_join: Batch,
    forget_nonce: PreparedStatement,
    shrink: Batch,
    any_join: PreparedStatement,
}

/// dev_eui, id, kind, key_wrap, body, packed, slot_out, through_pending, sent
type Columns = (String, i64, i32, Option<i32>, Option<String>, Option<Vec<u8>>, Option<i64>, Option<bool>, Option<i64>);

impl Sessions {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        use How::{Cas, Read, Scan, Serial, Write};
        let by_addr = "SELECT dev_eui, id, kind, key_wrap, body, packed, slot_out, through_pending, sent
                       FROM $.session WHERE dev_addr = ?";
        let by_key = &format!("{by_addr} AND dev_eui = ? AND id = ?");
        let join_row = "SELECT key_wrap, body FROM $.device_state WHERE dev_eui = ? AND dev_nonce = ?";
        let create =
            "INSERT INTO $.session (dev_addr, dev_eui, id, kind, rev, key_wrap, body) VALUES (?, ?, ?, 0, ?, 0, ?)
                      IF NOT EXISTS";
        let replace = "UPDATE $.session SET rev = ?, key_wrap = 0, body = ?
                       WHERE dev_addr = ? AND dev_eui = ? AND id = ? AND kind = 0 IF rev = ?";
        let create_compact =
            "INSERT INTO $.session (dev_addr, dev_eui, id, kind, rev, key_wrap, body, packed) VALUES (?, ?, ?, 0, ?, 0, '', ?)
                      IF NOT EXISTS";
        let replace_compact = "UPDATE $.session SET rev = ?, key_wrap = 0, body = '', packed = ?
                       WHERE dev_addr = ? AND dev_eui = ? AND id = ? AND kind = 0 IF rev = ?";
        let key = "dev_addr = ? AND dev_eui = ? AND id = ?";
        let mark_out = "INSERT INTO $.session (dev_addr, dev_eui, id, kind, slot_out, through_pending)
                        VALUES (?, ?, ?, 1, ?, ?) USING TIMESTAMP ?";
        let mark_sent =
            "INSERT INTO $.session (dev_addr, dev_eui, id, kind, sent) VALUES (?, ?, ?, 1, ?) USING TIMESTAMP ?";
        let first = "INSERT INTO $.device_state (dev_eui, dev_nonce, rev, body) VALUES (?, -1, ?, ?) IF NOT EXISTS";
        let next = "UPDATE $.device_state SET rev = ?, body = ? WHERE dev_eui = ? AND dev_nonce = -1 IF rev = ?";
        let join = "INSERT INTO $.device_state (dev_eui, dev_nonce, key_wrap, body) VALUES (?, ?, 0, ?)";
        let (first, next) = (db.prepare(Cas, first).await?, db.prepare(Cas, next).await?);
        let join = db.prepare(Cas, join).await?;
        Ok(Self {
            by_addr: paged(db.prepare(Read, by_addr).await?),
            by_addr_serial: paged(db.prepare(Serial, by_addr).await?),
            by_key: db.prepare(Read, by_key).await?,
            by_key_serial: db.prepare(Serial, by_key).await?,
            list: db.prepare(Write, "INSERT INTO $.session_by_device (dev_eui, dev_addr, id) VALUES (?, ?, ?)").await?,
            unlist: db
                .prepare(Write, "DELETE FROM $.session_by_device WHERE dev_eui = ? AND dev_addr = ? AND id = ?")
                .await?,
            of_device: db.prepare(Scan, "SELECT dev_addr, id FROM $.session_by_device WHERE dev_eui = ?").await?,
            create: db.prepare(Cas, create).await?,
            create_compact: db.prepare(Cas, create_compact).await?,
            replace: db.prepare(Cas, replace).await?,
            replace_compact: db.prepare(Cas, replace_compact).await?,
            delete: db.prepare(Cas, &format!("DELETE FROM $.session WHERE {key} AND kind = 0 IF EXISTS")).await?,
            delete_marks: db.prepare(Write, &format!("DELETE FROM $.session WHERE {key} AND kind = 1")).await?,
            mark_out: db.prepare(Write, mark_out).await?,
            mark_sent: db.prepare(Write, mark_sent).await?,
            join_row: db.prepare(Read, join_row).await?,
            join_row_serial: db.prepare(Serial, join_row).await?,
            nonces: db
                .prepare(Serial, "SELECT dev_nonce FROM $.device_state WHERE dev_eui = ? AND dev_nonce > ? LIMIT ?")
                .await?,
            first_state_with_join: db.conditional_batch(&[&first, &join]),
            next_state_with_join: db.conditional_batch(&[&next, &join]),
            shrink: db.conditional_batch(&[&next, &join]),
            first_state: first,
            next_state: next,
            forget_nonce: db.prepare(Cas, "DELETE FROM $.device_state WHERE dev_eui = ? AND dev_nonce = ?").await?,
            any_join: db.prepare(Serial, "SELECT dev_nonce FROM $.device_state WHERE dev_eui = ? LIMIT 1").await?,
        })
    }

    pub async fn by_addr(&self, db: &Db, addr: DevAddr, freshness: Freshness) -> Result<Vec<SessionRow>> {
        let statement = if freshness == Freshness::Serial { &self.by_addr_serial } else { &self.by_addr };
        read_rows(db.pages(statement, (i64::from(addr.0),)).await?)
    }

    pub async fn by_key(&self, db: &Db, key: &SessionKey, freshness: Freshness) -> Result<Option<SessionRow>> {
        let statement = if freshness == Freshness::Serial { &self.by_key_serial } else { &self.by_key };
        Ok(read_rows(db.rows(statement, key_of(key)).await?)?.into_iter().next())
    }

    pub async fn create(&self, db: &Db, session: &Session) -> Result<Commit> {
        let (addr, device, id) = key_of(&session.key);
        db.write(&self.list, (&device, addr, id)).await?;
        let rev = session.rev.cast_signed();
        Ok(commit(match db.form().encode(session)? {
            Body::Json(body) => db.cas(&self.create, (addr, device, id, rev, body)).await?,
            Body::Compact(packed) => db.cas(&self.create_compact, (addr, device, id, rev, packed)).await?,
        }))
    }

    pub async fn replace(&self, db: &Db, next: &Session) -> Result<Commit> {
        let Some(expected) = next.rev.checked_sub(1) else { return Ok(Commit::Refused) };
        let (addr, device, id) = key_of(&next.key);
        let (rev, expected) = (next.rev.cast_signed(), expected.cast_signed());
        Ok(commit(match db.form().encode(next)? {
            Body::Json(body) => db.cas(&self.replace, (rev, body, addr, device, id, expected)).await?,
            Body::Compact(packed) => db.cas(&self.replace_compact, (rev, packed, addr, device, id, expected)).await?,
        }))
    }

    pub async fn delete(&self, db: &Db, key: &SessionKey) -> Result<()> {
        db.cas(&self.delete, key_of(key)).await?;
        // A mark is written at the number that it marks, so that this deletion, made at today's time, holds for good:
        // a session's identity never comes again.
        db.write(&self.delete_marks, key_of(key)).await?;
        let (addr, device, id) = key_of(key);
        db.write(&self.unlist, (device, addr, id)).await
    }

    /// A timestamp of twice the slot's number, plus one for what went through the pending table: the higher slot wins,
    /// and of equal ones the one that did.
    pub async fn mark_out(&self, db: &Db, key: &SessionKey, slot: u64, through_pending: bool) -> Result<()> {
        let (addr, device, id) = key_of(key);
        let stamp = slot.saturating_mul(2).saturating_add(u64::from(through_pending)).cast_signed();
        db.write(&self.mark_out, (addr, device, id, slot.cast_signed(), through_pending, stamp)).await
    }

    pub async fn mark_sent(&self, db: &Db, key: &SessionKey, fcnt_down: u32) -> Result<()> {
        let (addr, device, id) = key_of(key);
        let sent = i64::from(fcnt_down) + 1;
        db.write(&self.mark_sent, (addr, device, id, sent, sent)).await
    }

    pub async fn device_state(&self, db: &Db, dev_eui: Eui64, freshness: Freshness) -> Result<DeviceState> {
        let found = self.join_body(db, dev_eui, STATE, freshness).await?;
        found.map_or_else(|| Ok(DeviceState::new(dev_eui)), |body| decode(&body))
    }

    pub async fn join(&self, db: &Db, dev_eui: Eui64, nonce: u16, freshness: Freshness) -> Result<Option<JoinRow>> {
        let found = self.join_body(db, dev_eui, i32::from(nonce), freshness).await?;
        found.map(|body| decode(&body)).transpose()
    }

    async fn join_body(&self, db: &Db, dev_eui: Eui64, nonce: i32, freshness: Freshness) -> Result<Option<String>> {
        let statement = if freshness == Freshness::Serial { &self.join_row_serial } else { &self.join_row };
        let found: Option<(Option<i32>, String)> = db.row(statement, (dev_eui.to_string(), nonce)).await?;
        found.map(|(key_wrap, body)| unwrapped(key_wrap).map(|()| body)).transpose()
    }

    /// A join's row comes only with a new revision of the state. So if the state is at the expected one, what was read
    /// before about the DevNonce still holds.
    pub async fn commit_join(&self, db: &Db, next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit> {
        let Some(expected) = next.rev.checked_sub(1) else { return Ok(Commit::Refused) };
        let device = next.dev_eui.to_string();
        if let Some(join) = join
            && self.join_body(db, next.dev_eui, i32::from(join.dev_nonce), Freshness::Serial).await?.is_some()
        {
            return Ok(Commit::Refused);
        }
        let (rev, body) = (next.rev.cast_signed(), encode(next)?);
        let join = join.map(|join| encode(join).map(|body| (&device, i32::from(join.dev_nonce), body))).transpose()?;
        let applied = match (expected, join) {
            (0, None) => db.cas(&self.first_state, (&device, rev, body)).await?,
            (0, Some(join)) => db.cas_batch(&self.first_state_with_join, ((&device, rev, body), join)).await?,
            (_, None) => db.cas(&self.next_state, (rev, body, &device, expected.cast_signed())).await?,
            (_, Some(join)) => {
                let state = (rev, body, &device, expected.cast_signed());
                db.cas_batch(&self.next_state_with_join, (state, join)).await?
            }
        };
        Ok(commit(applied))
    }

    /// The state is written as it is, on the condition that it is so. What was read before about the DevNonce then still holds,
    /// for rows of DevNonces come and go with a new revision only.
    pub async fn shrink_join(&self, db: &Db, state: &DeviceState, row: &JoinRow) -> Result<Commit> {
        let (device, nonce) = (state.dev_eui.to_string(), i32::from(row.dev_nonce));
        if self.join_body(db, row.dev_eui, nonce, Freshness::Quorum).await?.is_none() {
            return Ok(Commit::Refused);
        }
        let rev = state.rev.cast_signed();
        let values = ((rev, encode(state)?, &device, rev), (&device, nonce, encode(row)?));
        Ok(commit(db.cas_batch(&self.shrink, values).await?))
    }

    /// In one batch each: some DevNonces, and a new revision, so that a join that is under way starts again. Each round goes on
    /// behind what the last one has forgotten, as long as nobody else has written meanwhile.
    pub async fn flush_dev_nonces(&self, db: &Db, dev_eui: Eui64) -> Result<()> {
        let mut mine = None;
        for _ in 0..FORGET_ROUNDS {
            let state = self.device_state(db, dev_eui, Freshness::Serial).await?;
            if state.rev == 0 {
                return Ok(());
            }
            let device = dev_eui.to_string();
            let behind = mine.filter(|(rev, _)| *rev == state.rev).map_or(STATE, |(_, highest)| highest);
            let nonces: Vec<(i32,)> = db.rows(&self.nonces, (&device, behind, FORGET_AT_ONCE)).await?;
            if nonces.is_empty() && state.highest_dev_nonce.is_none() {
                return Ok(());
            }
            let highest = nonces.last().map_or(behind, |(nonce,)| *nonce);
            let next = DeviceState { rev: state.rev + 1, highest_dev_nonce: None, ..state };
            match self.forget_some(db, &next, &nonces).await {
                Ok(true) => mine = Some((next.rev, highest)),
                // Another was faster, or nobody knows: all are looked for again.
                Ok(false) | Err(StoreError::Unknown(_)) => mine = None,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown(format!("the DevNonces of {dev_eui} were not all forgotten")))
    }

    /// The sessions that a device may have: one that is listed may not have been made.
    pub async fn keys_of_device(&self, db: &Db, dev_eui: Eui64) -> Result<Vec<SessionKey>> {
        let mut keys = Vec::new();
        let collect = |(addr, id): (i64, i64)| {
            let dev_addr = DevAddr(u32::try_from(addr).unwrap_or_default());
            keys.push(SessionKey { dev_addr, dev_eui, id: SessionId(id.cast_unsigned()) });
            Ok(true)
        };
        db.scan(&self.of_device, (dev_eui.to_string(),), collect).await?;
        Ok(keys)
    }
}

fn paged(mut statement: PreparedStatement) -> PreparedStatement {
    statement.set_page_size(PAGE);
    statement
}

/// A session's key, as stored.
fn key_of(key: &SessionKey) -> (i64, String, i64) {
    (i64::from(key.dev_addr.0), key.dev_eui.to_string(), key.id.0.cast_signed())
}

fn commit(applied: bool) -> Commit {
    if applied { Commit::Applied } else { Commit::Refused }
}

pub(super) fn unwrapped(key_wrap: Option<i32>) -> Result<()> {
    match key_wrap {
        None | Some(0) => Ok(()),
        Some(wrap) => {
            Err(StoreError::Corrupt(format!("device keys are wrapped in a way (version {wrap}) of a newer Limpet")))
        }
    }
}

/// Rows and marks come one after the other, in the order of their keys. Marks without a session are nothing.
fn read_rows(columns: Vec<Columns>) -> Result<Vec<SessionRow>> {
    let mut rows: Vec<SessionRow> = Vec::new();
    for (dev_eui, id, kind, key_wrap, body, packed, out, through_pending, sent) in columns {
        match (kind, body) {
            (ROW, Some(body)) => {
                unwrapped(key_wrap)?;
                rows.push(SessionRow { session: decode_row(&body, packed.as_deref())?, marks: Marks::default() });
            }
            (MARKS, _) => {
                let device: Eui64 = parse(&dev_eui, "DevEUI")?;
                let of = |row: &&mut SessionRow| {
                    row.session.key.dev_eui == device && row.session.key.id.0 == id.cast_unsigned()
                };
                if let Some(row) = rows.last_mut().filter(of) {
                    row.marks = Marks {
                        out: out.unwrap_or_default().cast_unsigned(),
                        out_through_pending: through_pending.unwrap_or_default(),
                        sent: sent.unwrap_or_default().cast_unsigned(),
                    };
                }
            }
            _ => {}
        }
    }
    Ok(rows)
}
