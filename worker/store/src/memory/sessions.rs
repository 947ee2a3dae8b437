//! Sessions, joins and queues in memory: what changes by compare-and-set.

use std::collections::btree_map::Entry;

use limpet_shared::{DevAddr, Eui64};
use limpet_worker_core::model::*;

use super::State;
use crate::{Commit, Result, words};

impl State {
    pub(super) fn sessions_by_addr(&self, addr: DevAddr) -> Vec<SessionRow> {
        let first = SessionKey { dev_addr: addr, dev_eui: Eui64(0), id: SessionId(0) };
        let last = SessionKey { dev_addr: addr, dev_eui: Eui64(u64::MAX), id: SessionId(u64::MAX) };
        self.sessions.range(first..=last).map(|(_, row)| row.clone()).collect()
    }

    pub(super) fn create_session(&mut self, session: &Session) -> Commit {
        match self.sessions.entry(session.key) {
            Entry::Occupied(_) => Commit::Refused,
            Entry::Vacant(free) => {
                free.insert(SessionRow { session: session.clone(), marks: Marks::default() });
                Commit::Applied
            }
        }
    }

    pub(super) fn commit_session(&mut self, next: &Session) -> Commit {
        match self.sessions.get_mut(&next.key) {
            Some(row) if row.session.rev.checked_add(1) == Some(next.rev) => {
                row.session = next.clone();
                Commit::Applied
            }
            _ => Commit::Refused,
        }
    }

    pub(super) fn mark_out(&mut self, key: &SessionKey, slot: u64, through_pending: bool) {
        let Some(row) = self.sessions.get_mut(key) else { return };
        if slot > row.marks.out {
            row.marks.out = slot;
            row.marks.out_through_pending = through_pending;
        } else if slot == row.marks.out {
            row.marks.out_through_pending |= through_pending;
        }
    }

    pub(super) fn mark_sent(&mut self, key: &SessionKey, fcnt_down: u32) {
        if let Some(row) = self.sessions.get_mut(key) {
            row.marks.sent = row.marks.sent.max(u64::from(fcnt_down) + 1);
        }
    }

    pub(super) fn commit_join(&mut self, next: &DeviceState, join: Option<&JoinRow>) -> Commit {
        let rev = self.states.get(&next.dev_eui).map_or(0, |state| state.rev);
        let nonce = join.map(|j| (j.dev_eui, j.dev_nonce));
        if next.rev.checked_sub(1) != Some(rev) || nonce.is_some_and(|n| self.joins.contains_key(&n)) {
            return Commit::Refused;
        }
        self.states.insert(next.dev_eui, next.clone());
        if let Some(join) = join {
            self.joins.insert((join.dev_eui, join.dev_nonce), join.clone());
        }
        Commit::Applied
    }

    pub(super) fn shrink_join(&mut self, state: &DeviceState, row: &JoinRow) -> Commit {
        if self.states.get(&state.dev_eui).is_none_or(|known| known.rev != state.rev) {
            return Commit::Refused;
        }
        match self.joins.get_mut(&(row.dev_eui, row.dev_nonce)) {
            Some(known) => known.clone_from(row),
            None => return Commit::Refused,
        }
        Commit::Applied
    }

    pub(super) fn flush_dev_nonces(&mut self, dev_eui: Eui64) {
        if let Some(state) = self.states.get_mut(&dev_eui) {
            state.rev += 1;
            state.highest_dev_nonce = None;
        }
        self.joins.retain(|(device, _), _| *device != dev_eui);
    }

    pub(super) fn enqueue(&mut self, mut item: QueueItem) -> Result<QueueItem> {
        let queue = self.queues.entry(item.dev_eui).or_default();
        if queue.items.values().any(|waiting| waiting.id == item.id) {
            return Err(words::exists("queue item", &item.id));
        }
        queue.last += 1;
        item.seq = queue.last;
        queue.items.insert(item.seq, item.clone());
        Ok(item)
    }

    pub(super) fn queue(&self, dev_eui: Eui64, after: u64, limit: u32) -> Vec<QueueItem> {
        let Some(queue) = self.queues.get(&dev_eui) else { return Vec::new() };
        let items = queue.items.range(after.saturating_add(1)..);
        items.take(limit as usize).map(|(_, item)| item.clone()).collect()
    }
}
