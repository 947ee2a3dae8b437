//! Transmissions in work at this worker, and who holds which copies of them.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::{
    copies,
    model::{DedupKey, Reception},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Equal bytes that are heard this much apart are two transmissions, on whatever channel: a device waits at least for
/// RX1 before it repeats, while the copies of one transmission arrive within the time networks differ by.
pub(crate) const APART: Duration = Duration::from_secs(1);

/// Copies that a work keeps itself. What the store does not give back (too old, or not seen by a read) is judged all the same.
const KEPT_COPIES: usize = 64;

/// The copies of one frame that this worker was handed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Receive time of the latest copy, and the balancer whose clock it is on.
    pub latest: UnixMicros,
    pub balancer: u64,
    /// One of them was at another worker before, or at an earlier life of this one, which fell silent.
    pub left: bool,
    gateways: HashSet<Eui64>,
    copies: Vec<Reception>,
}

/// The work on one transmission: equal bytes that were sent again are another, with a turn of its own, however close together
/// this worker gets both (after an outage both are in its hands, and what its device sent in between comes in between).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkId {
    pub key: DedupKey,
    /// Receive time of the copy that began it; the others are within [`APART`] of that.
    began_with: UnixMicros,
}

struct Work {
    began_with: UnixMicros,
    held: Held,
    waiting: Vec<oneshot::Sender<()>>,
    /// How many datagrams these are.
    datagrams: f64,
}

impl Held {
    fn add(&mut self, reception: &Reception, left: bool) {
        self.left |= left;
        self.gateways.insert(reception.gateway);
        // Of more copies than are kept the latest is.
        if self.copies.len() >= KEPT_COPIES && reception.received_at > self.latest {
            self.copies.pop();
        }
        if self.copies.len() < KEPT_COPIES {
            self.copies.push(reception.clone());
        }
        if reception.received_at >= self.latest {
            (self.latest, self.balancer) = (reception.received_at, reception.balancer);
        }
    }
}

#[derive(Default)]
pub(crate) struct Works(Mutex<HashMap<DedupKey, Vec<Work>>>);

impl Works {
    /// Adds a copy. If it is the first of its transmission the caller begins the work.
    /// `share`: the part that it is of its datagram.
    pub fn hold(&self, reception: &Reception, left: bool, share: f64) -> (Option<WorkId>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let (key, at) = (reception.key, reception.received_at);
        let mut works = self.0.lock();
        let works = works.entry(key).or_default();
        let is_copy = |work: &&mut Work| at.since(work.began_with) < APART && work.began_with.since(at) < APART;
        if let Some(work) = works.iter_mut().find(is_copy) {
            work.held.add(reception, left);
            work.waiting.push(sender);
            work.datagrams += share;
            return (None, receiver);
        }
        let mut held = Held::default();
        held.add(reception, left);
        works.push(Work { began_with: at, held, waiting: vec![sender], datagrams: share });
        (Some(WorkId { key, began_with: at }), receiver)
    }

    pub fn held(&self, id: WorkId) -> Held {
        let works = self.0.lock();
        let work = works.get(&id.key).and_then(|works| works.iter().find(|work| work.began_with == id.began_with));
        work.map(|work| work.held.clone()).unwrap_or_default()
    }

    /// How many datagrams wait for its end, those in part that carry other packets too.
    pub fn datagrams(&self, id: WorkId) -> f64 {
        let works = self.0.lock();
        let work = works.get(&id.key).and_then(|works| works.iter().find(|work| work.began_with == id.began_with));
        work.map_or(0.0, |work| work.datagrams)
    }

    /// For the task that works on it.
    pub fn begun(&self, id: WorkId) -> Begun<'_> {
        Begun { works: self, id }
    }

    fn take(&self, id: WorkId) -> Vec<Work> {
        let mut all = self.0.lock();
        let Some(works) = all.get_mut(&id.key) else { return Vec::new() };
        let taken = works.extract_if(.., |work| work.began_with == id.began_with).collect();
        if works.is_empty() {
            all.remove(&id.key);
        }
        taken
    }

    /// Is this key in work here? The sweep leaves it alone then.
    pub fn contains(&self, key: DedupKey) -> bool {
        self.0.lock().contains_key(&key)
    }
}

