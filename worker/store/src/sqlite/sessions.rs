//! Sessions with their marks, joins, and queues: what changes by compare-and-set.

use limpet_shared::{DevAddr, Eui64};
use limpet_worker_core::model::{DeviceState, JoinRow, Marks, QueueItem, SessionKey, SessionRow};
use rusqlite::{Connection, Row};

use super::{
    directory::device_context,
    error::{all, check_wrap, decode, decode_row, encode, execute, int, one},
    readers::snapshot,
};
use crate::{Besides, Candidate, Commit, Result, rows::Body, words};

const SESSION: &str =
    "SELECT s.body, s.key_wrap, coalesce(m.out, 0), coalesce(m.out_through_pending, 0), coalesce(m.sent, 0)
                       FROM session s LEFT JOIN session_mark m USING (dev_addr, dev_eui, id)";

/// A session's key, as stored.
fn key_of(key: &SessionKey) -> (u32, String, i64) {
    (key.dev_addr.0, key.dev_eui.to_string(), key.id.0.cast_signed())
}

fn commit(changed: usize) -> Commit {
    if changed == 1 { Commit::Applied } else { Commit::Refused }
}

fn session_row(row: &Row<'_>) -> Result<SessionRow> {
    check_wrap(row, 1)?;
    let (out, sent): (i64, i64) = (row.get(2)?, row.get(4)?);
    let marks = Marks { out: out.cast_unsigned(), out_through_pending: row.get(3)?, sent: sent.cast_unsigned() };
    Ok(SessionRow { session: decode_row(row, 0)?, marks })
}

pub(super) fn by_addr(conn: &Connection, addr: DevAddr) -> Result<Vec<SessionRow>> {
    let sql = format!("{SESSION} WHERE s.dev_addr = ?1 ORDER BY s.dev_eui, s.id");
    all(conn, &sql, [addr.0], session_row)
}

/// Of a DevAddr that many devices have, most candidates are none: what is read besides then costs more than another question.
const WITH_DEVICES: usize = 4;

/// In one state of the database.
pub(super) fn candidates(conn: &Connection, addr: DevAddr, items: u32) -> Result<Vec<Candidate>> {
    snapshot(conn, |conn| {
        let rows = by_addr(conn, addr)?;
        let few = rows.len() <= WITH_DEVICES;
        let with = |row: SessionRow| {
            let device = row.session.key.dev_eui;
            let besides = |conn| -> Result<Besides> {
                Ok(Besides {
                    device: device_context(conn, device)?,
                    queue: queue(conn, device, row.session.queue_done, items)?,
                })
            };
            let besides = few.then(|| besides(conn)).transpose()?;
            Ok(Candidate { row, besides })
        };
        rows.into_iter().map(with).collect()
    })
}

pub(super) fn by_key(conn: &Connection, key: &SessionKey) -> Result<Option<SessionRow>> {
    let sql = format!("{SESSION} WHERE s.dev_addr = ?1 AND s.dev_eui = ?2 AND s.id = ?3");
    one(conn, &sql, key_of(key), session_row)
}

pub(super) fn of_device(conn: &Connection, dev_eui: Eui64) -> Result<Vec<SessionRow>> {
    let mut rows = all(conn, &format!("{SESSION} WHERE s.dev_eui = ?1"), [dev_eui.to_string()], session_row)?;
    // As identities, which the database would order as signed numbers.
    rows.sort_by_key(|row| row.session.key);
    Ok(rows)
}

/// `body` is the session encoded.
pub(super) fn create(conn: &Connection, key: &SessionKey, rev: u64, body: &Body) -> Result<Commit> {
    let sql = "INSERT INTO session (dev_addr, dev_eui, id, rev, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (dev_addr, dev_eui, id) DO NOTHING";
    let (addr, device, id) = key_of(key);
    Ok(commit(execute(conn, sql, (addr, device, id, int(rev), body))?))
}

