use bytes::Bytes;
use limpet_balancer_core::{Balancer, Config, DropReason, Event, Source};
use limpet_shared::{
    Eui64,
    admin::{Reply, Request},
    link::{ClusterDelta, KnownGateway, RevokedKey, to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker},
};

use super::world::{World, cluster, eui, gwmp, source};

#[test]
fn unknown_gateways_are_rejected_remembered_and_let_in_when_added() {
    let mut w = World::with_workers(&["a"]);
    let a = *w.workers.keys().next().unwrap();
    w.pull(2, 5_000);
    w.push(5_000, 1);
    w.run(10);
    assert!(w.udp.is_empty());
    assert_eq!(w.drops, [(DropReason::UnknownGateway, Some(eui(5_000))); 2]);
    let first = w.events.iter().filter(|e| matches!(e, Event::UnknownGateway { .. })).count();
    assert_eq!(first, 1, "told once");
    let now = w.now();
    let Some(Reply::Gateways { gateways, .. }) = w.balancer.admin(now, &Request::heard(true)) else { panic!() };
    assert_eq!((gateways.len(), gateways[0].eui, gateways[0].known), (1, eui(5_000), false));

    let add = vec![KnownGateway { eui: eui(5_000).0, ..KnownGateway::default() }];
    w.control(a, ToBalancer::ClusterDelta(ClusterDelta { from: 1, to: 2, add, remove: vec![] }));
    assert!(w.workers[&a].control.iter().any(|m| matches!(m, ToWorker::ClusterHave(have) if have.version == 2)));
    w.push(5_000, 2);
    w.run(10);
    assert_eq!(w.push_acks(), [2]);
    w.control(a, ToBalancer::ClusterDelta(ClusterDelta { from: 2, to: 3, add: vec![], remove: vec![eui(5_000).0] }));
    assert!(!w.routes.contains_key(&eui(5_000)));
    w.control(a, ToBalancer::ClusterDelta(ClusterDelta { from: 2, to: 9, add: vec![], remove: vec![] }));
    assert!(matches!(w.workers[&a].control.last(), Some(ToWorker::ClusterHave(have)) if have.version == 3));
}

#[test]
fn before_the_first_snapshot_workers_judge() {
    let mut w = World::new(Config::default());
    w.balancer = Balancer::new(Config { ring_key: [3; 16], ..Config::default() }, None);
    let a = w.connect("a");
    w.push(5_000, 1);
    w.run(10);
    assert_eq!(w.push_acks(), [1]);
    w.control(a, ToBalancer::Cluster(cluster(4, [eui(1)])));
    assert_eq!(w.balancer.cluster().version, 4);
    w.push(5_000, 2);
    assert_eq!(w.drops, [(DropReason::UnknownGateway, Some(eui(5_000)))]);
}

#[test]
fn a_spray_of_euis_moves_no_known_gateway_out_and_grows_nothing() {
    let mut w = World::new(Config { accept_unknown_gateways: true, unknown_rate: 0, ..Config::default() });
    w.connect("a");
    w.pull(2, 1);
    for n in 0..30_000 {
        w.datagram(source(7), gwmp(2, 0, 2, Eui64(n), b""));
    }
    assert!(w.balancer.stats().gateways <= 10_001);
    assert!(w.routes.len() <= 10_001, "the published registry is bounded with it");
    assert!(w.routes.contains_key(&eui(1)));

    let mut w = World::with_workers(&["a"]);
    for n in 0..30_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let from = Source { socket: 0, address: ([10, b, c, d], 1).into(), local: None };
        w.datagram(from, gwmp(2, 0, 2, Eui64(u64::from(n)), b""));
    }
    assert_eq!(w.balancer.stats().rejected_gateways, 1_000);
    assert_eq!(w.drops.len(), 30_000, "each is counted");
    let told = w.events.iter().filter(|e| matches!(e, Event::UnknownGateway { .. })).count();
    assert!(told <= 21, "but not each is told: {told}");
}

#[test]
fn a_flood_is_cut_for_its_sender_only() {
    let mut w = World::with_workers(&["a"]);
    for token in 0..5_000u16 {
        w.push(1, token);
    }
    w.push(2, 1);
    w.run(300);
    let cut = w.drops.iter().filter(|d| **d == (DropReason::GatewayRate, Some(eui(1)))).count();
    assert_eq!(cut, 3_000);
    assert_eq!(w.push_acks().len(), 2_001);
    let flood = |w: &mut World, port| {
        for n in 0..1_000 {
            w.datagram(source(port), gwmp(2, 0, 2, Eui64(n), b""));
        }
    };
    flood(&mut w, 9);
    let cut = w.drops.iter().filter(|d| d.0 == DropReason::UnknownRate).count();
    assert_eq!(cut, 800);
    w.push(3, 3);
    w.run(300);
    assert!(w.push_acks().contains(&3), "a known gateway behind the same address is not cut");
}

