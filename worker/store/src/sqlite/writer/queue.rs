//! What waits for the thread that writes, and when it goes on.
//!
//! A write wakes the thread up, which takes all there are, those that only go along included. What uplinks write begins a transaction
//! [`PACE`] after the last one began, at the soonest: so what comes in close succession, as the copies of a frame do, shares one, and
//! what comes alone does not wait. Reads never wait for a write: they are taken while the thread rests, and by readers otherwise.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{super::readers::Read, Job};

/// From the beginning of one transaction to that of the next.
const PACE: Duration = Duration::from_millis(2);

#[derive(Default)]
pub(in crate::sqlite) struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    reads: VecDeque<Read>,
    writes: VecDeque<Box<dyn Job>>,
    due: Due,
    /// The thread has nothing to do, or waits for the time of its next transaction.
    rests: bool,
    closed: bool,
}

/// When what waits is to be written.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// With the next transaction.
    #[default]
    Along,
    /// When the last transaction is long enough ago.
    Paced,
    Now,
}

/// What the thread does next.
pub(super) enum Next {
    Read(VecDeque<Read>),
    Write(Vec<Box<dyn Job>>),
    End,
}

impl State {
    fn take(&mut self, most: usize) -> Vec<Box<dyn Job>> {
        let taken = self.writes.drain(..most.min(self.writes.len())).collect();
        self.due = if self.writes.is_empty() { Due::Along } else { Due::Now };
        taken
    }
}

impl Queue {
    /// Hands in a write. False after the end.
    pub(super) fn write(&self, job: Box<dyn Job>, due: Due) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.writes.push_back(job);
        self.go_on(state, due);
        true
    }

    /// What waits is to be written.
    pub(super) fn go(&self) {
        let state = self.state.lock();
        if !state.writes.is_empty() {
            self.go_on(state, Due::Now);
        }
    }

    fn go_on(&self, mut state: MutexGuard<'_, State>, due: Due) {
        let wakes = due > state.due && state.rests;
        state.due = due.max(state.due);
        // Whoever is woken up finds the lock free.
        drop(state);
        if wakes {
            self.news.notify_one();
        }
    }

    /// Hands in a read, if the thread has nothing better to do; else it is given back.
    pub(super) fn read(&self, read: Read) -> Option<Read> {
        let mut state = self.state.lock();
        if state.closed || !state.rests {
            return Some(read);
        }
        state.reads.push_back(read);
        let first = state.reads.len() == 1;
        drop(state);
        if first {
            self.news.notify_one();
        }
        None
    }

    /// Waits for something to do. `begun`: when the last transaction began.
    pub(super) fn next(&self, begun: Option<Instant>, most: usize) -> Next {
        let mut state = self.state.lock();
        let next = loop {
            if !state.reads.is_empty() {
                break Next::Read(std::mem::take(&mut state.reads));
            }
            state.rests = true;
            let paced = begun.map(|begun| begun + PACE).filter(|at| *at > Instant::now());
            match (state.due, paced) {
                (Due::Now, _) | (Due::Paced, None) => break Next::Write(state.take(most)),
                _ if state.closed && !state.writes.is_empty() => break Next::Write(state.take(most)),
                _ if state.closed => break Next::End,
                (Due::Paced, Some(at)) => drop(self.news.wait_until(&mut state, at)),
                (Due::Along, _) => self.news.wait(&mut state),
            }
        };
        state.rests = false;
        next
    }

    /// Writes that have come meanwhile, and go with those at hand.
    pub(super) fn more(&self, most: usize) -> Vec<Box<dyn Job>> {
        self.state.lock().take(most)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The thread has ended: nothing more comes in, and whoever waits is told.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let left = (std::mem::take(&mut state.reads), std::mem::take(&mut state.writes));
        drop(state);
        drop(left);
    }

    /// Nothing more comes in.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.news.notify_one();
    }
}
