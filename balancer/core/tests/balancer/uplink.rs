use limpet_balancer_core::{AckAt, Config, DropReason, Event, Redelivery, Source};
use limpet_shared::link::{Weight, to_balancer::Kind as ToBalancer};

use super::world::{DONE_MS, World, eui, gwmp, source};

/// The default of [`Config::unread_bytes`].
const MAX_UNREAD: usize = 4 << 20;

#[test]
fn a_gateway_stays_with_its_worker_and_push_ack_waits_for_stored() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let owner = w.owner(5);
    w.push(5, 0xaa01);
    assert!(w.push_acks().is_empty(), "not before a worker has stored it");
    w.run(2);
    assert!(w.push_acks().is_empty());
    w.run(5);
    assert_eq!(w.push_acks(), [0xaa01]);
    assert_eq!(w.udp.last().unwrap().1, source(1_005), "to where it came from");
    for token in 0..20 {
        w.push(5, token);
        w.run(50);
    }
    assert_eq!(w.seen(owner).len(), 21);
    assert_eq!(w.redelivered(), 0);
    w.run(300);
    assert_eq!(w.balancer.stats().retained_bytes, 0, "done frames are released");
    assert_eq!(w.push_acks().len(), 21, "one PUSH_ACK each");
}

#[test]
fn pull_ack_comes_at_once_and_to_the_same_socket() {
    let mut w = World::with_workers(&["a"]);
    w.pull(2, 1);
    let (_, to, bytes) = w.udp.last().unwrap();
    assert_eq!((*to, &bytes[..]), (source(20_001), &[2, 0, 77, 4][..]));
    assert_eq!(w.routes[&eui(1)].address, source(20_001).address);
    assert_eq!(w.routes[&eui(1)].worker.as_deref(), Some("a"));
}

#[test]
fn the_option_received_acknowledges_what_a_worker_has_read() {
    let mut w = World::new(Config { ack: AckAt::Received, ..Config::default() });
    let a = w.connect("a");
    w.workers.get_mut(&a).unwrap().stores = false;
    w.push(1, 9);
    assert!(w.push_acks().is_empty());
    w.run(1);
    assert_eq!(w.push_acks(), [9]);
}

#[test]
fn a_killed_workers_frames_go_to_the_next_choice_with_their_first_receive_time() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let owner = w.owner(5);
    w.workers.get_mut(&owner).unwrap().frozen = true;
    let received = w.now().unix;
    w.push(5, 1);
    w.run(29);
    assert_eq!(w.redelivered(), 0);
    w.run(10);
    assert_eq!(w.push_acks(), [1], "another worker has stored it");
    let taken: Vec<_> = w.workers.values().flat_map(|s| s.seen.clone()).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].received_at, taken[0].attempt), (received, 1));
    w.push(5, 2);
    w.run(10);
    assert_eq!(w.push_acks(), [1, 2], "new frames do not wait for a suspect");
}

#[test]
fn a_closed_link_sends_its_frames_on_at_once() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(3);
    w.workers.get_mut(&owner).unwrap().stores = false;
    w.push(3, 1);
    w.run(5);
    w.close(owner);
    w.run(5);
    assert_eq!(w.push_acks(), [1]);
    assert!(w.events.iter().any(|e| matches!(e, Event::Redelivered { why: Redelivery::Closed, .. })));
    w.run(300);
    assert_eq!(w.balancer.stats().retained_frames, 0);
}

#[test]
fn a_frame_that_was_stored_but_not_done_is_not_lost_with_its_worker() {
    let mut w = World::with_workers(&["a", "b"]);
    let owner = w.owner(3);
    w.push(3, 1);
    w.run(10);
    assert_eq!(w.push_acks(), [1]);
    w.close(owner);
    w.run(10);
    let other = *w.workers.keys().next().unwrap();
    assert_eq!(w.seen(other), [eui(3)]);
    w.run(300);
    assert_eq!(w.push_acks(), [1], "one PUSH_ACK, whoever stores it again");
    assert_eq!(w.balancer.stats().retained_bytes, 0);
}

