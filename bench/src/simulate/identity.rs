//! Who plays, decided by the seed alone: the same seed gives the same EUIs and keys on any machine and version.

use limpet_shared::{AesKey, Eui64};

/// First three bytes of all EUIs: a locally administered prefix, so that none is ever a real one's.
const PREFIX: u64 = 0x02_4c50 << 40;

/// Who a seed plays: for a server that is to know them without an API.
#[derive(Clone, Copy, Debug)]
pub struct Identities {
    seed: u64,
}

/// What a number is for.
#[derive(Clone, Copy)]
enum For {
    Gateway = 1,
    Device,
    KeyHigh,
    KeyLow,
    Tmst,
    Timing,
}

impl Identities {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// SplitMix64 of seed, purpose and number.
    fn mix(&self, what: For, index: usize) -> u64 {
        let mut z = self.seed ^ ((what as u64) << 56) ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2 {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
        }
        z
    }

    /// 20 bits by the seed, 20 that count.
    fn eui(&self, what: For, index: usize) -> Eui64 {
        let group = self.mix(what, 0) & 0xf_ffff;
        Eui64(PREFIX | group << 20 | index as u64 & 0xf_ffff)
    }

    /// EUI of the gateway with this number, counted from 0.
    pub fn gateway(&self, index: usize) -> Eui64 {
        self.eui(For::Gateway, index)
    }
    /// DevEUI of the device with this number.
    pub fn device(&self, index: usize) -> Eui64 {
        self.eui(For::Device, index)
    }
    /// JoinEUI of all devices.
    pub fn join_eui(&self) -> Eui64 {
        Eui64(PREFIX)
    }
    /// AppKey of the device with this number.
    pub fn app_key(&self, index: usize) -> AesKey {
        let (high, low) = (self.mix(For::KeyHigh, index), self.mix(For::KeyLow, index));
        AesKey((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }
    /// Where a gateway's counter starts.
    pub(super) fn tmst_start(&self, index: usize) -> u32 {
        self.mix(For::Tmst, index) as u32
    }
    /// Seed of a device's dice.
    pub(super) fn timing(&self, index: usize) -> u64 {
        self.mix(For::Timing, index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_are_alike_and_the_seed_decides() {
        let (a, b) = (Identities::new(1), Identities::new(2));
        let euis: HashSet<_> = (0..100_000).map(|i| a.device(i)).chain((0..10_000).map(|i| a.gateway(i))).collect();
        assert_eq!(euis.len(), 110_000);
        assert_eq!(a.device(7), Identities::new(1).device(7));
        assert_ne!(a.device(7), b.device(7));
        assert_ne!(a.app_key(7), a.app_key(8));
    }
}
