//! Seeds, one after the other; a failure prints its seed, what it takes to see it, and what happened. `SEEDS=FROM..TO` chooses them,
//! `SEEDS=FROM..TO/STEP` some of them: those that end in 7 are of the theme `Slow`, in 4 or 9 `Aimed`.
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

/// Rules, and the first seed with which the absence of each was noticed: it is tried first. For others there is a plan of their own
/// ([`Plan::arranged`]).
const NOTICED: &[(Rule, u64)] = &[
    (Rule::SayStoredWhenStored, 9),
    (Rule::AckWhenStored, 19),
    (Rule::DoneWhenOut, 70),
    (Rule::RetainUntilDone, 70),
    (Rule::Redeliver, 62),
    (Rule::KeepWaiting, 2),
    (Rule::DeleteWhenTaken, 2),
    (Rule::KeepBeforeReplacing, 34),
    (Rule::MarkAfterEvents, 34),
    (Rule::WaitBehind, 66),
    (Rule::OneSender, 66),
    (Rule::StableId, 39),
    (Rule::OneKeyForCopies, 3),
    (Rule::WaitForCopies, 3),
    (Rule::NoteCounters, 0),
    (Rule::HeedRefusal, 27),
    (Rule::CountDown, 1),
    (Rule::WriteTheAnswer, 2),
    (Rule::AnswerAfterTheEvent, 5),
    (Rule::OncePerWindow, 27),
    (Rule::AnswerRepeats, 3),
    (Rule::BothWindows, 61),
    (Rule::AskAnother, 15),
    (Rule::BalancersTime, 3),
    (Rule::ItemUntilTxAck, 9),
    (Rule::OfferAgain, 3),
    (Rule::TellOfItems, 0),
    (Rule::CountJoinNonces, 0),
    (Rule::TellOfGateways, 3),
    (Rule::TellOfDrains, 41),
    (Rule::ClustersRing, 1),
    (Rule::StickyRing, 11),
    (Rule::HoldVerdicts, 23),
    (Rule::SlowStart, 6),
];
/// Rules whose absence nobody sees from outside, and why they are there all the same.
const UNSEEN: &[(Rule, &str)] = &[
    (
        Rule::OwnStalls,
        "all workers seem silent to a balancer that has stalled, and then nobody is judged (HoldVerdicts); where they are not all, frames \
         go to a second worker, which only does their work twice. The balancer's own tests see that",
    ),
    (Rule::OnlyWhoAsks, "where a gateway that asks for nothing has no way, another one is asked at once (AskAnother)"),
];
/// If that seed says nothing any more, for plans or code are others, it is noticed within so many.
const WITHIN: u64 = 100;

fn seeds(usual: Range<u64>) -> Vec<u64> {
    let Ok(asked) = std::env::var("SEEDS") else { return usual.collect() };
    let (from, to) = asked.split_once("..").expect("SEEDS is FROM..TO, or FROM..TO/STEP");
    let (to, step) = to.split_once('/').unwrap_or((to, "1"));
    (from.parse().unwrap()..to.parse().unwrap()).step_by(step.parse().unwrap()).collect()
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

/// The same, with plans that are made for it.
#[test]
fn every_broken_rule_with_a_plan_of_its_own_is_noticed() {
    let wrong = each(Rule::ALL, |rule| {
        let plan = Plan::arranged(*rule)?;
        let kept = run(&plan).unwrap().violations;
        let broken = run(&plan.breaking(*rule)).map_or(1, |outcome| outcome.violations.len());
        println!("{rule:?} is missed {broken} times");
        (broken == 0 || !kept.is_empty()).then(|| format!("{rule:?}: missed {broken} times; when it is kept: {kept:?}"))
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// For whoever adds a rule, or changes what a seed draws: the first of `SEEDS` with which the absence of each rule is noticed.
#[test]
#[ignore = "says what there is to write into the table, and takes long"]
fn who_notices() {
    let all = seeds(0..WITHIN);
    each(Rule::ALL, |rule| {
        let began = Instant::now();
        let known = NOTICED.iter().find(|(known, _)| known == rule).map(|(_, seed)| *seed);
        let first = known.into_iter().chain(all.iter().copied()).find(|seed| notices(*rule, *seed));
        println!("{rule:?}: {first:?}, {:?}", began.elapsed());
        None::<()>
    });
}

#[test]
fn every_rule_is_missed_or_says_why_not() {
    let told = |rule: &Rule| {
        let listed = NOTICED.iter().map(|(rule, _)| rule).chain(UNSEEN.iter().map(|(rule, _)| rule));
        listed.filter(|of| *of == rule).count() + usize::from(Plan::arranged(*rule).is_some())
    };
    let wrong: Vec<_> = Rule::ALL.iter().filter(|rule| told(rule) != 1).collect();
    assert!(wrong.is_empty(), "nowhere, or in two places: {wrong:?}");
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
