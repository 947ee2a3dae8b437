//! Seeds, one after the other; a failure prints its seed and what happened. `SEEDS=FROM..TO` chooses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use limpet_link::host::Rule;
use limpet_simulation::{Plan, net::Sent, run};

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
        "seed {seed}: {} balancers, {} workers, {} troubles: sent {} acked {} told {} replied {} confirmed {} of {}, {:?}",
        plan.balancers,
        plan.workers,
        plan.troubles.len(),
        seen.sent.len(),
        seen.acked.len(),
        told.len(),
        outcome.replied,
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
    let rules = [
        Rule::DoneWhenOut,
        Rule::RetainUntilDone,
        Rule::Redeliver,
        Rule::KeepWaiting,
        Rule::StableId,
        Rule::CountDown,
        Rule::WriteTheAnswer,
        Rule::AnswerAfterTheEvent,
    ];
    for rule in rules {
        let noticed = (0..WITHIN).find(|seed| !run(&Plan::of(*seed).breaking(rule)).unwrap().violations.is_empty());
        println!("{rule:?} is missed with seed {noticed:?}");
        let noticed = noticed.unwrap_or_else(|| panic!("nobody misses {rule:?} within {WITHIN} seeds"));
        let kept = run(&Plan::of(noticed)).unwrap().violations;
        assert!(kept.is_empty(), "seed {noticed} breaks something also with {rule:?} kept: {kept:?}");
    }
}

/// A seed decides everything: whatever else runs, and however often.
#[test]
fn a_seed_says_what_happens_to_the_last_byte() {
    for seed in seeds(0..3) {
        let plan = Plan::of(seed);
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(|| run(&plan).unwrap().wire);
            let beside = run(&plan).unwrap().wire;
            (one.join().unwrap(), beside)
        });
        let differs = one.iter().zip(&other).enumerate().find(|(_, (one, other))| one != other);
        assert!(differs.is_none(), "seed {seed}: datagrams differ from this one on: {differs:#?}");
        assert_eq!(one.len(), other.len(), "seed {seed}: one run has sent more than the other");
        assert_eq!(elsewhere(seed), digest(&one), "seed {seed}: another process has sent something else");
    }
}

fn digest(wire: &[Sent]) -> u64 {
    let mut hasher = DefaultHasher::new();
    wire.hash(&mut hasher);
    hasher.finish()
}

/// The digest of a run of this seed in a process of its own.
fn elsewhere(seed: u64) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let said = command.args(["--exact", "tell_the_digest", "--nocapture"]).env(ONE_SEED, seed.to_string()).output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    let digest = said.lines().find_map(|line| line.split_once("digest ")).expect("it tells").1;
    digest.parse().unwrap()
}

/// Set in that process.
const ONE_SEED: &str = "LIMPET_ONE_SEED";

#[test]
fn tell_the_digest() {
    if let Ok(seed) = std::env::var(ONE_SEED) {
        println!("digest {}", digest(&run(&Plan::of(seed.parse().unwrap())).unwrap().wire));
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