/// `body` is the session at `rev`, encoded.
pub(super) fn replace(conn: &Connection, key: &SessionKey, rev: u64, body: &Body) -> Result<Commit> {
    let Some(expected) = rev.checked_sub(1) else { return Ok(Commit::Refused) };
    let sql = "UPDATE session SET rev = ?4, key_wrap = 0, body = ?5
               WHERE dev_addr = ?1 AND dev_eui = ?2 AND id = ?3 AND rev = ?6";
    let (addr, device, id) = key_of(key);
    Ok(commit(execute(conn, sql, (addr, device, id, int(rev), body, int(expected)))?))
}

pub(super) fn delete(conn: &Connection, key: &SessionKey) -> Result<()> {
    let sql = "DELETE FROM session WHERE dev_addr = ?1 AND dev_eui = ?2 AND id = ?3";
    execute(conn, sql, key_of(key)).map(drop)
}

pub(super) fn mark_out(conn: &Connection, key: &SessionKey, slot: u64, through_pending: bool) -> Result<()> {
    let sql = "INSERT INTO session_mark (dev_addr, dev_eui, id, out, out_through_pending)
               SELECT dev_addr, dev_eui, id, ?4, ?5 FROM session WHERE dev_addr = ?1 AND dev_eui = ?2 AND id = ?3
               ON CONFLICT DO UPDATE SET out = excluded.out, out_through_pending =
                   CASE WHEN excluded.out > out THEN excluded.out_through_pending
                        ELSE max(out_through_pending, excluded.out_through_pending) END
               WHERE excluded.out >= out";
    let (addr, device, id) = key_of(key);
    execute(conn, sql, (addr, device, id, int(slot), through_pending)).map(drop)
}

pub(super) fn mark_sent(conn: &Connection, key: &SessionKey, fcnt_down: u32) -> Result<()> {
    let sql = "INSERT INTO session_mark (dev_addr, dev_eui, id, sent)
               SELECT dev_addr, dev_eui, id, ?4 FROM session WHERE dev_addr = ?1 AND dev_eui = ?2 AND id = ?3
               ON CONFLICT DO UPDATE SET sent = excluded.sent WHERE excluded.sent > sent";
    let (addr, device, id) = key_of(key);
    execute(conn, sql, (addr, device, id, i64::from(fcnt_down) + 1)).map(drop)
}

pub(super) fn device_state(conn: &Connection, dev_eui: Eui64) -> Result<DeviceState> {
    let sql = "SELECT body FROM device_state WHERE dev_eui = ?1";
    Ok(one(conn, sql, [dev_eui.to_string()], |row| decode(row, 0))?.unwrap_or_else(|| DeviceState::new(dev_eui)))
}

/// Of a device that has none.
pub(super) fn put_state(conn: &Connection, state: &DeviceState) -> Result<()> {
    let sql = "INSERT INTO device_state (dev_eui, rev, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    execute(conn, sql, (state.dev_eui.to_string(), int(state.rev), encode(state)?)).map(drop)
}

pub(super) fn join_row(conn: &Connection, dev_eui: Eui64, dev_nonce: u16) -> Result<Option<JoinRow>> {
    let sql = "SELECT body, key_wrap FROM join_row WHERE dev_eui = ?1 AND dev_nonce = ?2";
    one(conn, sql, (dev_eui.to_string(), dev_nonce), |row| check_wrap(row, 1).and_then(|()| decode(row, 0)))
}

