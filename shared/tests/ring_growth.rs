//! What a newcomer costs: gateways move to it and nowhere else, and not many more than its share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_macros, reason = "it prints its seed and figures")]

use limpet_shared::{
    Eui64,
    ring::{FULL_WEIGHT, Ring},
};

const GATEWAYS: u64 = 10_000;
/// Fixed, so that no run differs from another; `LIMPET_SEED` tries others.
const SEED: u64 = 0x11fe7;
const KEYS: u64 = 8;

/// Numbers without a pattern (SplitMix64, Steele et al., 2014).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(seed: u64) -> [u8; 16] {
    let halves = [mix(seed), mix(seed.wrapping_add(0x5eed))].map(u64::to_be_bytes).concat();
    halves.try_into().unwrap()
}

/// Half of them of one vendor's block, half from everywhere.
fn gateway(seed: u64, n: u64) -> Eui64 {
    if n.is_multiple_of(2) { Eui64(0x0016_c001_f000_0000 + n) } else { Eui64(mix(seed ^ (n << 20))) }
}

#[test]
fn the_fourth_and_the_tenth_worker_take_their_share_and_nothing_else_moves() {
    let seed = std::env::var("LIMPET_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    println!("LIMPET_SEED={seed}");
    for seed in (0..KEYS).map(|n| mix(seed + n)) {
        for size in [4, 10] {
            let mut workers: Vec<(String, u32)> =
                (1..=size).map(|n| (format!("worker-{:x}-{n}", mix(seed) as u16), FULL_WEIGHT)).collect();
            let after = Ring::new(&key(seed), &workers);
            let (newcomer, _) = workers.pop().unwrap();
            let before = Ring::new(&key(seed), &workers);
            let gateways = || (0..GATEWAYS).map(|n| gateway(seed, n));
            let moved: Vec<Eui64> = gateways().filter(|&g| before.choose(g) != after.choose(g)).collect();
            assert!(moved.iter().all(|&g| after.choose(g) == Some(&newcomer)), "none between those that were there");
            let most = 1.2 * GATEWAYS as f64 / f64::from(size);
            println!("worker {size} of {size}: {} of {GATEWAYS} moved, at most {most} may", moved.len());
            assert!(moved.len() as f64 <= most, "{} moved", moved.len());
        }
    }
}
