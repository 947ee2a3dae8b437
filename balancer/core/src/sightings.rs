//! What every worker is told of every gateway: that it has asked for downlinks here. Collected for a moment, so that
//! thousands of gateways cost few messages.

use alloc::vec::Vec;
use core::time::Duration;

use limpet_shared::{Eui64, link};

/// For how long sightings are collected. The downlink of an uplink is decided 200 ms after it, at the earliest.
const COLLECT: Duration = Duration::from_millis(10);
/// So many go out at once.
const FULL: usize = 256;
/// Gateways in one message to a worker that has just been linked.
const CHUNK: usize = 4_096;
/// Gateways that such a worker is told of; all others it hears of within seconds.
pub const MOST: usize = 200_000;

/// Gateways that asked, and when (monotonic).
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    waiting: Vec<(Eui64, Duration)>,
    due: Option<Duration>,
}

impl Sightings {
    /// A gateway asks now.
    pub fn add(&mut self, gateway: Eui64, now: Duration) {
        self.waiting.push((gateway, now));
        self.due.get_or_insert(if self.waiting.len() >= FULL { now } else { now + COLLECT });
    }

    /// When they are to be told.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due
    }

    /// What is to be told now, if that moment has come or there is much to tell.
    pub fn take(&mut self, now: Duration) -> Option<link::Sightings> {
        let ready = self.due.is_some_and(|due| due <= now) || self.waiting.len() >= FULL;
        if !ready {
            return None;
        }
        self.due = None;
        Some(message(core::mem::take(&mut self.waiting).into_iter(), now))
    }
}

/// The whole table, for a worker that knows nothing yet.
pub fn table(pulls: impl Iterator<Item = (Eui64, Duration)>, now: Duration) -> Vec<link::Sightings> {
    let pulls: Vec<(Eui64, Duration)> = pulls.take(MOST).collect();
    pulls.chunks(CHUNK).map(|chunk| message(chunk.iter().copied(), now)).collect()
}

fn message(pulls: impl Iterator<Item = (Eui64, Duration)>, now: Duration) -> link::Sightings {
    let age = |at: Duration| u32::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u32::MAX);
    let (gateways, ages) = pulls.map(|(gateway, at)| (gateway.0, age(at))).unzip();
    link::Sightings { gateways, ages }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn they_go_out_together_with_their_ages() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.next_deadline(), None);
        sightings.add(Eui64(1), MS * 100);
        sightings.add(Eui64(2), MS * 103);
        assert_eq!(sightings.next_deadline(), Some(MS * 110));
        assert_eq!(sightings.take(MS * 109), None);
        let told = sightings.take(MS * 111).unwrap();
        assert_eq!((told.gateways, told.ages), (alloc::vec![1, 2], alloc::vec![11, 8]));
        assert_eq!((sightings.next_deadline(), sightings.take(MS * 999)), (None, None));
    }

    #[test]
    fn many_do_not_wait_and_a_table_is_cut_in_pieces() {
        let mut sightings = Sightings::default();
        (0..FULL as u64).for_each(|n| sightings.add(Eui64(n), MS));
        assert_eq!(sightings.take(MS).unwrap().gateways.len(), FULL);
        let everybody = (0..MOST as u64 + 5).map(|n| (Eui64(n), MS));
        let pieces = table(everybody, MS * 2);
        assert_eq!(pieces.iter().map(|p| p.gateways.len()).sum::<usize>(), MOST);
        assert!(pieces.iter().all(|p| p.gateways.len() <= CHUNK && p.ages.iter().all(|age| *age == 1)));
    }
}
