use limpet_balancer_core::{Event, WorkerId};
use limpet_shared::{
    admin::Request,
    link::{Drain, Weight, to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker},
};

use super::world::{EPOCH, World, eui, gwmp, source};

fn freeze(w: &mut World, id: WorkerId, frozen: bool) {
    w.workers.get_mut(&id).unwrap().frozen = frozen;
}

fn state(w: &mut World, name: &str) -> String {
    w.states().into_iter().find(|(n, _, _)| n == name).unwrap().1
}

fn name(w: &World, id: WorkerId) -> String {
    w.workers[&id].name.clone()
}

#[test]
fn a_false_suspicion_moves_frames_but_not_the_ring() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let owner = w.owner(5);
    let epoch = w.balancer.stats().ring_epoch;
    freeze(&mut w, owner, true);
    w.push(5, 1);
    w.run(120);
    let owners_name = name(&w, owner);
    assert_eq!(state(&mut w, &owners_name), "suspect");
    let other = *w.workers.keys().find(|id| **id != owner).unwrap();
    assert_eq!(w.suspects(other), Some(vec![owners_name.clone()]));
    freeze(&mut w, owner, false);
    w.run(20);
    assert_eq!(state(&mut w, &owners_name), "ready");
    assert_eq!(w.suspects(other), Some(vec![]));
    w.push(5, 2);
    w.run(300);
    assert_eq!(w.balancer.stats().ring_epoch, epoch);
    assert_eq!(w.push_acks(), [1, 2]);
    assert_eq!(w.seen(owner).len(), 2, "it has its gateway back");
    assert_eq!(w.balancer.stats().retained_bytes, 0, "either worker's done releases the frame");
}

#[test]
fn a_frozen_worker_is_ejected_and_comes_back_slowly_and_nobody_else_moves() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let owners: Vec<WorkerId> = (0..300).map(|g| w.owner(g)).collect();
    let frozen = owners[5];
    let frozen_name = name(&w, frozen);
    freeze(&mut w, frozen, true);
    w.run(620);
    assert_eq!(state(&mut w, &frozen_name), "ejected", "silent without any frame, too");
    for (g, &owner) in owners.iter().enumerate() {
        let now = w.owner(g as u64);
        assert!(now != frozen && (owner == frozen || now == owner), "gateway {g}");
    }
    freeze(&mut w, frozen, false);
    let mut shares = Vec::new();
    for _ in 0..50 {
        w.run(100);
        let weight = w.states().into_iter().find(|(n, _, _)| *n == frozen_name).unwrap().2;
        if shares.last() != Some(&weight) {
            shares.push(weight);
        }
        for (g, &owner) in owners.iter().enumerate() {
            let now = w.owner(g as u64);
            assert!(now == owner || owner == frozen, "gateway {g} never moves");
        }
    }
    assert_eq!(shares, [25, 50, 100]);
    let back: Vec<WorkerId> = (0..300).map(|g| w.owner(g)).collect();
    assert_eq!(back, owners);
}

#[test]
fn a_killed_worker_that_returns_has_its_gateways_back_within_ten_seconds() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(5);
    let killed = name(&w, owner);
    w.close(owner);
    w.push(5, 1);
    w.run(10);
    assert_eq!(w.push_acks(), [1], "served by the other one at once");
    assert_eq!(state(&mut w, &killed), "gone");
    let again = w.connect(&killed);
    w.run(4_000);
    assert_eq!(w.owner(5), again);
}

#[test]
fn the_view_follows_a_gateway_whose_frames_were_handed_on_and_back() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(5);
    let killed = name(&w, owner);
    w.push(5, 1);
    assert_eq!(w.routes[&eui(5)].worker.as_deref(), Some(&*killed));
    // Its unfinished frame goes to the other one, and that is the first to ask the new ring for the gateway.
    w.close(owner);
    let other = w.owner(5);
    w.push(5, 2);
    assert_eq!(w.routes[&eui(5)].worker, Some(name(&w, other)));
    w.connect(&killed);
    w.run(4_000);
    w.push(5, 3);
    assert_eq!(w.routes[&eui(5)].worker, Some(killed));
}

#[test]
fn a_stall_of_the_balancer_itself_is_no_verdict() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    w.push(5, 1);
    w.run(2);
    w.stall(700);
    assert!(w.events.iter().any(|e| matches!(e, Event::Stalled { .. })));
    w.run(300);
    assert_eq!(w.redelivered(), 0);
    assert!(w.states().iter().all(|(_, state, _)| state == "ready"));
    assert_eq!(w.push_acks(), [1]);
}

#[test]
fn nobody_is_suspect_of_a_datagram_that_waited_for_the_balancer() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    // Shorter than any timer, so that it is no stall that the balancer could notice.
    w.run(4);
    w.stall_with(60, &[(0, source(1_005), gwmp(2, 1, 0, eui(5), b"{}"))]);
    w.stall_with(1, &[]);
    assert!(w.states().iter().all(|(_, state, _)| state == "ready"), "{:?}", w.states());
    w.run(300);
    assert_eq!(w.redelivered(), 0);
    assert_eq!(w.push_acks(), [1]);
    let taken: Vec<_> = w.workers.values().flat_map(|worker| worker.seen.clone()).collect();
    assert_eq!(taken[0].received_at.0, EPOCH + 10_004_000, "the receive time is that of its reading");
}

