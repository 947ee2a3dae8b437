//! Anything in any order. What must hold: every frame is acknowledged or counted, memory comes back to nothing, a
//! gateway hears one PUSH_ACK per PUSH_DATA, and no downlink key goes out twice in one window.

use std::collections::BTreeMap;

use bytes::Bytes;
use limpet_balancer_core::{Config, Event, Source, WorkerId};
use limpet_shared::link::{Drain, Weight, to_balancer::Kind as ToBalancer};
use proptest::prelude::*;

use super::world::{World, eui, gwmp, source};

#[derive(Clone, Debug)]
enum Step {
    Push {
        gateway: u64,
    },
    Pull {
        gateway: u64,
        version: u8,
    },
    Run {
        ms: u64,
    },
    /// The balancer does not run, and datagrams wait for it.
    Stall {
        ms: u64,
        datagrams: Vec<(u64, u64)>,
    },
    Connect {
        name: usize,
    },
    Kill {
        worker: usize,
    },
    Freeze {
        worker: usize,
        frozen: bool,
    },
    Read {
        worker: usize,
        reads: bool,
    },
    Store {
        worker: usize,
        stores: bool,
    },
    Drain {
        worker: usize,
        on: bool,
    },
    Unready {
        worker: usize,
        ready: bool,
        number: u64,
    },
    Downlink {
        worker: usize,
        gateway: u64,
        key: u64,
        in_ms: u64,
    },
    TxAck {
        gateway: u64,
        pick: usize,
        good: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..6usize;
    prop_oneof![
        12 => (0..1_100u64).prop_map(|gateway| Step::Push { gateway }),
        3 => (0..20u64, 1..=2u8).prop_map(|(gateway, version)| Step::Pull { gateway, version }),
        8 => (1..400u64).prop_map(|ms| Step::Run { ms }),
        1 => (1..900u64, prop::collection::vec((0..900u64, 0..1_100u64), 0..4))
            .prop_map(|(ms, datagrams)| Step::Stall { ms, datagrams }),
        2 => (0..4usize).prop_map(|name| Step::Connect { name }),
        1 => worker.clone().prop_map(|worker| Step::Kill { worker }),
        2 => (worker.clone(), any::<bool>()).prop_map(|(worker, frozen)| Step::Freeze { worker, frozen }),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, reads)| Step::Read { worker, reads }),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, stores)| Step::Store { worker, stores }),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, on)| Step::Drain { worker, on }),
        1 => (worker.clone(), any::<bool>(), 2..9u64)
            .prop_map(|(worker, ready, number)| Step::Unready { worker, ready, number }),
        3 => (worker, 0..20u64, 0..40u64, 0..3_000u64)
            .prop_map(|(worker, gateway, key, in_ms)| Step::Downlink { worker, gateway, key, in_ms }),
        3 => (0..20u64, any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(gateway, pick, good)| Step::TxAck { gateway, pick: pick.index(1_000), good }),
    ]
}

fn pick(w: &World, n: usize) -> Option<WorkerId> {
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    (!ids.is_empty()).then(|| ids[n % ids.len()])
}

