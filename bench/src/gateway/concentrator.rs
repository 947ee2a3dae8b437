//! The transmit queue of a concentrator, without a clock: every call says what the counter shows.

use std::collections::VecDeque;

use limpet_shared::gwmp::{TxError, Txpk};

use super::Refuse;
use crate::time_on_air;

/// A downlink must come this many microseconds ahead: 1.5 ms for the transmitter to start, 1 ms of margin and 40 ms of
/// jitter are what Semtech's forwarder reckons with.
const LEAST_LEAD: u32 = 42_500;
/// More than this ahead is too early (four beacon periods); a time in the past looks like that too, by wrapping.
const MOST_LEAD: u32 = 4 * 128 * 1_000_000;
/// Between two packets.
const GAP: u32 = 1_500 + 1_000;
/// How many PHYPayloads are remembered, to tell a repetition.
const REMEMBERED: usize = 1024;

/// What waits to be transmitted.
#[derive(Debug)]
pub(super) struct Concentrator {
    refuse: Refuse,
    capacity: usize,
    collisions: bool,
    queue: Vec<Slot>,
    seen: VecDeque<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    length: u32,
}

impl Concentrator {
    pub(super) fn new(refuse: Refuse, capacity: usize, collisions: bool) -> Self {
        Self { refuse, capacity, collisions, queue: Vec::new(), seen: VecDeque::new() }
    }

    /// Changes what is refused on purpose from now on.
    pub(super) fn set_refuse(&mut self, refuse: Refuse) {
        self.refuse = refuse;
    }

    /// Takes a downlink, and says at which value of the counter it will be transmitted, or refuses it.
    pub(super) fn enqueue(&mut self, now: u32, txpk: &Txpk) -> Result<u32, TxError> {
        let repeated = self.seen.contains(&txpk.data);
        self.remember(&txpk.data, repeated);
        let on_purpose = match &self.refuse {
            Refuse::Nothing => None,
            Refuse::All(error) => Some(error.clone()),
            Refuse::FirstWindow(error) => (!repeated).then(|| error.clone()),
            Refuse::SecondWindow(error) => repeated.then(|| error.clone()),
            Refuse::By(judge) => judge(txpk),
        };
        if let Some(error) = on_purpose {
            return Err(error);
        }
        // Half of the counter's range is behind it.
        self.queue.retain(|slot| slot.start.wrapping_add(slot.length).wrapping_sub(now) < u32::MAX / 2);
        if self.queue.len() >= self.capacity {
            return Err(TxError::CollisionPacket);
        }
        let start = start(now, txpk)?;
        let length = time_on_air(txpk.datr, txpk.data.len(), false).as_micros() as u32;
        let slot = Slot { start, length };
        if self.collisions && self.queue.iter().any(|other| slot.overlaps(other)) {
            return Err(TxError::CollisionPacket);
        }
        self.queue.push(slot);
        Ok(start)
    }

    fn remember(&mut self, data: &[u8], repeated: bool) {
        if !repeated {
            self.seen.push_back(data.to_vec());
            if self.seen.len() > REMEMBERED {
                self.seen.pop_front();
            }
        }
    }
}

fn start(now: u32, txpk: &Txpk) -> Result<u32, TxError> {
    let Some(tmst) = txpk.tmst.filter(|_| !txpk.imme) else {
        return if txpk.imme { Ok(now.wrapping_add(LEAST_LEAD)) } else { Err(TxError::GpsUnlocked) };
    };
    match tmst.wrapping_sub(now) {
        0..LEAST_LEAD => Err(TxError::TooLate),
        LEAST_LEAD..=MOST_LEAD => Ok(tmst),
        _ => Err(TxError::TooEarly),
    }
}

impl Slot {
    fn overlaps(&self, other: &Self) -> bool {
        let after = |a: &Self, b: &Self| b.start.wrapping_sub(a.start) < a.length.saturating_add(GAP);
        after(self, other) || after(other, self)
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::gwmp::Datr;

    use super::*;

    fn txpk(tmst: u32, data: u8) -> Txpk {
        Txpk::at(tmst, 868_100_000, 14, Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 }, vec![data; 20])
    }
    fn concentrator(refuse: Refuse, collisions: bool) -> Concentrator {
        Concentrator::new(refuse, 32, collisions)
    }

    #[test]
    fn time_is_judged_as_semtechs_forwarder_does_also_where_the_counter_wraps() {
        for now in [5_000_000, u32::MAX - 10_000] {
            let mut c = concentrator(Refuse::Nothing, false);
            let mut ask = |ahead: u32| c.enqueue(now, &txpk(now.wrapping_add(ahead), 1)).map(|at| at.wrapping_sub(now));
            assert_eq!(ask(0), Err(TxError::TooLate));
            assert_eq!(ask(42_499), Err(TxError::TooLate));
            assert_eq!(ask(42_500), Ok(42_500));
            assert_eq!(ask(1_000_000), Ok(1_000_000));
            assert_eq!(ask(600_000_000), Err(TxError::TooEarly));
            assert_eq!(ask(0u32.wrapping_sub(1)), Err(TxError::TooEarly), "the past is far ahead");
        }
    }

    #[test]
    fn thirty_two_wait_and_what_was_sent_makes_room() {
        let mut c = concentrator(Refuse::Nothing, false);
        for i in 0..32 {
            assert!(c.enqueue(0, &txpk(1_000_000 + i, 1)).is_ok());
        }
        assert_eq!(c.enqueue(0, &txpk(2_000_000, 1)), Err(TxError::CollisionPacket));
        assert!(c.enqueue(1_900_000, &txpk(2_000_000, 1)).is_ok());
    }

    #[test]
    fn two_packets_at_once_collide_if_the_gateway_has_one_transmitter() {
        let mut c = concentrator(Refuse::Nothing, true);
        assert!(c.enqueue(0, &txpk(1_000_000, 1)).is_ok());
        assert_eq!(c.enqueue(0, &txpk(1_030_000, 2)), Err(TxError::CollisionPacket));
        assert_eq!(c.enqueue(0, &txpk(970_000, 3)), Err(TxError::CollisionPacket));
        assert!(c.enqueue(0, &txpk(1_200_000, 4)).is_ok());
    }

    #[test]
    fn refusing_one_window_takes_the_other() {
        let mut c = concentrator(Refuse::FirstWindow(TxError::TooLate), false);
        assert_eq!(c.enqueue(0, &txpk(1_000_000, 1)), Err(TxError::TooLate));
        assert_eq!(c.enqueue(0, &txpk(2_000_000, 1)), Ok(2_000_000));
        c.set_refuse(Refuse::SecondWindow(TxError::TxFreq));
        assert_eq!(c.enqueue(0, &txpk(1_000_000, 2)), Ok(1_000_000));
        assert_eq!(c.enqueue(0, &txpk(2_000_000, 2)), Err(TxError::TxFreq));
    }
}
