//! What is counted while devices play.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::lock;

#[derive(Debug, Default)]
pub(super) struct Stats {
    counts: Mutex<Counts>,
    /// PUSH_ACK latencies, us.
    latencies: Mutex<Vec<u32>>,
    /// PUSH_DATA whose PUSH_ACK did not come in time.
    unacked: AtomicU64,
}

/// Numbers of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) joins_tried: u64,
    pub(super) joins_accepted: u64,
    /// Different uplinks.
    pub(super) uplinks: u64,
    /// Confirmed uplinks that were sent again.
    pub(super) repeated: u64,
    pub(super) confirmed: u64,
    pub(super) acknowledged: u64,
    pub(super) rx1: u64,
    pub(super) rx2: u64,
    pub(super) undecodable: u64,
    pub(super) counter_reused: u64,
    pub(super) enqueued: u64,
    pub(super) enqueue_failed: u64,
    pub(super) delivered: u64,
}

impl Stats {
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }
    pub(super) fn snapshot(&self) -> Counts {
        lock(&self.counts).clone()
    }
    /// One PUSH_DATA is settled: acknowledged after this time, or not at all.
    pub(super) fn push_settled(&self, latency: Option<Duration>) {
        match latency {
            Some(latency) => lock(&self.latencies).push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)),
            None => {
                self.unacked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    pub(super) fn unacked(&self) -> u64 {
        self.unacked.load(Ordering::Relaxed)
    }
    /// Ascending.
    pub(super) fn latencies(&self) -> Vec<u32> {
        let mut latencies = lock(&self.latencies).clone();
        latencies.sort_unstable();
        latencies
    }
}
