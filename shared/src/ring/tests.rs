use alloc::format;

use proptest::prelude::*;

use super::*;

const KEY: [u8; 16] = *b"limpet ring test";

fn fleet(n: usize) -> Vec<(String, u32)> {
    (0..n).map(|i| (format!("worker-{i}"), FULL_WEIGHT)).collect()
}

fn euis(seed: u64, n: u64) -> impl Iterator<Item = Eui64> {
    // A vendor's block: consecutive EUIs, the hardest case for a weak hash.
    (0..n).map(move |i| Eui64(0x0016_c001_0000_0000 ^ (seed << 20) | i))
}

#[test]
fn golden_positions_and_choices_never_change() {
    assert_eq!(point_position(&KEY, "worker-0", 0), GOLDEN_POINTS[0]);
    assert_eq!(point_position(&KEY, "worker-0", 511), GOLDEN_POINTS[1]);
    assert_eq!(point_position(&KEY, "käfer", 1), GOLDEN_POINTS[2]);
    let ring = Ring::new(&KEY, &[("alpha", 100), ("beta", 100), ("gamma", 50), ("delta", 0)]);
    let chosen: Vec<&str> = euis(0, 12).map(|e| ring.choose(e).unwrap()).collect();
    assert_eq!(chosen, GOLDEN_CHOICES);
    assert_eq!(ring.position(Eui64(0x0016_c001_ff10_a235)), GOLDEN_GATEWAY);
}
/// Computed by an independent implementation of SipHash-1-3 and of the encoding.
const GOLDEN_POINTS: [u64; 3] = [0xa21391bdec32d78a, 0xf2c20d6887842913, 0x0010bbd8b5c8546a];
const GOLDEN_GATEWAY: u64 = 0xa23128a364dd7e4f;
const GOLDEN_CHOICES: [&str; 12] =
    ["alpha", "beta", "beta", "beta", "gamma", "beta", "alpha", "alpha", "gamma", "beta", "beta", "alpha"];

#[test]
fn the_order_of_the_workers_does_not_matter() {
    let mut workers = fleet(7);
    let forward = Ring::new(&KEY, &workers);
    workers.reverse();
    let backward = Ring::new(&KEY, &workers);
    assert!(euis(1, 2_000).all(|e| forward.choose(e) == backward.choose(e)));
}

#[test]
fn another_key_gives_another_ring() {
    let (one, two) = (Ring::new(&KEY, &fleet(2)), Ring::new(&[9; 16], &fleet(2)));
    let differ = euis(0, 1_000).filter(|&e| one.choose(e) != two.choose(e)).count();
    assert!((300..700).contains(&differ), "{differ}");
}

#[test]
fn an_empty_ring_chooses_nobody() {
    let none: [(&str, u32); 0] = [];
    assert_eq!(Ring::new(&KEY, &none).choose(Eui64(1)), None);
    let idle = Ring::new(&KEY, &[("a", 0)]);
    assert_eq!(idle.choose(Eui64(1)), None);
    assert_eq!(idle.choose_avoiding(Eui64(1), &[]), None);
    assert!(idle.order(Eui64(1), 3).is_empty());
    let alone = Ring::new(&KEY, &[("a", 1)]);
    assert_eq!(alone.choose_avoiding(Eui64(1), &["a"]), None);
    assert!((alone.shares().next().unwrap().2 - 1.0).abs() < 1e-9);
}

#[test]
fn what_follows_starts_with_the_choice_and_names_each_worker_once() {
    let ring = Ring::new(&KEY, &fleet(5));
    for eui in euis(3, 200) {
        let order = ring.order(eui, 9);
        assert_eq!(order[0], ring.choose(eui).unwrap());
        assert_eq!(order.len(), 5);
        assert_eq!(ring.order(eui, 2), order[..2]);
        assert_eq!(ring.choose_avoiding(eui, &[order[0]]), Some(order[1]));
        assert_eq!(ring.choose_avoiding(eui, &[order[0], order[1]]), Some(order[2]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn avoiding_workers_is_choosing_from_a_ring_without_them(key: [u8; 16], n in 2usize..8, skip in 0usize..8) {
        let workers = fleet(n);
        let gone = workers[skip % n].0.clone();
        let all = Ring::new(&key, &workers);
        let without = Ring::new(&key, &workers.iter().filter(|w| w.0 != gone).cloned().collect::<Vec<_>>());
        for eui in euis(n as u64, 500) {
            prop_assert_eq!(all.choose_avoiding(eui, &[&gone]), without.choose(eui));
        }
    }

    #[test]
    fn a_lower_weight_moves_gateways_of_that_worker_only(key: [u8; 16], n in 2usize..8, weight in 0u32..100) {
        let mut workers = fleet(n);
        let full = Ring::new(&key, &workers);
        workers[0].1 = weight;
        let lowered = Ring::new(&key, &workers);
        for eui in euis(5, 2_000) {
            let before = full.choose(eui).unwrap();
            prop_assert!(before == "worker-0" || lowered.choose(eui) == Some(before));
        }
    }
}

/// Statistical claims, over a fixed set of keys so that no run differs from another.
#[test]
fn the_load_is_balanced_and_a_change_moves_few() {
    for seed in 0..8u8 {
        let key = [seed; 16];
        let n = 3 + usize::from(seed);
        let (ring, grown) = (Ring::new(&key, &fleet(n)), Ring::new(&key, &fleet(n + 1)));
        let newcomer = format!("worker-{n}");
        let mut count: BTreeMap<&str, u32> = BTreeMap::new();
        let mut moved = 0;
        for eui in euis(u64::from(seed), 10_000) {
            let (before, after) = (ring.choose(eui).unwrap(), grown.choose(eui).unwrap());
            *count.entry(before).or_default() += 1;
            if before != after {
                // Read backwards this is the removal of the same worker.
                assert_eq!(after, newcomer, "only the newcomer takes gateways");
                moved += 1;
            }
        }
        assert!(f64::from(moved) <= 1.2 * 10_000.0 / (n + 1) as f64, "{moved} of {n} moved, key {seed}");
        let peak = count.values().max().copied().unwrap_or(0);
        assert!(f64::from(peak) <= 1.25 * 10_000.0 / n as f64, "peak {peak} of {n}, key {seed}");
        for (name, _, share) in ring.shares() {
            let measured = f64::from(count[name]) / 10_000.0;
            assert!((measured - share).abs() < 0.02, "{} has {measured} of {share}", name);
        }
        let total: f64 = ring.shares().map(|s| s.2).sum();
        assert!((total - 1.0).abs() < 1e-9);
    }
}
