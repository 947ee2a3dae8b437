//! Counters that must never give a number twice, and what an import makes of them.
//!
//! A backup is older than what the devices have seen: after it was made the network went on sending. If the restored
//! network went on from the numbers in the backup, it would send other payloads under FCntDowns and session keys that are
//! used up, and devices would ignore them. So an import skips ahead. Where a network only moves, with its servers stopped,
//! nothing was sent meanwhile and the numbers are kept.

use limpet_worker_core::model::{Answer, DeviceState, Session};

use super::{NETWORK_BEGAN, record::Record};

/// How far an import skips if it is not told otherwise.
pub const DEFAULT_SKIP: u32 = 1_000;
/// A device of LoRaWAN 1.0.x takes no downlink whose FCntDown is 16,384 (MAX_FCNT_GAP) or more above the last one it heard.
pub const MOST_SKIP: u32 = 16_383;
/// JoinNonces have 24 bits. A device whose next one is this has used them up.
const JOIN_NONCES: u32 = 1 << 24;

/// What an import makes of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counters {
    /// As they are: the network that was exported was stopped before, and never runs again.
    Keep,
    /// Ahead by so many.
    Skip(u32),
}

impl Counters {
    /// Moves the record's counters. True if one of them reached its end, after which it gives no number any more: a counter
    /// never wraps. `began`: the second in which the restored network begins.
    pub(super) fn apply(self, record: &mut Record, began: u64) -> bool {
        let Self::Skip(by) = self else { return false };
        match record {
            Record::Session(row) => skip_session(&mut row.session, by),
            // A join that was not finished is finished from here.
            Record::Join(row) => skip_session(&mut row.session, by),
            Record::DeviceState(state) => skip_joins(state, by),
            Record::Setting(setting) if setting.name == NETWORK_BEGAN => {
                setting.value = began.to_be_bytes().into();
                false
            }
            _ => false,
        }
    }
}

/// The answer goes: its time is over, and what the old network sent after the backup is not known.
fn skip_session(session: &mut Session, by: u32) -> bool {
    session.answer = Answer::Closed;
    session.next_fcnt_down = session.next_fcnt_down.saturating_add(by);
    session.next_fcnt_down == u32::MAX
}

fn skip_joins(state: &mut DeviceState, by: u32) -> bool {
    state.next_join_nonce = state.next_join_nonce.saturating_add(by).min(JOIN_NONCES);
    for counter in &mut state.down_counters {
        counter.next = counter.next.saturating_add(by);
    }
    state.next_join_nonce == JOIN_NONCES
}

/// The record without exactly what [`Counters::apply`] moves; `None` if that leaves it as it is.
pub(super) fn content(record: &Record) -> Option<Record> {
    let without = |session: &Session| {
        let mut session = session.clone();
        session.answer = Answer::Closed;
        session.next_fcnt_down = 0;
        session
    };
    match record {
        Record::Session(row) => {
            let mut row = row.clone();
            row.session = without(&row.session);
            Some(Record::Session(row))
        }
        Record::Join(row) => {
            let mut row = row.clone();
            row.session = without(&row.session);
            Some(Record::Join(row))
        }
        Record::DeviceState(state) => {
            let mut state = DeviceState { next_join_nonce: 0, ..state.clone() };
            state.down_counters.iter_mut().for_each(|counter| counter.next = 0);
            Some(Record::DeviceState(state))
        }
        Record::Setting(setting) if setting.name == NETWORK_BEGAN => {
            let mut setting = setting.clone();
            setting.value.clear();
            Some(Record::Setting(setting))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use limpet_worker_core::model::{Marks, SessionRow};

    use super::*;
    use limpet_store_testing::conformance::Samples;

    fn session(next_fcnt_down: u32) -> Record {
        let new = Samples::new();
        let mut session = new.session(new.session_key());
        session.next_fcnt_down = next_fcnt_down;
        Record::Session(Box::new(SessionRow { session, marks: Marks::default() }))
    }

    fn next(record: &Record) -> u32 {
        match record {
            Record::Session(row) => row.session.next_fcnt_down,
            Record::Join(row) => row.session.next_fcnt_down,
            Record::DeviceState(state) => state.next_join_nonce,
            _ => unreachable!(),
        }
    }

    #[test]
    fn counters_skip_and_never_wrap() {
        for (from, by, to, ended) in [
            (0, 1_000, 1_000, false),
            (70_000, MOST_SKIP, 86_383, false),
            (5, 0, 5, false),
            (u32::MAX - 1_001, 1_000, u32::MAX - 1, false),
            (u32::MAX - 10, 1_000, u32::MAX, true),
            (u32::MAX, 1_000, u32::MAX, true),
        ] {
            let mut record = session(from);
            assert_eq!(Counters::Skip(by).apply(&mut record, 7), ended, "{from} + {by}");
            assert_eq!(next(&record), to, "{from} + {by}");
        }
        let state = |next_join_nonce| {
            Record::DeviceState(DeviceState { next_join_nonce, ..DeviceState::new(Samples::new().eui()) })
        };
        for (from, to, ended) in
            [(1, 1_001, false), (JOIN_NONCES - 5, JOIN_NONCES, true), (JOIN_NONCES, JOIN_NONCES, true)]
        {
            let mut record = state(from);
            assert_eq!(Counters::Skip(1_000).apply(&mut record, 7), ended, "{from}");
            assert_eq!(next(&record), to, "{from}");
        }
    }

    #[test]
    fn a_join_that_is_finished_later_has_its_counter_skipped_too() {
        let new = Samples::new();
        let mut join = new.join(new.eui(), 3);
        join.session.next_fcnt_down = 0;
        let mut record = Record::Join(Box::new(join));
        Counters::Skip(1_000).apply(&mut record, 7);
        assert_eq!(next(&record), 1_000);
        assert!(matches!(&record, Record::Join(row) if row.session.answer.is_closed()));
    }

    #[test]
    fn the_content_is_what_an_import_leaves_alone() {
        let new = Samples::new();
        let began = super::super::record::Setting { name: NETWORK_BEGAN.into(), value: vec![1; 8] };
        let records = [
            session(5),
            Record::Join(Box::new(new.join(new.eui(), 3))),
            Record::DeviceState(DeviceState::new(new.eui())),
            Record::Setting(began),
            Record::Tenant(new.tenant()),
        ];
        for record in records {
            let mut moved = record.clone();
            Counters::Skip(1_000).apply(&mut moved, 7);
            assert_eq!(content(&moved).unwrap_or(moved), content(&record).unwrap_or(record.clone()));
            let mut kept = record.clone();
            Counters::Keep.apply(&mut kept, 7);
            assert_eq!(kept, record);
        }
        assert_ne!(content(&session(5)), content(&session(5)), "another session is other content");
    }
}