#[test]
fn packets_count_however_many_are_in_one_datagram() {
    let mut w = World::with_workers(&["a"]);
    let json = format!(r#"{{"rxpk":[{}]}}"#, vec![r#"{"data":"AA=="}"#; 255].join(","));
    let full = |token| gwmp(2, token, 0, eui(1), json.as_bytes());
    for token in 0..1_000 {
        w.datagram(source(1_001), full(token));
    }
    let passed = 1_000 - w.drops.len();
    assert_eq!(passed, 8, "2,000 packets");
    assert!(w.drops.iter().all(|d| *d == (DropReason::GatewayRate, Some(eui(1)))));
    w.run(1_000);
    for token in 2_000..3_000 {
        w.datagram(source(1_001), full(token));
    }
    assert_eq!(2_000 - w.drops.len(), 16);
    // A real gateway whose EUI somebody else uses is heard.
    for token in 0..100 {
        w.datagram(at([203, 0, 113, 9]), full(4_000 + token));
    }
    w.run(1_000);
    w.push(1, 7);
    w.run(300);
    assert!(w.push_acks().contains(&7));
}

#[test]
fn bytes_count_whatever_they_are() {
    let mut w = World::with_workers(&["a"]);
    for token in 0..100 {
        w.datagram(source(1_001), gwmp(2, token, 0, eui(1), &[b' '; 60_000]));
    }
    let cut = w.drops.iter().filter(|d| **d == (DropReason::GatewayBytes, Some(eui(1)))).count();
    assert_eq!(cut, 100 - 18, "1 MiB and the rest of one datagram");
}

#[test]
fn a_flood_in_a_gateways_name_does_not_silence_it() {
    let mut w = World::with_workers(&["a"]);
    w.push(1, 1);
    w.pull(2, 1);
    for token in 0..5_000 {
        w.datagram(at([203, 0, 113, 9]), gwmp(2, 10_000 + token, 0, eui(1), b"{}"));
    }
    assert_eq!(w.drops.len(), 3_000);
    w.push(1, 2);
    w.pull(2, 1);
    w.run(300);
    assert_eq!(w.drops.len(), 3_000);
    assert!(w.push_acks().contains(&2));
}

#[test]
fn who_pushes_first_for_a_gateway_that_only_pulls_does_not_silence_it() {
    let mut w = World::with_workers(&["a"]);
    w.push(1, 1);
    for _ in 0..4 {
        w.run(30_000);
        w.pull(2, 1);
    }
    for token in 0..5_000 {
        w.datagram(at([203, 0, 113, 9]), gwmp(2, 10_000 + token, 0, eui(1), b"{}"));
    }
    assert_eq!(w.drops.len(), 3_000);
    w.push(1, 2);
    w.pull(2, 1);
    w.run(300);
    assert_eq!(w.drops.len(), 3_000, "what the gateway sends itself goes through");
    assert!(w.push_acks().contains(&2));
}

#[test]
fn workers_hear_of_gateways_at_first_and_every_half_minute() {
    let mut w = World::with_workers(&["a"]);
    let a = *w.workers.keys().next().unwrap();
    for _ in 0..10 {
        w.push(1, 1);
        w.pull(2, 1);
        w.run(5_000);
    }
    let seen = w.workers[&a].control.iter().filter(|m| matches!(m, ToWorker::GatewaySeen(_))).count();
    assert_eq!(seen, 2);
    let from = Source { socket: 0, address: ([203, 0, 113, 1], 5).into(), local: None };
    w.datagram(from, gwmp(2, 1, 2, eui(1), b""));
    let moved = w.workers[&a].control.iter().filter_map(|m| match m {
        ToWorker::GatewaySeen(seen) => Some(seen.address.clone()),
        _ => None,
    });
    assert_eq!(moved.last().as_deref(), Some("203.0.113.1:5"));
}

#[test]
fn junk_is_counted_by_reason() {
    let mut w = World::with_workers(&["a"]);
    for junk in [&b""[..], &[2; 11], &[3; 12], &[0; 12], &[2; 12], &[1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]] {
        w.datagram(source(1), Bytes::copy_from_slice(junk));
    }
    use DropReason::*;
    let reasons: Vec<_> = w.drops.iter().map(|d| d.0).collect();
    assert_eq!(reasons, [TooShort, TooShort, GwmpVersion, GwmpVersion, UnknownGateway, GwmpType]);
}

#[test]
fn a_revoked_worker_is_shut_out() {
    let mut w = World::with_workers(&["b"]);
    let a = w.connect_with("a", 50, "00ff");
    let now = w.now();
    let revoked = RevokedKey { name: "a".into(), key: "00ff".into(), balancer: false };
    w.balancer.revoke(now, [revoked].into_iter());
    w.run(19_000);
    assert_eq!(w.workers[&a].control.iter().filter(|m| matches!(m, ToWorker::Remove(_))).count(), 1);
    assert!(w.states().contains(&("a".into(), "draining".into(), 0)));
    w.run(2_000);
    assert_eq!(w.closed[0].0, a, "who does not end by itself loses the link");
    w.connect_with("a", 51, "00ff");
    assert!(w.closed[1].1.contains("revoked"), "{}", w.closed[1].1);
    w.connect_with("a", 52, "01ff");
    assert_eq!(w.closed.len(), 2, "a server that joined anew under that name is another one");
}

/// A world whose gateway 1 has this policy.
fn with_policy(policy: &str) -> World {
    let mut w = World::with_workers(&["a"]);
    let a = *w.workers.keys().next().unwrap();
    let add = vec![KnownGateway { eui: eui(1).0, policy: policy.into() }];
    w.control(a, ToBalancer::ClusterDelta(ClusterDelta { from: 1, to: 2, add, remove: vec![] }));
    w
}

fn at(address: [u8; 4]) -> Source {
    Source { socket: 0, address: (address, 1_700).into(), local: None }
}

fn heard(w: &mut World, address: [u8; 4]) -> Option<DropReason> {
    let before = w.drops.len();
    w.datagram(at(address), gwmp(2, 1, 2, eui(1), b""));
    w.run(2_000);
    w.drops.get(before).map(|(reason, _)| *reason)
}

fn moves(w: &World) -> usize {
    w.events.iter().filter(|event| matches!(event, Event::GatewayMoved { .. })).count()
}

#[test]
fn a_changed_address_is_told_unless_the_policy_says_otherwise() {
    for (policy, told) in [("", 2), ("alert", 2), ("of a newer version", 2), ("off", 0)] {
        let mut w = with_policy(policy);
        let dropped: Vec<_> = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 1]].map(|a| heard(&mut w, a)).into();
        assert_eq!((dropped, moves(&w)), (vec![None; 3], told), "{policy}");
    }
}