/// Work that a task is at. Dropped without a verdict it is broken off: who waits is told nothing, and a redelivery begins anew.
pub(super) struct Begun<'a> {
    works: &'a Works,
    id: WorkId,
}

impl Begun<'_> {
    /// There is a verdict: everybody who waits is told.
    pub fn finish(self) {
        for waiting in self.works.take(self.id).into_iter().flat_map(|work| work.waiting) {
            // Whoever stopped waiting has no use for the answer.
            let _ = waiting.send(());
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        drop(self.works.take(self.id));
    }
}

/// All receptions of one transmission, from all workers, on the channel that it was sent on, in order of (received_at, gateway).
pub(crate) struct Transmission {
    pub receptions: Vec<Reception>,
    /// Found by the sweep, and not handed over by a balancer.
    pub swept: bool,
    /// Another worker holds the first copy, and has most likely settled it.
    pub follows: bool,
    /// Handed over again by a balancer.
    left: bool,
}

impl Transmission {
    /// Of all receptions of a key, those of the transmission that the latest held copy belongs to.
    pub fn of(mut stored: Vec<Reception>, held: &Held) -> Self {
        for copy in &held.copies {
            if stored.iter().all(|r| (r.gateway, r.context) != (copy.gateway, copy.context)) {
                stored.push(copy.clone());
            }
        }
        stored.retain(|r| r.received_at.since(held.latest) < APART && held.latest.since(r.received_at) < APART);
        Self { left: held.left, ..Self::sorted(stored, false) }
    }

    /// All transmissions among the stored receptions of a key, in order: equal bytes may have been sent in another session too.
    pub fn all(mut stored: Vec<Reception>) -> Vec<Self> {
        stored.sort_by_key(|r| r.received_at);
        let mut all = Vec::new();
        while let Some(first) = stored.first().map(|r| r.received_at) {
            let later = stored.split_off(stored.partition_point(|r| r.received_at.since(first) < APART));
            all.push(Self::sorted(std::mem::replace(&mut stored, later), true));
        }
        all
    }

    fn sorted(receptions: Vec<Reception>, swept: bool) -> Self {
        let mut receptions = copies::on_one_channel(receptions);
        receptions.sort_by_key(|r| (r.received_at, r.gateway));
        Self { receptions, swept, follows: false, left: false }
    }

    /// Whether somebody has had it before, and may have died at it.
    pub fn is_left(&self) -> bool {
        self.swept || self.left
    }

    /// When the last copy was received.
    pub fn latest(&self) -> UnixMicros {
        self.receptions.last().map(|r| r.received_at).unwrap_or_default()
    }

    /// When the first copy was received.
    pub fn received_at(&self) -> UnixMicros {
        self.receptions.first().map(|r| r.received_at).unwrap_or_default()
    }

    /// 0 for the leader, who holds the first copy; followers count on. An optimisation only: what follows is safe for
    /// any number of workers at any moment.
    pub fn rank(&self, held: &Held) -> u32 {
        let mine = self.receptions.iter().position(|r| held.gateways.contains(&r.gateway));
        mine.map_or(0, |p| u32::try_from(p).unwrap_or(2))
    }
}

#[cfg(test)]
mod tests {
    use limpet_worker_core::model::RxInfo;

    use super::*;

    #[test]
    fn work_that_breaks_off_tells_nobody_that_it_is_done_and_is_begun_anew() {
        let works = Works::default();
        let copy = |gateway| Reception {
            key: DedupKey(1),
            gateway: Eui64(gateway),
            context: gateway,
            received_at: UnixMicros(1),
            balancer: 1,
            region: "eu868".into(),
            frequency: 868_100_000,
            data_rate: 0,
            rx: RxInfo::default(),
            phy: Vec::new(),
        };
        let (begun, mut first) = works.hold(&copy(1), false, 1.0);
        let (joined, mut second) = works.hold(&copy(2), false, 0.5);
        assert!(joined.is_none());
        let begun = begun.unwrap();
        assert_eq!(works.datagrams(begun), 1.5);
        drop(works.begun(begun));
        for told in [&mut first, &mut second] {
            assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        }
        assert!(!works.contains(DedupKey(1)));
        let (again, mut third) = works.hold(&copy(1), false, 1.0);
        works.begun(again.unwrap()).finish();
        assert_eq!(third.try_recv(), Ok(()));
    }
}