fn apply(w: &mut World, step: &Step, pushed: &mut u16) {
    match *step {
        Step::Push { gateway } => {
            *pushed += 1;
            // Each from a port of its own, by which its drop is known again.
            w.datagram(source(*pushed), gwmp(2, *pushed, 0, eui(gateway), b"{\"rxpk\":[]}"));
        }
        Step::Pull { gateway, version } => w.pull(version, gateway),
        Step::Run { ms } => w.run(ms),
        Step::Stall { ms, ref datagrams } => {
            let mut read: Vec<(u64, Source, Bytes)> = Vec::new();
            for (after, gateway) in datagrams {
                *pushed += 1;
                read.push((*after, source(*pushed), gwmp(2, *pushed, 0, eui(*gateway), b"{}")));
            }
            read.sort_by_key(|(after, ..)| *after);
            w.stall_with(ms, &read);
        }
        Step::Connect { name } => {
            w.connect(["a", "b", "c", "d"][name]);
        }
        Step::TxAck { gateway, pick, good } => {
            let resps = w.pull_resps();
            let token = if resps.is_empty() { 9 } else { resps[pick % resps.len()].2 };
            let body = if good { "" } else { r#"{"txpk_ack":{"error":"TOO_LATE"}}"# };
            w.tx_ack(source(60_000), gateway, token, body);
        }
        Step::Kill { worker }
        | Step::Freeze { worker, .. }
        | Step::Read { worker, .. }
        | Step::Store { worker, .. }
        | Step::Drain { worker, .. }
        | Step::Unready { worker, .. }
        | Step::Downlink { worker, .. } => {
            if let Some(id) = pick(w, worker) {
                apply_to(w, step, id);
            }
        }
    }
}

fn apply_to(w: &mut World, step: &Step, id: WorkerId) {
    match *step {
        Step::Kill { .. } => w.close(id),
        Step::Freeze { frozen, .. } => w.workers.get_mut(&id).unwrap().frozen = frozen,
        Step::Read { reads, .. } => w.workers.get_mut(&id).unwrap().reads = reads,
        Step::Store { stores, .. } => w.workers.get_mut(&id).unwrap().stores = stores,
        Step::Drain { on, .. } => w.control(id, ToBalancer::Drain(Drain { on, ..Drain::default() })),
        Step::Unready { ready, number, .. } => {
            let weight = Weight { number, weight: 100, ready, ..Weight::default() };
            w.control(id, ToBalancer::Weight(weight));
        }
        Step::Downlink { gateway, key, in_ms, .. } => {
            let mut windows = vec![w.window(1, in_ms), w.window(2, in_ms + 1_000)];
            for window in &mut windows {
                window.json = Bytes::from(format!("{gateway} {key} {}", window.number));
            }
            w.downlink(id, key, gateway, windows);
        }
        _ => {}
    }
}

fn at_rest(w: &mut World) {
    for worker in w.workers.values_mut() {
        (worker.frozen, worker.reads, worker.stores) = (false, true, true);
    }
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    for id in ids {
        w.control(id, ToBalancer::Drain(Drain::default()));
        let weight = Weight { number: 99, weight: 100, ready: true, ..Weight::default() };
        w.control(id, ToBalancer::Weight(weight));
    }
    w.connect("healer");
    w.run(120_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_lost_silently(steps in prop::collection::vec(step(), 1..120)) {
        let mut w = World::new(Config { retained_bytes: 8_000, unread_bytes: 1_500, ..Config::default() });
        w.connect("a");
        w.connect("b");
        let mut pushed = 0;
        for step in &steps {
            apply(&mut w, step, &mut pushed);
            prop_assert!(w.balancer.stats().retained_bytes <= 8_000);
        }
        at_rest(&mut w);
        let stats = w.balancer.stats();
        prop_assert_eq!((stats.retained_bytes, stats.retained_frames, stats.downlinks), (0, 0, 0));
        let mut acks: BTreeMap<u16, usize> = BTreeMap::new();
        for token in w.push_acks() {
            *acks.entry(token).or_default() += 1;
        }
        prop_assert!(acks.values().all(|&n| n == 1), "one PUSH_ACK each: {:?}", acks);
        let mut aired: BTreeMap<String, u64> = BTreeMap::new();
        for (at, _, _, window) in w.pull_resps() {
            let before = aired.insert(window.clone(), at);
            prop_assert!(before.is_none_or(|before| at >= before + 10_000), "{window} at {before:?} and {at}");
        }
        // A frame that was stored, then set aside as poison, is in both.
        let mut silent = 0;
        for token in 1..=pushed {
            let dropped = w.dropped_from.iter().filter(|from| **from == source(token).address).count();
            prop_assert!(dropped <= 1, "{} is counted {} times", token, dropped);
            silent += usize::from(!acks.contains_key(&token) && dropped == 0);
        }
        let withheld = w.events.iter().filter(|event| matches!(event, Event::PushAckWithheld { .. })).count();
        prop_assert!(silent <= withheld, "{} are neither acknowledged nor counted", silent - withheld);
    }
}
