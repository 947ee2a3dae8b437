//! Ten balancers and a hundred workers ask no more of the store for an uplink than a few of them do, and no more for themselves: what
//! `docs/operations/sizing.md` reckons with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeSet, time::Duration};

use limpet_simulation::{
    Plan,
    check::Facts,
    plan::{DevicePlan, GatewayPlan, Habit, Theme, Trouble},
    run,
    seen::Sent,
};
use limpet_store_testing::fault::Asked;

/// One worker ends by SIGTERM.
const LEAVES: Duration = Duration::from_secs(4);
/// By then it is gone from every ring.
const GONE: Duration = Duration::from_secs(6);
/// Devices send no more.
const SILENT: Duration = Duration::from_secs(6);
/// What is counted for uplinks begins when all have linked up, and ends when all is done that they ask for; before workers that have started
/// together look through what was stored before them.
const BEGIN: Duration = Duration::from_secs(2);
const DONE: Duration = Duration::from_millis(7_200);
/// From then on servers only do what they do for themselves.
const IDLE: Duration = Duration::from_millis(8_500);
const END: Duration = Duration::from_millis(12_500);

const GATEWAYS: usize = 120;
const DEVICES: usize = 10;

/// So many servers; each uplink is heard by three of the gateways, on average.
fn plan(balancers: usize, workers: usize) -> Plan {
    let gateway = |index| GatewayPlan { balancer: index % balancers, habit: Habit::Honest, added_at: None };
    let device = |index: usize| DevicePlan {
        joins: false,
        counts_nonces: false,
        confirmed: index.is_multiple_of(2),
        every: Duration::from_millis(if index.is_multiple_of(2) { 2_300 } else { 700 }),
        is_deaf: false,
        starts_again_at: None,
        application: index % 2,
        silent_from: Some(SILENT),
    };
    Plan {
        theme: Theme::Operators,
        balancers,
        workers,
        spares: 0,
        gateways: (0..GATEWAYS).map(gateway).collect(),
        devices: (0..DEVICES).map(device).collect(),
        clocks: Vec::new(),
        store_delay: Duration::ZERO,
        troubles: vec![[(LEAVES, Trouble::StopWorker(0)); 2]],
        strikes: Vec::new(),
        items: Vec::new(),
        endpoints_take: Default::default(),
        heard: u32::try_from(3_000 / GATEWAYS).unwrap(),
        uplinks_end: END - limpet_simulation::plan::ENOUGH,
        ..Plan::of(1)
    }
}

/// What a run has cost.
#[derive(Debug)]
struct Cost {
    workers: usize,
    /// Operations of the store without what servers ask for anyhow: conditional writes for each uplink, writes for each copy of one, reads
    /// for each worker that has one.
    conditional: f64,
    copies: f64,
    writes_a_copy: f64,
    reads_a_holder: f64,
    /// The same in a second for each worker that has nothing to do.
    idle_reads: f64,
    idle_writes: f64,
    /// Of all gateways, those that left when the worker did.
    moved: usize,
}

fn cost(balancers: usize, workers: usize) -> Cost {
    let began = std::time::Instant::now();
    let plan = plan(balancers, workers);
    let outcome = run(&plan).unwrap();
    assert!(outcome.violations.is_empty(), "{balancers} balancers, {workers} workers: {:?}", outcome.violations);
    let facts = &outcome.facts;
    let (from, done, idle, end) = (asked(facts, BEGIN), asked(facts, DONE), asked(facts, IDLE), asked(facts, END));
    let of = |count: fn(&Asked) -> u64, from: &Asked, to: &Asked| (count(to) - count(from)) as f64;
    let (reads, writes) = (|asked: &Asked| asked.reads, |asked: &Asked| asked.writes);
    let (busy_time, idle_time) = ((DONE - BEGIN).as_secs_f64(), (END - IDLE).as_secs_f64());
    let sent: Vec<_> = facts.seen.sent.values().filter(|sent| sent.at > BEGIN && !sent.heard.is_empty()).collect();
    let copies: usize = sent.iter().map(|sent| sent.heard.len()).sum();
    let holders: usize = sent.iter().map(|sent| holders(facts, sent)).sum();
    let (idle_reads, idle_writes) = (of(reads, &idle, &end) / idle_time, of(writes, &idle, &end) / idle_time);
    let workers_left = (workers - 1) as f64;
    let cost = Cost {
        workers,
        conditional: of(|asked| asked.conditional, &from, &done) / sent.len() as f64,
        copies: copies as f64 / sent.len() as f64,
        writes_a_copy: (of(writes, &from, &done) - idle_writes * busy_time) / copies as f64,
        reads_a_holder: (of(reads, &from, &done) - idle_reads * busy_time) / holders as f64,
        idle_reads: idle_reads / workers_left,
        idle_writes: idle_writes / workers_left,
        moved: moved(facts, balancers),
    };
    println!("{balancers} balancers, {workers} workers, {} uplinks, in {:?}: {cost:.3?}", sent.len(), began.elapsed());
    cost
}