pub(super) fn commit_join(conn: &Connection, next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit> {
    if let Some(join) = join {
        let sql = "SELECT 1 FROM join_row WHERE dev_eui = ?1 AND dev_nonce = ?2";
        if one(conn, sql, (join.dev_eui.to_string(), join.dev_nonce), |_| Ok(()))?.is_some() {
            return Ok(Commit::Refused);
        }
    }
    if replace_state(conn, next)? == Commit::Refused {
        return Ok(Commit::Refused);
    }
    if let Some(join) = join {
        let sql = "INSERT INTO join_row (dev_eui, dev_nonce, body) VALUES (?1, ?2, ?3)";
        execute(conn, sql, (join.dev_eui.to_string(), join.dev_nonce, encode(join)?))?;
    }
    Ok(Commit::Applied)
}

pub(super) fn shrink_join(conn: &Connection, rev: u64, row: &JoinRow) -> Result<Commit> {
    let sql = "UPDATE join_row SET body = ?3 WHERE dev_eui = ?1 AND dev_nonce = ?2
               AND EXISTS (SELECT 1 FROM device_state s WHERE s.dev_eui = ?1 AND s.rev = ?4)";
    Ok(commit(execute(conn, sql, (row.dev_eui.to_string(), row.dev_nonce, encode(row)?, int(rev)))?))
}

fn replace_state(conn: &Connection, next: &DeviceState) -> Result<Commit> {
    let (device, body) = (next.dev_eui.to_string(), encode(next)?);
    let changed = match next.rev {
        0 => 0,
        1 => {
            let sql = "INSERT INTO device_state (dev_eui, rev, body) VALUES (?1, 1, ?2)
                       ON CONFLICT (dev_eui) DO NOTHING";
            execute(conn, sql, (device, body))?
        }
        rev => {
            let sql = "UPDATE device_state SET rev = ?2, body = ?3 WHERE dev_eui = ?1 AND rev = ?4";
            execute(conn, sql, (device, int(rev), body, int(rev - 1)))?
        }
    };
    Ok(commit(changed))
}

pub(super) fn flush_dev_nonces(conn: &Connection, dev_eui: Eui64) -> Result<()> {
    let mut state = device_state(conn, dev_eui)?;
    if state.rev > 0 {
        state.rev += 1;
        state.highest_dev_nonce = None;
        replace_state(conn, &state)?;
    }
    execute(conn, "DELETE FROM join_row WHERE dev_eui = ?1", [dev_eui.to_string()]).map(drop)
}

pub(super) fn enqueue(conn: &Connection, mut item: QueueItem) -> Result<QueueItem> {
    let device = item.dev_eui.to_string();
    let taken = "SELECT 1 FROM queue_item WHERE dev_eui = ?1 AND id = ?2";
    if one(conn, taken, (&device, &item.id), |_| Ok(()))?.is_some() {
        return Err(words::exists("queue item", &item.id));
    }
    let number = "INSERT INTO queue_number (dev_eui, last) VALUES (?1, 1)
                  ON CONFLICT (dev_eui) DO UPDATE SET last = last + 1 RETURNING last";
    let seq = one(conn, number, [&device], |row| Ok(row.get::<_, i64>(0)?))?.unwrap_or_default();
    item.seq = seq.cast_unsigned();
    let insert = "INSERT INTO queue_item (dev_eui, seq, id, body) VALUES (?1, ?2, ?3, ?4)";
    execute(conn, insert, (device, seq, &item.id, encode(&item)?))?;
    Ok(item)
}

pub(super) fn queue(conn: &Connection, dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>> {
    let sql = "SELECT body FROM queue_item WHERE dev_eui = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    all(conn, sql, (dev_eui.to_string(), int(after), limit), |row| decode(row, 0))
}

pub(super) fn delete_queue_item(conn: &Connection, dev_eui: Eui64, seq: u64) -> Result<()> {
    execute(conn, "DELETE FROM queue_item WHERE dev_eui = ?1 AND seq = ?2", (dev_eui.to_string(), int(seq))).map(drop)
}

pub(super) fn queue_last(conn: &Connection, dev_eui: Eui64) -> Result<u64> {
    let sql = "SELECT last FROM queue_number WHERE dev_eui = ?1";
    let last = one(conn, sql, [dev_eui.to_string()], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?;
    Ok(last.unwrap_or_default())
}

pub(super) fn flush_queue(conn: &Connection, dev_eui: Eui64, last: u64) -> Result<()> {
    let sql = "DELETE FROM queue_item WHERE dev_eui = ?1 AND seq <= ?2";
    execute(conn, sql, (dev_eui.to_string(), int(last))).map(drop)
}