#[test]
fn a_slow_store_gets_one_second_opinion() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    for worker in w.workers.values_mut() {
        worker.stores = false;
    }
    w.push(1, 1);
    w.run(490);
    assert_eq!(w.redelivered(), 0, "the worker is alive, so patience");
    w.run(4_000);
    assert_eq!(w.redelivered(), 1, "doubling the load of a slow store helps nobody");
    assert_eq!(w.workers.values().map(|s| s.seen.len()).sum::<usize>(), 2);
}

#[test]
fn what_is_stored_after_two_seconds_is_finished_without_a_push_ack() {
    let mut w = World::with_workers(&["a"]);
    let a = w.owner(1);
    w.workers.get_mut(&a).unwrap().stores = false;
    w.push(1, 1);
    w.run(1_000);
    w.push(1, 2);
    w.run(1_500);
    w.workers.get_mut(&a).unwrap().stores = true;
    w.run(20);
    assert_eq!(w.push_acks(), [2], "nobody waits for the first one any more");
    assert_eq!(w.events.iter().filter(|event| matches!(event, Event::PushAckWithheld { .. })).count(), 1);
    w.run(DONE_MS);
    assert_eq!((w.balancer.stats().retained_frames, w.drops.len()), (0, 0));
}

#[test]
fn no_worker_is_asked_that_gets_nothing_stored_itself() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let ids: Vec<_> = w.workers.keys().copied().collect();
    for worker in w.workers.values_mut() {
        worker.stores = false;
    }
    for round in 0..20 {
        for id in &ids {
            let gateway = w.gateway_of(*id);
            w.push(gateway, round);
        }
        w.run(100);
    }
    w.run(2_000);
    assert_eq!(w.redelivered(), 0, "the store is slow for all of them");
    // One of them can store again: what the others cannot is for it to do, within a moment.
    w.workers.get_mut(&ids[1]).unwrap().stores = true;
    w.run(1_500);
    assert_eq!(w.redelivered(), 40);
    w.run(DONE_MS);
    assert_eq!(w.balancer.stats().retained_frames, 0);
}

