//! What one connection was sent, by the connection's own numbers.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::FrameId;

/// One connection's frames.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    last_seq: u64,
    /// All up to this one were read.
    read: u64,
    outstanding: BTreeMap<u64, Entry>,
    /// Of these, the ones whose frames no worker has stored, and when they were sent.
    unstored: BTreeMap<u64, Duration>,
    /// Bytes of those that were not read.
    unread: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    frame: FrameId,
    cost: usize,
}

impl Ledger {
    /// Notes a frame that is sent, and when, if nobody has stored it; its number.
    pub fn assign(&mut self, frame: FrameId, cost: usize, unstored: Option<Duration>) -> u64 {
        self.last_seq += 1;
        self.outstanding.insert(self.last_seq, Entry { frame, cost });
        self.unread += cost;
        if let Some(now) = unstored {
            self.unstored.insert(self.last_seq, now);
        }
        self.last_seq
    }

    /// All up to `seq` were read; the frames for which that is news.
    pub fn read_to(&mut self, seq: u64) -> Vec<FrameId> {
        let seq = seq.min(self.last_seq);
        if seq <= self.read {
            return Vec::new();
        }
        let newly: Vec<Entry> = self.outstanding.range(self.read + 1..=seq).map(|(_, entry)| *entry).collect();
        self.read = seq;
        self.unread -= newly.iter().map(|entry| entry.cost).sum::<usize>();
        newly.into_iter().map(|entry| entry.frame).collect()
    }

    /// Somebody has stored it.
    pub fn stored(&mut self, seq: u64) {
        self.unstored.remove(&seq);
    }

    /// Nobody needs to finish it any more; whether it was never read.
    pub fn release(&mut self, seq: u64) -> bool {
        self.unstored.remove(&seq);
        let Some(entry) = self.outstanding.remove(&seq) else { return false };
        let unread = seq > self.read;
        if unread {
            self.unread -= entry.cost;
        }
        unread
    }

    pub fn frame(&self, seq: u64) -> Option<FrameId> {
        self.outstanding.get(&seq).map(|entry| entry.frame)
    }

    /// In the order in which they were sent.
    pub fn unfinished(&self) -> impl Iterator<Item = FrameId> {
        self.outstanding.values().map(|entry| entry.frame)
    }

    pub fn len(&self) -> usize {
        self.outstanding.len()
    }

    pub fn unread(&self) -> usize {
        self.unread
    }

    pub fn unstored_since(&self) -> Option<Duration> {
        self.unstored.values().next().copied()
    }

    /// Whether its parts agree with each other; `stored` says so of a frame.
    pub fn is_sound(&self, stored: impl Fn(FrameId) -> bool) -> bool {
        let unread = self.outstanding.range(self.read + 1..).map(|(_, entry)| entry.cost).sum::<usize>();
        let unstored = self.outstanding.iter().filter(|(_, entry)| !stored(entry.frame)).map(|(seq, _)| seq);
        self.unread == unread && self.unstored.keys().eq(unstored) && self.read <= self.last_seq
    }
}
