//! Seeds, one after the other; a failure prints its seed and what happened. `SEEDS=FROM..TO` chooses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use limpet_link::host::Rule;
use limpet_simulation::{Plan, run};

/// Seeds within which a broken rule is noticed.
const WITHIN: u64 = 100;

fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(asked) = std::env::var("SEEDS") else { return usual };
    let (from, to) = asked.split_once("..").expect("SEEDS is FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

/// What broke, for people.
fn broken(seed: u64) -> Option<String> {
    let plan = Plan::of(seed);
    let began = Instant::now();
    let outcome = run(&plan).unwrap();
    let (seen, told) = (&outcome.seen, &outcome.told);
    println!(
        "seed {seed}: {} balancers, {} workers, {} troubles: sent {} acked {} told {} confirmed {} of {}, {:?}",
        plan.balancers,
        plan.workers,
        plan.troubles.len(),
        seen.sent.len(),
        seen.acked.len(),
        told.len(),
        seen.confirmed.len(),
        seen.asked.len(),
        began.elapsed()
    );
    let violations: Vec<_> = outcome.violations.iter().map(ToString::to_string).collect();
    (!violations.is_empty()).then(|| format!("seed {seed}\n{}\n{}\n", violations.join("\n"), outcome.trace.join("\n")))
}

/// Each rule that is taken out of the code is missed within so many seeds.
#[test]
fn every_broken_rule_is_noticed() {
    let rules =
        [Rule::DoneWhenOut, Rule::RetainUntilDone, Rule::Redeliver, Rule::KeepWaiting, Rule::StableId, Rule::CountDown];
    for rule in rules {
        let noticed = (0..WITHIN).find(|seed| !run(&Plan::of(*seed).breaking(rule)).unwrap().violations.is_empty());
        println!("{rule:?} is missed with seed {noticed:?}");
        let noticed = noticed.unwrap_or_else(|| panic!("nobody misses {rule:?} within {WITHIN} seeds"));
        let kept = run(&Plan::of(noticed)).unwrap().violations;
        assert!(kept.is_empty(), "seed {noticed} breaks something also with {rule:?} kept: {kept:?}");
    }
}

#[test]
fn no_promise_is_broken() {
    let seeds = seeds(0..60);
    let next = AtomicU64::new(seeds.start);
    let found = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    found.lock().unwrap().extend(broken(seed));
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
