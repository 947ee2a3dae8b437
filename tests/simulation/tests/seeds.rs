//! Seeds, one after the other; a failure prints its seed, what it takes to see it, and what happened. `SEEDS=FROM..TO` chooses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use limpet_link::host::Rule;
use limpet_simulation::{Plan, net::Sent, run, shrink};

/// Rules, and the first seed with which the absence of each was noticed: it is tried first. Of the other rules of [`Rule`] it is not known yet.
const NOTICED: &[(Rule, u64)] = &[
    (Rule::KeepWaiting, 2),
    (Rule::DeleteWhenTaken, 2),
    (Rule::WaitBehind, 37),
    (Rule::OneKeyForCopies, 3),
    (Rule::WaitForCopies, 3),
    (Rule::NoteCounters, 0),
    (Rule::CountDown, 1),
    (Rule::AnswerRepeats, 3),
    (Rule::AskAnother, 15),
    (Rule::BalancersTime, 3),
    (Rule::OfferAgain, 3),
    (Rule::TellOfItems, 0),
    (Rule::CountJoinNonces, 0),
    (Rule::TellOfGateways, 3),
    (Rule::TellOfDrains, 41),
    (Rule::ClustersRing, 1),
    (Rule::StickyRing, 11),
    (Rule::HoldVerdicts, 23),
    (Rule::SlowStart, 6),
    (Rule::AckWhenStored, 49),
    (Rule::SayStoredWhenStored, 9),
    (Rule::DoneWhenOut, 70),
    (Rule::RetainUntilDone, 70),
    (Rule::Redeliver, 62),
    (Rule::MarkAfterEvents, 74),
    (Rule::WriteTheAnswer, 9),
];
/// If that seed says nothing any more, for plans or code are others, it is noticed within so many.
const WITHIN: u64 = 100;

/// A seed with which servers die at the worst moments.
const AIMED: u64 = 4;

fn seeds(usual: Range<u64>) -> Vec<u64> {
    let Ok(asked) = std::env::var("SEEDS") else { return usual.collect() };
    let (from, to) = asked.split_once("..").expect("SEEDS is FROM..TO");
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

/// What broke, for people: with only what it takes.
fn broken(seed: u64) -> Option<String> {
    let plan = Plan::of(seed);
    let began = Instant::now();
    let outcome = run(&plan).unwrap();
    let seen = &outcome.facts.seen;
    println!(
        "seed {seed}: {:?}, {} balancers, {} workers, {} troubles: sent {} acked {} told {} answered {} joined {}, {:?}",
        plan.theme,
        plan.balancers,
        plan.workers,
        plan.troubles.len(),
        seen.sent.len(),
        seen.acked.len(),
        outcome.facts.told.len(),
        seen.answered.len(),
        seen.sessions.len(),
        began.elapsed()
    );
    let first = outcome.violations.first()?;
    let (least, breaks) = shrink(&plan, first);
    let trace = run(&least).unwrap().trace;
    let lines = |violations: &[limpet_simulation::Violation]| {
        violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let (all, left) = (lines(&outcome.violations), lines(&breaks));
    Some(format!("seed {seed} breaks\n{all}\n\nwith no more than this:\n{least:#?}\n{}\n{left}\n", trace.join("\n")))
}

/// Does something with each, on all processors; gives what came of it, in any order.
fn each<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Option<R> + Sync) -> Vec<R> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let came = work(one);
                    found.lock().unwrap().extend(came);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// Of these, those that go wrong in the same way as `first` come first.
fn like(first: u64, mut all: Vec<u64>) -> Vec<u64> {
    let theme = Plan::of(first).theme;
    all.sort_by_key(|seed| Plan::of(*seed).theme != theme);
    all
}

fn notices(rule: Rule, seed: u64) -> bool {
    // The simulation itself may break with the code that it runs.
    run(&Plan::of(seed).breaking(rule)).map_or(true, |outcome| !outcome.violations.is_empty())
}

/// Each rule that is taken out of the code is missed; and nothing is with the same seed when it is kept.
#[test]
fn every_broken_rule_is_noticed() {
    let unnoticed = each(NOTICED, |(rule, first)| {
        let began = Instant::now();
        let noticed =
            std::iter::once(*first).chain(like(*first, (0..WITHIN).collect())).find(|seed| notices(*rule, *seed));
        println!("{rule:?} is missed with seed {noticed:?}, {:?}", began.elapsed());
        let Some(seed) = noticed else { return Some(format!("nobody misses {rule:?} within {WITHIN} seeds")) };
        let kept = run(&Plan::of(seed)).unwrap().violations;
        (!kept.is_empty()).then(|| format!("seed {seed} breaks something also with {rule:?} kept: {kept:?}"))
    });
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}

/// For whoever adds a rule: the first of `SEEDS` with which the absence of each that is not in the table is noticed.
#[test]
#[ignore = "says what there is to write into the table, and takes long"]
fn who_notices() {
    // Where servers die at the worst moments first.
    let all = like(AIMED, seeds(0..WITHIN));
    let open: Vec<_> = Rule::ALL.iter().filter(|rule| NOTICED.iter().all(|(known, _)| known != *rule)).collect();
    each(&open, |rule| {
        let began = Instant::now();
        let first = all.iter().find(|seed| notices(**rule, **seed));
        println!("{rule:?}: {first:?}, {:?}", began.elapsed());
        None::<()>
    });
}

/// A seed decides everything: whatever else runs, and however often.
#[test]
fn a_seed_says_what_happens_to_the_last_byte() {
    for seed in seeds(0..2) {
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

/// `regressions.txt`: a seed a line, and what it found.
#[test]
fn what_was_found_once_stays_mended() {
    let all: Vec<u64> = include_str!("../regressions.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    let found = each(&all, |seed| broken(*seed));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_promise_is_broken() {
    let found = each(&seeds(0..40), |seed| broken(*seed));
    assert!(found.is_empty(), "{} seeds of it\n{}", found.len(), found.join("\n"));
}