#[test]
fn more_than_half_silent_at_once_are_believed_only_after_a_second() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    for &id in &ids {
        let gateway = w.gateway_of(id);
        w.push(gateway, 1);
    }
    w.run(2);
    freeze(&mut w, ids[0], true);
    freeze(&mut w, ids[1], true);
    w.run(120);
    assert_eq!(w.redelivered(), 0, "a common pause is not believed");
    assert!(w.events.iter().any(|e| matches!(e, Event::VerdictsHeld { silent: 2, of: 3 })));
    freeze(&mut w, ids[0], false);
    w.run(40);
    assert_eq!(w.redelivered(), 1, "the one that stays silent is judged");
    freeze(&mut w, ids[1], false);
    w.run(300);
    assert_eq!(w.push_acks().len(), 3);

    let mut w = World::with_workers(&["a", "b", "c"]);
    let gateway = w.gateway_of(ids[0]);
    w.push(gateway, 1);
    freeze(&mut w, ids[0], true);
    freeze(&mut w, ids[1], true);
    w.run(2_000);
    assert_eq!(w.push_acks(), [1], "in the end the third one has it");
}

#[test]
fn a_closed_link_ejects_whatever_the_guards_say() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    for &id in &ids {
        let gateway = w.gateway_of(id);
        w.push(gateway, id.0 as u16);
    }
    w.close(ids[0]);
    w.close(ids[1]);
    w.run(10);
    assert_eq!(w.push_acks().len(), 3);
}

#[test]
fn a_draining_worker_finishes_and_gets_nothing_new() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(5);
    w.push(5, 1);
    w.control(owner, ToBalancer::Drain(Drain { on: true, ..Drain::default() }));
    w.push(5, 2);
    w.run(300);
    let mut acks = w.push_acks();
    acks.sort();
    assert_eq!(acks, [1, 2]);
    assert_eq!(w.seen(owner).len(), 1);
    assert_eq!(w.redelivered(), 0, "what it holds it finishes");
    w.close(owner);
    assert_eq!(w.balancer.stats().retained_frames, 0);
}

#[test]
fn an_operator_drains_and_brings_back() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(5);
    let drained = name(&w, owner);
    let now = w.now();
    let request = |on| Request::drain(&drained, on);
    assert!(matches!(w.balancer.admin(now, &request(true)), Some(limpet_shared::admin::Reply::Done { .. })));
    assert_eq!(state(&mut w, &drained), "draining");
    assert_ne!(w.owner(5), owner);
    let now = w.now();
    w.balancer.admin(now, &request(false));
    w.run(5_000);
    assert_eq!(w.owner(5), owner);
    let none = Request::drain("nobody", true);
    assert!(matches!(w.balancer.admin(now, &none), Some(limpet_shared::admin::Reply::Error { .. })));
}

#[test]
fn an_operators_drain_survives_the_link_and_the_workers_restart() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(5);
    let (drained, instance) = (name(&w, owner), owner.0);
    let request = |on| Request::drain(&drained, on);
    let now = w.now();
    w.balancer.admin(now, &request(true));
    w.close(owner);
    w.run(10);
    // The same process dials again, and does not know yet; then it is a new process.
    for instance in [instance, 999] {
        let again = w.connect_as(&drained, instance);
        w.run(5_000);
        assert_eq!(state(&mut w, &drained), "draining");
        assert_ne!(w.owner(5), again);
        assert!(
            w.workers[&again]
                .control
                .iter()
                .any(|m| matches!(m, ToWorker::Drain(Drain { on: true, remembered: false }))),
            "told"
        );
        w.close(again);
    }
    // With what it was told by another balancer it comes back.
    let again = w.connect_as(&drained, 1_000);
    let says =
        |number, drained| Weight { number, drained: Some(drained), ready: true, weight: 100, ..Weight::default() };
    w.control(again, ToBalancer::Weight(says(2, true)));
    w.control(again, ToBalancer::Weight(says(3, false)));
    w.run(5_000);
    assert_eq!((state(&mut w, &drained).as_str(), w.owner(5)), ("ready", again));
}

#[test]
fn a_name_belongs_to_its_live_holder_only() {
    let mut w = World::with_workers(&["a", "b"]);
    let first = *w.workers.iter().find(|(_, s)| s.name == "a").unwrap().0;
    w.run(1);
    let second = w.connect_as("a", 999);
    assert_eq!(w.closed.len(), 1);
    assert_eq!(w.closed[0].0, second);
    assert!(w.closed[0].1.contains("taken by another live server"), "{}", w.closed[0].1);
    let gateway = w.gateway_of(first);
    freeze(&mut w, first, true);
    w.push(gateway, 1);
    w.run(60);
    assert_eq!(state(&mut w, "a"), "suspect");
    w.connect_as("a", 998);
    assert!(
        w.closed[1].1.contains("taken by another live server"),
        "a moment of silence takes no name: {:?}",
        w.closed
    );
    w.run(360);
    let third = w.connect_as("a", 1_000);
    assert_eq!(w.closed.last().unwrap().0, first, "a silent holder gives way");
    w.run(1);
    let again = w.connect_as("a", 1_000);
    assert_eq!(w.closed.last().unwrap().0, third, "the same process may dial again");
    assert_eq!(w.workers[&again].name, "a");
}

#[test]
fn who_only_reads_is_answered_by_a_worker_that_is_not_ready_where_no_other_is() {
    let mut w = World::with_workers(&["a", "b"]);
    let (a, b) = (w.balancer.admin_worker(true).unwrap(), *w.workers.keys().next_back().unwrap());
    let unready = |number| Weight { number, weight: 100, ready: false, ..Weight::default() };
    w.control(a, ToBalancer::Weight(unready(2)));
    assert_eq!((w.balancer.admin_worker(false), w.balancer.admin_worker(true)), (Some(b), Some(b)));
    w.control(b, ToBalancer::Weight(unready(2)));
    assert_eq!((w.balancer.admin_worker(false), w.balancer.admin_worker(true)), (None, Some(a)));
    w.close(a);
    w.close(b);
    assert_eq!(w.balancer.admin_worker(true), None);
}
