//! One frame that a gateway sends in again and again, each time as if heard anew: of what makes no sense as copies only some are kept.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use limpet_shared::Eui64;
use limpet_worker_core::model::{DedupKey, Reception};
use parking_lot::Mutex;

/// Copies of one frame that are taken from one gateway in a minute: 15 transmissions, on eight channels, by two antennas.
const MOST: usize = 256;
const MINUTE: Duration = Duration::from_secs(60);
/// Frames remembered; twice as many at most. A gateway that sends in so many others meanwhile may begin again.
const REMEMBERED: usize = 50_000;

/// A frame at a gateway within a minute of its receive time.
type Frame = (DedupKey, Eui64, u64);

#[derive(Default)]
pub(super) struct Repeats(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    now: HashMap<Frame, HashSet<u64>>,
    before: HashMap<Frame, HashSet<u64>>,
}

impl Repeats {
    /// Whether it is one of the first of its minute. What was taken once is taken again: a balancer hands it over until it is done.
    pub fn takes(&self, reception: &Reception) -> bool {
        let minute = reception.received_at.on_grid(MINUTE);
        let frame = (reception.key, reception.gateway, minute.0);
        let mut all = self.0.lock();
        if !all.now.contains_key(&frame) {
            if all.now.len() >= REMEMBERED {
                all.before = std::mem::take(&mut all.now);
            }
            let known = all.before.remove(&frame).unwrap_or_default();
            all.now.insert(frame, known);
        }
        let Some(known) = all.now.get_mut(&frame) else { return true };
        known.contains(&reception.context) || known.len() < MOST && known.insert(reception.context)
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::UnixMicros;
    use limpet_worker_core::model::RxInfo;

    use super::*;

    fn reception(key: u128, gateway: u64, context: u64, second: u64) -> Reception {
        Reception {
            key: DedupKey(key),
            gateway: Eui64(gateway),
            context,
            received_at: UnixMicros(second * 1_000_000),
            balancer: 1,
            region: "eu868".into(),
            frequency: 868_100_000,
            data_rate: 0,
            rx: RxInfo::default(),
            phy: Vec::new(),
        }
    }

    #[test]
    fn of_a_frame_sent_in_without_end_some_are_taken_each_minute_and_those_again() {
        let repeats = Repeats::default();
        let taken = |gateway, second| (0..1_000).filter(|n| repeats.takes(&reception(1, gateway, *n, second))).count();
        assert_eq!((taken(1, 10), taken(1, 20), taken(1, 100), taken(2, 10)), (MOST, MOST, MOST, MOST));
        assert!(repeats.takes(&reception(1, 1, 0, 10)), "one that was taken");
        assert!(repeats.takes(&reception(2, 1, 5_000, 10)), "another frame");
    }

    #[test]
    fn memory_is_bounded_and_what_was_seen_of_late_is_remembered() {
        let repeats = Repeats::default();
        for key in 0..3 * REMEMBERED as u128 {
            assert!(repeats.takes(&reception(key, 1, 1, 10)));
            assert!(repeats.takes(&reception(u128::MAX, 1, (MOST as u64).min(key as u64), 10)) == (key < MOST as u128));
        }
        let all = repeats.0.lock();
        assert!(all.now.len() + all.before.len() <= 2 * REMEMBERED);
    }
}