/// How many workers have a copy.
fn holders(facts: &Facts, sent: &Sent) -> usize {
    let look = facts.looks.iter().rfind(|look| look.at <= sent.at).expect("a look before");
    sent.heard.iter().filter_map(|gateway| look.choices.get(*gateway)).collect::<BTreeSet<_>>().len()
}

/// Of all workers together, by this time.
fn asked(facts: &Facts, by: Duration) -> Asked {
    let mut sum = Asked::default();
    let workers: BTreeSet<usize> = facts.asks.iter().map(|ask| ask.worker).collect();
    for worker in workers {
        let last = facts.asks.iter().rfind(|ask| ask.worker == worker && ask.at <= by);
        let Asked { reads, writes, conditional } = last.map(|ask| ask.asked).unwrap_or_default();
        (sum.reads, sum.writes, sum.conditional) =
            (sum.reads + reads, sum.writes + writes, sum.conditional + conditional);
    }
    sum
}

/// Those of the worker that leaves go elsewhere, and no others.
fn moved(facts: &Facts, balancers: usize) -> usize {
    let mut all = 0;
    for balancer in 0..balancers {
        let looks: Vec<_> = facts.looks.iter().filter(|look| look.balancer == balancer).collect();
        let before = looks.iter().rfind(|look| look.at < LEAVES).expect("a look before");
        let after = looks.iter().find(|look| look.at >= GONE).expect("a look after");
        assert_eq!(before.workers.len(), after.workers.len() + 1, "one has left balancer {balancer}");
        let gone = before.workers.keys().find(|name| !after.workers.contains_key(*name)).unwrap();
        for (from, to) in before.choices.iter().zip(&after.choices) {
            assert_eq!(from != to, from.as_ref() == Some(gone), "{from:?} -> {to:?}, and {gone} has left");
            all += usize::from(from != to);
        }
    }
    all / balancers
}

#[test]
fn a_large_cluster_asks_no_more_of_the_store_than_a_small_one() {
    // The larger it is the longer it takes: by default what fits into a few seconds.
    let is_full = std::env::var("LIMPET_FULL").is_ok_and(|value| value == "1");
    let (small, large) = if is_full { (cost(2, 10), cost(10, 100)) } else { (cost(1, 4), cost(2, 10)) };
    assert!(small.copies > 2.0 && large.copies > 2.0, "uplinks with copies");
    let is_flat = |small: f64, large: f64| large <= small * 1.15 + 0.05;
    assert!(is_flat(small.conditional, large.conditional), "conditional writes for an uplink");
    // Among a hundred workers' writes most are what each of them writes once when it has started.
    assert!(is_full || is_flat(small.writes_a_copy, large.writes_a_copy), "writes for a copy of an uplink");
    assert!(is_flat(small.reads_a_holder, large.reads_a_holder), "reads of a worker that has a copy of an uplink");
    assert!(is_flat(small.idle_reads, large.idle_reads), "reads of a worker that has nothing to do");
    assert!(is_flat(small.idle_writes, large.idle_writes), "writes of a worker that has nothing to do");
    let share = GATEWAYS / large.workers;
    assert!(
        large.moved <= share * 2 + 2,
        "one of {} workers had {} of {GATEWAYS} gateways",
        large.workers,
        large.moved
    );
}