#[test]
fn a_frame_whose_workers_die_is_set_aside_after_ten_redeliveries() {
    let mut w = World::with_workers(&["w0", "standby"]);
    w.push(7, 1);
    for n in 1..=20 {
        let ids: Vec<_> = w.workers.keys().copied().collect();
        let holding = ids.into_iter().find(|id| !w.workers[id].inbox.is_empty());
        let Some(holding) = holding else { break };
        w.close(holding);
        w.connect(&format!("w{n}"));
    }
    let poisoned: Vec<_> = w.drops.iter().filter(|(reason, _)| *reason == DropReason::Poison).collect();
    assert_eq!(poisoned, [&(DropReason::Poison, Some(eui(7)))]);
    assert_eq!(w.redelivered(), 10);
    assert_eq!(w.balancer.stats().retained_bytes, 0);
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_counted_not_acknowledged() {
    let mut w = World::new(Config { retained_bytes: 10_000, ..Config::default() });
    let a = w.connect("a");
    w.workers.get_mut(&a).unwrap().stores = false;
    for token in 0..100 {
        w.push(1, token);
    }
    assert!(w.balancer.stats().retained_bytes <= 10_000);
    let held = w.balancer.stats().retained_frames;
    assert_eq!(w.drops.len(), 100 - held);
    assert!(w.drops.iter().all(|d| *d == (DropReason::RetentionShare, Some(eui(1)))));
    w.workers.get_mut(&a).unwrap().stores = true;
    w.run(400);
    assert_eq!((w.push_acks().len(), w.balancer.stats().retained_bytes), (held, 0));
}

#[test]
fn who_speaks_in_a_gateways_name_takes_no_memory_of_its_own() {
    let mut w = World::new(Config { retained_bytes: 100_000, gateway_rate: 0, ..Config::default() });
    let big = |w: &mut World, from: Source, token| w.datagram(from, gwmp(2, token, 0, eui(1), &[b' '; 900]));
    let stranger = Source { socket: 0, address: ([203, 0, 113, 9], 1_700).into(), local: None };
    big(&mut w, source(1), 1);
    for token in 2..200 {
        big(&mut w, stranger, token);
    }
    let dropped = w.drops.len();
    assert!(w.balancer.stats().retained_bytes < 15_000, "{}", w.balancer.stats().retained_bytes);
    for token in 200..230 {
        big(&mut w, source(1), token);
    }
    assert_eq!(w.drops.len(), dropped, "the gateway's own find as much room as if he were not there");
}

#[test]
fn who_pushes_first_in_a_gateways_name_takes_no_memory_of_where_it_pulls() {
    let mut w =
        World::new(Config { retained_bytes: 1_000_000, gateway_rate: 0, gateway_bytes: 0, ..Config::default() });
    let big = |w: &mut World, from: Source, token| w.datagram(from, gwmp(2, token, 0, eui(1), &[b' '; 900]));
    let stranger = Source { socket: 0, address: ([203, 0, 113, 9], 1_700).into(), local: None };
    w.datagram(source(1), gwmp(2, 1, 2, eui(1), b""));
    for token in 2..2_000 {
        big(&mut w, stranger, token);
    }
    let dropped = w.drops.len();
    assert!(dropped > 0, "he has all that he gets");
    for token in 2_000..2_100 {
        big(&mut w, source(1), token);
    }
    assert_eq!(w.drops.len(), dropped, "and the gateway finds room");
}

#[test]
fn no_gateway_takes_the_memory_of_others() {
    const LIMIT: usize = 100_000;
    let mut w = World::new(Config { retained_bytes: LIMIT, gateway_rate: 0, ..Config::default() });
    let big = |w: &mut World, gateway: u64, token| {
        w.datagram(source(1_000 + gateway as u16), gwmp(2, token, 0, eui(gateway), &[b' '; 900]));
    };
    let mut token = 0;
    let mut flood = |w: &mut World, gateway| {
        for _ in 0..200 {
            token += 1;
            big(w, gateway, token);
        }
    };
    flood(&mut w, 1);
    let one = w.balancer.stats().retained_bytes;
    assert!((LIMIT * 2 / 5..=LIMIT / 2 + 1_200).contains(&one), "half of the memory for one alone: {one}");
    flood(&mut w, 2);
    flood(&mut w, 1);
    let two = w.balancer.stats().retained_bytes;
    assert!(two <= LIMIT * 3 / 4 + 2_000, "the second gets no more than what the first one left free: {two}");
    assert!(w.drops.iter().all(|(reason, _)| *reason == DropReason::RetentionShare));
    let before = w.drops.len();
    for gateway in 3..13 {
        big(&mut w, gateway, 10_000 + gateway as u16);
    }
    assert_eq!(w.drops.len(), before, "who has nothing here finds room");
    w.connect("a");
    w.run(500);
    assert_eq!(w.push_acks().iter().filter(|token| **token > 10_000).count(), 10);
    assert_eq!(w.balancer.stats().retained_bytes, 0);
}

#[test]
fn a_worker_that_reads_nothing_gets_little_and_what_others_did_is_taken_back() {
    let mut w = World::with(Config { gateway_bytes: 0, ..Config::default() }, &["a", "b"]);
    let slow = w.owner(5);
    w.workers.get_mut(&slow).unwrap().reads = false;
    let mut most = 0;
    for token in 0..500 {
        w.datagram(source(1_005), gwmp(2, token, 0, eui(5), &[b' '; 20_000]));
        w.run(2);
        most = most.max(w.unread(slow));
    }
    assert!(most <= MAX_UNREAD, "{most} bytes wait for it");
    assert!(w.events.iter().any(|event| matches!(event, Event::Spilled { gateway } if *gateway == eui(5))));
    w.run(1_500);
    assert_eq!(w.push_acks().len(), 500);
    assert_eq!((w.unread(slow), w.balancer.stats().retained_frames), (0, 0), "nothing is left for it to do");
    // As soon as it reads, its gateways are its own again.
    w.workers.get_mut(&slow).unwrap().reads = true;
    w.push(5, 900);
    w.run(5);
    assert_eq!(w.seen(slow), [eui(5)]);
}

#[test]
fn when_no_worker_reads_frames_wait_and_go_on_in_order() {
    let mut w = World::with(Config { gateway_bytes: 0, ..Config::default() }, &["a"]);
    let a = w.owner(1);
    w.workers.get_mut(&a).unwrap().reads = false;
    for token in 0..400 {
        w.datagram(source(1_001), gwmp(2, token, 0, eui(1), &[b' '; 20_000]));
    }
    assert!(w.unread(a) <= MAX_UNREAD);
    w.run(1_500);
    w.workers.get_mut(&a).unwrap().reads = true;
    w.run(500);
    assert_eq!(w.push_acks(), (0..400).collect::<Vec<u16>>());
    assert_eq!((w.drops.len(), w.balancer.stats().retained_frames), (0, 0));
}

#[test]
fn frames_wait_for_a_worker_to_come_but_not_for_ever() {
    let mut w = World::new(Config::default());
    w.push(1, 1);
    w.run(1_500);
    w.connect("a");
    w.run(10);
    assert_eq!(w.push_acks(), [1]);
    let id = *w.workers.keys().next().unwrap();
    w.run(300);
    w.close(id);
    w.push(1, 2);
    w.run(3_590_000);
    assert_eq!(w.drops, []);
    w.run(20_000);
    assert_eq!(w.drops, [(DropReason::NoWorker, Some(eui(1)))]);
    assert_eq!(w.balancer.stats().retained_bytes, 0);
}

#[test]
fn no_worker_ready_means_waiting_not_losing() {
    let mut w = World::with_workers(&["a"]);
    let a = *w.workers.keys().next().unwrap();
    let weight = |number, ready| {
        ToBalancer::Weight(Weight { number, weight: 100, ready, reason: "store".into(), ..Weight::default() })
    };
    w.control(a, weight(2, false));
    assert!(!w.balancer.is_ready());
    w.push(1, 1);
    w.run(1_000);
    assert!(w.push_acks().is_empty());
    w.control(a, weight(3, true));
    w.control(a, weight(2, false));
    w.run(10);
    assert_eq!(w.push_acks(), [1], "an older weight changes nothing");
}

#[test]
fn a_source_port_that_changes_mid_flow_changes_nothing_else() {
    let mut w = World::with_workers(&["a", "b", "c"]);
    let owner = w.owner(5);
    w.push(5, 1);
    w.datagram(source(4_444), gwmp(2, 2, 0, eui(5), b"{}"));
    w.run(10);
    let acks: Vec<_> = w.udp.iter().map(|(_, to, _)| *to).collect();
    assert_eq!(acks, [source(1_005), source(4_444)], "each PUSH_ACK goes to its own PUSH_DATA's port");
    assert_eq!(w.seen(owner).len(), 2, "the worker is chosen by EUI");
    assert!(!w.events.iter().any(|e| matches!(e, Event::GatewayMoved { .. })));
}

#[test]
fn a_stopping_balancer_answers_what_it_holds_and_takes_nothing_new() {
    let mut w = World::with_workers(&["a"]);
    w.push(1, 1);
    let now = w.now();
    w.balancer.on_shutdown(now);
    w.push(1, 2);
    assert!(!w.balancer.is_stopped(w.now()));
    w.run(300);
    assert_eq!(w.push_acks(), [1]);
    assert!(w.balancer.is_stopped(w.now()));
    assert_eq!(w.drops, [(DropReason::Stopping, Some(eui(1)))]);
}

#[test]
fn a_stopping_balancer_waits_five_seconds_at_most() {
    let mut w = World::with_workers(&["a"]);
    w.workers.values_mut().for_each(|s| s.stores = false);
    w.push(1, 1);
    let now = w.now();
    w.balancer.on_shutdown(now);
    w.run(4_990);
    assert!(!w.balancer.is_stopped(w.now()));
    w.run(20);
    assert!(w.balancer.is_stopped(w.now()));
}