#[test]
fn a_locked_gateway_is_heard_from_its_networks_only() {
    let mut w = with_policy("lock:10.0.0.0/24,192.0.2.7");
    let dropped = [[10, 0, 0, 1], [10, 0, 1, 1], [192, 0, 2, 7], [192, 0, 2, 8]].map(|a| heard(&mut w, a));
    assert_eq!(dropped, [None, Some(DropReason::AddressLocked), None, Some(DropReason::AddressLocked)]);
    // Who is refused leads no downlink astray.
    let a = *w.workers.keys().next().unwrap();
    let windows = vec![w.window(1, 900)];
    w.downlink(a, 1, 1, windows);
    let to: Vec<_> = w.pull_resps().into_iter().map(|resp| resp.1).collect();
    assert_eq!(to, [at([10, 0, 0, 1]), at([192, 0, 2, 7])]);
}

#[test]
fn a_held_address_is_kept_until_it_was_silent_for_long_enough() {
    let mut w = with_policy("hold:60");
    assert_eq!(heard(&mut w, [10, 0, 0, 1]), None);
    w.run(50_000);
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), Some(DropReason::AddressHeld));
    assert_eq!(heard(&mut w, [10, 0, 0, 1]), None, "it is still there, so its time begins anew");
    w.run(50_000);
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), Some(DropReason::AddressHeld));
    w.run(10_000);
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), None);
    assert_eq!(heard(&mut w, [10, 0, 0, 1]), Some(DropReason::AddressHeld), "now this one is held");
    assert_eq!(moves(&w), 1);
    assert_eq!(w.holds[&eui(1)], at([10, 0, 0, 2]).address.ip());
    let kept = w.balancer.cluster();
    assert!(kept.gateways.iter().any(|gateway| gateway.policy == "hold:60"), "the balancer's next start knows it");
}

#[test]
fn a_held_address_is_held_though_what_was_known_of_the_network_is_lost() {
    let mut w = World::new(Config::default());
    w.balancer = Balancer::new(Config::default(), None);
    let now = w.now();
    w.balancer.restore_hold(now, eui(1), at([10, 0, 0, 1]).address.ip());
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), None, "nobody knows yet who may be where");
    let a = w.connect("a");
    let mut known = cluster(4, [eui(1)]);
    known.gateways[0].policy = "hold:60".into();
    w.control(a, ToBalancer::Cluster(known));
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), Some(DropReason::AddressHeld));
    assert_eq!(heard(&mut w, [10, 0, 0, 1]), None);
}

#[test]
fn a_held_address_is_held_after_a_restart() {
    let mut before = with_policy("hold:60");
    assert_eq!(heard(&mut before, [10, 0, 0, 1]), None);
    let mut w = World::new(Config::default());
    w.balancer = Balancer::new(Config::default(), Some(&before.balancer.cluster()));
    w.run(5_000);
    for (gateway, address) in before.holds {
        let now = w.now();
        w.balancer.restore_hold(now, gateway, address);
    }
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), Some(DropReason::AddressHeld));
    assert_eq!(heard(&mut w, [10, 0, 0, 1]), None);
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), Some(DropReason::AddressHeld));
    w.run(60_000);
    assert_eq!(heard(&mut w, [10, 0, 0, 2]), None);
    // Without that policy nothing is kept.
    let a = w.connect("a");
    let add = vec![KnownGateway { eui: eui(1).0, policy: String::new() }];
    w.control(a, ToBalancer::ClusterDelta(ClusterDelta { from: 2, to: 3, add, remove: vec![] }));
    assert_eq!(heard(&mut w, [10, 0, 0, 3]), None);
    assert_eq!(w.holds.get(&eui(1)), None);
}
