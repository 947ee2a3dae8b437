//! Which FCntUp a session has accepted.

use core::time::Duration;

use limpet_shared::UnixMicros;

use crate::model::Seen;

/// How many FCntUp below the next one are remembered one by one.
pub const REMEMBERED: u32 = 512;

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
        Self { next, ..Self::default() }
    }

    /// After the device started again at `fcnt`: what was received up to its highest so far is of the time before.
    pub fn restarted_at(self, fcnt: u32) -> Self {
        Self { restarted_after: self.high_at, ..Self::starting_at(fcnt) }
    }

    pub fn standing(&self, fcnt: u32) -> Standing {
        if fcnt >= self.next {
            return Standing::Next;
        }
        match self.next - 1 - fcnt {
            back if back >= REMEMBERED || self.has(back) => Standing::Taken,
            _ => Standing::Overtaken,
        }
    }

    /// Bit `back`; those that are not remembered are not set.
    fn has(&self, back: u32) -> bool {
        self.bits.get(back as usize / 64).is_some_and(|word| word >> (back % 64) & 1 == 1)
    }

    /// Is `fcnt` the highest that was accepted?
    pub fn is_highest(&self, fcnt: u32) -> bool {
        fcnt.checked_add(1) == Some(self.next) && self.has(0)
    }

    /// The state after accepting `fcnt`, which must not be [`Standing::Taken`].
    pub fn accept(self, fcnt: u32, received_at: UnixMicros, mic: [u8; 4]) -> Self {
        if fcnt < self.next {
            return Self { bits: with(self.bits, self.next - 1 - fcnt), ..self };
        }
        let moved = shifted(self.bits, (fcnt - self.next).saturating_add(1));
        // A counter of 2^32 - 1 ends the session: LoRaWAN has no FCntUp after it.
        let (next, bits) = (fcnt.saturating_add(1), with(moved, 0));
        Self { next, bits, high_at: received_at, high_mic: Some(mic), ..self }
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

/// The bitmap with this bit set.
fn with(mut bits: [u64; 8], bit: u32) -> [u64; 8] {
    if let Some(word) = bits.get_mut(bit as usize / 64) {
        *word |= 1 << (bit % 64);
    }
    bits
}

/// The bitmap moved up by this many bits.
fn shifted(bits: [u64; 8], by: u32) -> [u64; 8] {
    let (words, rest) = (by as usize / 64, by % 64);
    core::array::from_fn(|i| {
        let word = |back: usize| i.checked_sub(words + back).and_then(|at| bits.get(at)).copied().unwrap_or(0);
        word(0) << rest | word(1).checked_shr(64 - rest).unwrap_or(0)
    })
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

    #[test]
    fn the_bitmap_moves_as_one_number() {
        let one = with([0; 8], 0);
        for by in [0, 1, 63, 64, 65, 128, 511] {
            assert_eq!(shifted(one, by), with([0; 8], by), "{by}");
            assert_eq!(shifted(shifted(one, by / 2), by - by / 2), with([0; 8], by), "{by} in two steps");
        }
        for by in [512, 513, u32::MAX] {
            assert_eq!(shifted([u64::MAX; 8], by), [0; 8], "{by}");
        }
    }

    proptest! {
        /// Whatever order counters come in, none is accepted twice, and every one within reach is accepted once.
        #[test]
        fn no_counter_is_accepted_twice(fcnts in prop::collection::vec(0u32..2_000, 1..300), start in 0u32..100) {
            let mut seen = Seen::starting_at(start);
            let mut accepted = BTreeSet::new();
            let mut highest = start.checked_sub(1);
            for fcnt in fcnts {
                if seen.standing(fcnt) == Standing::Taken {
                    let far = highest.is_some_and(|h| h >= fcnt + REMEMBERED);
                    prop_assert!(accepted.contains(&fcnt) || far);
                } else {
                    prop_assert!(accepted.insert(fcnt));
                    seen = seen.accept(fcnt, UnixMicros(1), [0; 4]);
                    highest = highest.max(Some(fcnt));
                    prop_assert_eq!(seen.standing(fcnt), Standing::Taken);
                }
            }
        }
    }
}
