//! What several balancers have in common: workers that know who saw a gateway, and one ring.

use limpet_balancer_core::{Config, Event, WorkerId};
use limpet_shared::{
    Eui64,
    link::{Hello, VERSION, Weight, to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker},
};

use super::world::{World, eui, gwmp, source};

/// Gateways that the worker was told of, with their ages.
fn told(w: &mut World, id: WorkerId) -> Vec<(Eui64, u32)> {
    let control = std::mem::take(&mut w.workers.get_mut(&id).unwrap().control);
    let sightings = control.into_iter().filter_map(|m| if let ToWorker::Sightings(s) = m { Some(s) } else { None });
    sightings.flat_map(|s| s.gateways.into_iter().map(Eui64).zip(s.ages)).collect()
}

#[test]
fn every_worker_hears_who_asks_for_downlinks() {
    let mut w = World::with_workers(&["a", "b"]);
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    w.push(1, 1);
    w.run(20);
    assert_eq!(told(&mut w, ids[0]), [], "who only sends frames asks for nothing");
    w.pull(2, 1);
    w.pull(2, 2);
    w.run(20);
    let both = [(eui(1), 10), (eui(2), 10)];
    assert_eq!([told(&mut w, ids[0]), told(&mut w, ids[1])], [both, both]);
    // At each keep-alive, but not at every datagram of one that asks all the time.
    for _ in 0..110 {
        w.pull(2, 1);
        w.run(100);
    }
    assert_eq!(told(&mut w, ids[0]).len(), 2);
    w.run(5_000);
    w.pull(2, 1);
    w.run(1_000);
    w.datagram(source(9), gwmp(2, 1, 2, eui(1), b""));
    w.run(20);
    assert_eq!(told(&mut w, ids[0]), [(eui(1), 10), (eui(1), 10)], "another address is told at once");
}

#[test]
fn a_worker_that_comes_later_gets_the_table() {
    let mut w = World::with_workers(&["a"]);
    w.pull(2, 1);
    w.run(60_000);
    w.pull(2, 2);
    w.run(31_000);
    let id = w.connect("b");
    assert!(matches!(w.workers[&id].control[0], ToWorker::Welcome(_)));
    assert_eq!(told(&mut w, id), [(eui(2), 31_000)], "whoever has not asked for 90 s is not there any more");
}

#[test]
fn a_second_way_to_the_same_balancer_is_no_second_link() {
    let instance = 77;
    let mut w = World::new(Config { instance, ..Config::default() });
    let first = w.connect("a");
    w.run(10);
    let hello = |linked| Hello { version: VERSION, name: "a".into(), instance: 1, linked, ..Hello::default() };
    let now = w.now();
    w.balancer.on_worker_connected(now, WorkerId(99), source(1).address, hello(vec![instance]));
    w.run(200);
    assert!(w.workers.contains_key(&first), "the first link stays");
    assert_eq!(w.closed[0].0, WorkerId(99));
    assert!(!w.events.iter().any(|event| matches!(event, Event::WorkerRefused { .. })), "and nobody is warned");
    // A link that the worker does not know any more is replaced.
    let now = w.now();
    w.balancer.on_worker_connected(now, WorkerId(100), source(1).address, hello(vec![]));
    w.run(200);
    assert_eq!(w.closed[1].0, first);
}

/// The gateways' workers, by name.
fn choices(w: &mut World, gateways: u64) -> Vec<String> {
    let chosen = |g| {
        let id = w.owner(g);
        w.workers[&id].name.clone()
    };
    (0..gateways).map(chosen).collect()
}

fn weigh(w: &mut World, name: &str, weight: u32) {
    let id = *w.workers.iter().find(|(_, worker)| worker.name == name).unwrap().0;
    w.control(id, ToBalancer::Weight(Weight { number: 2, weight, ready: true, ..Weight::default() }));
}

#[test]
fn two_balancers_that_see_the_same_workers_choose_alike_for_every_gateway() {
    const GATEWAYS: u64 = 10_000;
    let names = ["delta", "alpha", "charlie", "bravo", "echo"];
    let (mut one, mut two) = (World::with_workers(&names), World::new(Config::default()));
    // The other one has met them in another order, has lost and ejected some meanwhile, and was started at another time.
    two.run(123_456);
    for name in ["echo", "alpha", "gone", "bravo", "delta"] {
        two.connect(name);
        two.run(700);
    }
    let gone = *two.workers.iter().find(|(_, worker)| worker.name == "gone").unwrap().0;
    two.close(gone);
    two.connect("charlie");
    for w in [&mut one, &mut two] {
        weigh(w, "alpha", 50);
        weigh(w, "echo", 10);
        w.run(100_000);
    }
    let (one, two) = (choices(&mut one, GATEWAYS), choices(&mut two, GATEWAYS));
    assert_eq!(one, two);
    let of = |name: &str| one.iter().filter(|chosen| *chosen == name).count();
    assert!(of("echo") > 0 && of("echo") < of("alpha") && of("alpha") < of("bravo"), "weights count");
}

#[test]
fn two_balancers_let_a_weight_count_from_the_same_moment_on() {
    let names = ["alpha", "bravo", "charlie"];
    let mut both = [World::with_workers(&names), World::with_workers(&names)];
    let same = |[one, two]: &mut [World; 2]| {
        let (one, two) = (choices(one, 1_000), choices(two, 1_000));
        assert_eq!(one, two);
        one
    };
    let before = same(&mut both);
    // It reaches one of them much later than the other.
    for (w, after) in both.iter_mut().zip([5_000, 25_000]) {
        w.run(after);
        weigh(w, "alpha", 40);
        w.run(39_900 - w.ms);
    }
    assert_eq!(same(&mut both), before);
    both.iter_mut().for_each(|w| w.run(200));
    let after = same(&mut both);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let moved: Vec<_> = moved.map(|(before, _)| before.as_str()).collect();
    assert!(!moved.is_empty() && moved.iter().all(|name| *name == "alpha"), "{moved:?}");
}
