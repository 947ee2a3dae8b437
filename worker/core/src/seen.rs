//! Which FCntUp a session has accepted.

use core::time::Duration;

use limpet_shared::UnixMicros;

use crate::model::Seen;

/// How many FCntUp below the next one are remembered one by one.
pub const REMEMBERED: u32 = 64;

/// By how much the clocks of two balancers may differ before an overtaken uplink is taken for a replay.
pub const CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Where an FCntUp stands to those accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Above all that were accepted.
    Next,
    /// Below the highest and not accepted yet.
    Overtaken,
    /// Accepted before, or too far below the highest to tell.
    Taken,
}

impl Seen {
    /// Nothing accepted yet; the first FCntUp that may come is `next`.
    pub fn starting_at(next: u32) -> Self {
        Self { next, bits: 0, high_at: UnixMicros(0) }
    }

    pub fn standing(&self, fcnt: u32) -> Standing {
        if fcnt >= self.next {
            return Standing::Next;
        }
        match self.next - 1 - fcnt {
            back if back >= REMEMBERED => Standing::Taken,
            back if self.bits >> back & 1 == 1 => Standing::Taken,
            _ => Standing::Overtaken,
        }
    }

    /// Is `fcnt` the highest that was accepted?
    pub fn is_highest(&self, fcnt: u32) -> bool {
        fcnt.checked_add(1) == Some(self.next) && self.bits & 1 == 1
    }

    /// The state after accepting `fcnt`, which must not be [`Standing::Taken`].
    pub fn accept(self, fcnt: u32, received_at: UnixMicros) -> Self {
        if fcnt < self.next {
            return Self { bits: self.bits | 1u64.checked_shl(self.next - 1 - fcnt).unwrap_or(0), ..self };
        }
        let shift = fcnt - self.next + 1;
        Self {
            // A counter of 2^32 - 1 ends the session: LoRaWAN has no FCntUp after it.
            next: fcnt.saturating_add(1),
            bits: self.bits.checked_shl(shift).unwrap_or(0) | 1,
            high_at: received_at,
        }
    }

    /// The 32-bit counters that a 16-bit FCnt may stand for, likeliest first (LoRaWAN 1.0.4, 4.3.1.5): the MIC tells which.
    pub fn candidates(&self, fcnt: u16) -> impl Iterator<Item = u32> + use<> {
        let (next, low) = (i64::from(self.next), i64::from(fcnt));
        let epoch = next >> 16;
        let near = |e: i64| (e << 16) + low;
        let mut all = [near(epoch), near(epoch + 1), near(epoch - 1), low];
        all.sort_by_key(|full| (full - next).abs());
        let mut last = None;
        all.into_iter().filter_map(move |full| {
            let fresh = last != Some(full);
            last = Some(full);
            if fresh { u32::try_from(full).ok() } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    extern crate std;

    #[test]
    fn a_sixteen_bit_counter_is_continued_across_its_end() {
        let at = |next, fcnt| Seen::starting_at(next).candidates(fcnt).next();
        assert_eq!(at(0, 0), Some(0));
        assert_eq!(at(0x1_0000, 0xffff), Some(0xffff));
        assert_eq!(at(0xffff, 0), Some(0x1_0000));
        assert_eq!(at(0x5_fff0, 3), Some(0x6_0003));
        assert_eq!(at(u32::MAX, 0xffff), Some(u32::MAX));
        assert!(Seen::starting_at(0x5_fff0).candidates(3).any(|c| c == 3), "a restarted device may be at its start");
    }

    proptest! {
        /// Whatever order counters come in, none is accepted twice, and every one within reach is accepted once.
        #[test]
        fn no_counter_is_accepted_twice(fcnts in prop::collection::vec(0u32..300, 1..200), start in 0u32..100) {
            let mut seen = Seen::starting_at(start);
            let mut accepted = BTreeSet::new();
            let mut highest = start.checked_sub(1);
            for fcnt in fcnts {
                if seen.standing(fcnt) == Standing::Taken {
                    let far = highest.is_some_and(|h| h >= fcnt + REMEMBERED);
                    prop_assert!(accepted.contains(&fcnt) || far);
                } else {
                    prop_assert!(accepted.insert(fcnt));
                    seen = seen.accept(fcnt, UnixMicros(1));
                    highest = highest.max(Some(fcnt));
                    prop_assert_eq!(seen.standing(fcnt), Standing::Taken);
                }
            }
        }
    }
}
