use bytes::Bytes;
use limpet_balancer_core::{DropReason, Source, WorkerId};
use limpet_shared::{
    ContextTime, RadioTime, StationTime,
    gwmp::parse_pull_resp,
    link::{Transmission, Window},
    region::Modulation,
};

use super::world::{World, eui, gwmp, source};

fn one_worker() -> (World, WorkerId) {
    let w = World::with_workers(&["a"]);
    let id = *w.workers.keys().next().unwrap();
    (w, id)
}

fn two_windows(w: &World) -> Vec<limpet_shared::link::Window> {
    vec![w.window(1, 900), w.window(2, 1_900)]
}

#[test]
fn a_downlink_goes_to_the_last_pull_data_and_its_success_is_told_once() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 42, 1, windows);
    let resps = w.pull_resps();
    assert_eq!(resps.len(), 1);
    assert_eq!((resps[0].1, resps[0].3.as_str()), (source(20_001), r#"{"txpk":{"window":1}}"#));
    w.tx_ack(source(20_001), 1, resps[0].2, "");
    w.tx_ack(source(20_001), 1, resps[0].2, "");
    w.run(5_000);
    let acks = w.tx_acks(a);
    assert_eq!(acks.len(), 1);
    assert_eq!(
        (acks[0].key, acks[0].window, acks[0].error.as_str(), &acks[0].context[..]),
        (42, 1, "", &b"context"[..])
    );
    assert_eq!(w.pull_resps().len(), 1);
    assert_eq!(w.balancer.stats().downlinks, 0);
}

#[test]
fn refused_in_rx1_goes_out_in_rx2_and_a_tx_ack_may_come_from_the_push_socket() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 42, 1, windows);
    let token = w.pull_resps()[0].2;
    w.tx_ack(source(9_999), 1, token, r#"{"txpk_ack":{"error":"COLLISION_PACKET"}}"#);
    let resps = w.pull_resps();
    assert_eq!((resps.len(), resps[1].3.as_str()), (2, r#"{"txpk":{"window":2}}"#));
    assert_ne!(resps[1].2, token);
    w.tx_ack(source(9_999), 1, resps[1].2, r#"{"txpk_ack":{"error":"NONE"}}"#);
    let acks = w.tx_acks(a);
    assert_eq!((acks.len(), acks[0].window, acks[0].error.as_str()), (1, 2, ""));
}

#[test]
fn a_gateway_that_refuses_late_leaves_the_last_window_to_another() {
    let late = |others: bool, after_ms: u64| {
        let (mut w, a) = one_worker();
        w.pull(2, 1);
        let windows = two_windows(&w);
        if others {
            w.downlink_of_several(a, 42, 1, windows);
        } else {
            w.downlink(a, 42, 1, windows);
        }
        w.run(after_ms);
        let token = w.pull_resps()[0].2;
        w.tx_ack(source(1), 1, token, r#"{"txpk_ack":{"error":"TOO_LATE"}}"#);
        let told: Vec<_> = w.tx_acks(a).iter().map(|ack| (ack.window, ack.error.clone())).collect();
        (w.pull_resps().len(), told)
    };
    let told = vec![(1, String::from("TOO_LATE"))];
    assert_eq!(late(true, 1_000), (1, told), "there are 900 ms left, and the next refusal would take a second too");
    assert_eq!(late(true, 100), (2, vec![]), "it is quick: another can be asked after the next refusal");
    assert_eq!(late(false, 1_000), (2, vec![]), "there is no other");
    assert_eq!(late(true, 1_750), (2, vec![]), "no other can be asked any more");
}

#[test]
fn refused_in_both_windows_is_told_in_the_gateways_words() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 42, 1, windows);
    for n in 0..2 {
        let token = w.pull_resps()[n].2;
        w.tx_ack(source(1), 1, token, r#"{"txpk_ack":{"error":"TX_FREQ"}}"#);
    }
    let acks = w.tx_acks(a);
    assert_eq!((acks.len(), acks[0].window, acks[0].error.as_str()), (1, 2, "TX_FREQ"));
}

#[test]
fn one_key_goes_out_once_whoever_sends_it_again() {
    let mut w = World::with_workers(&["a", "b"]);
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(ids[0], 42, 1, windows.clone());
    w.downlink(ids[1], 42, 1, windows.clone());
    assert_eq!(w.pull_resps().len(), 1);
    let token = w.pull_resps()[0].2;
    w.tx_ack(source(1), 1, token, "");
    assert_eq!(w.tx_acks(ids[1]).len(), 1, "whoever asked last is told");
    w.downlink(ids[0], 42, 1, windows.clone());
    assert_eq!(w.pull_resps().len(), 1);
    assert_eq!(w.tx_acks(ids[0]).len(), 1, "a copy of a settled one is told what became of it");
    w.downlink(ids[0], 43, 1, windows);
    assert_eq!(w.pull_resps().len(), 2, "another key is another downlink");
}

#[test]
fn too_late_is_refused_here_after_the_next_window_was_tried() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = vec![w.window(1, 90), w.window(2, 1_090)];
    w.downlink(a, 1, 1, windows);
    assert_eq!(w.pull_resps()[0].3, r#"{"txpk":{"window":2}}"#);
    let windows = vec![w.window(1, 0), w.window(2, 99)];
    w.downlink(a, 2, 1, windows);
    assert_eq!(w.pull_resps().len(), 1);
    let acks = w.tx_acks(a);
    assert_eq!((acks[0].key, acks[0].error.as_str()), (2, "TOO_LATE"));
}

#[test]
fn no_pull_data_for_ninety_seconds_is_no_route() {
    let (mut w, a) = one_worker();
    w.push(1, 1);
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    w.pull(2, 1);
    w.run(89_990);
    let windows = two_windows(&w);
    w.downlink(a, 2, 1, windows);
    w.run(20);
    let windows = two_windows(&w);
    w.downlink(a, 3, 1, windows);
    let errors: Vec<_> = w.tx_acks(a).into_iter().map(|t| (t.key, t.error)).collect();
    assert_eq!(errors, [(1, "NO_ROUTE".into()), (3, "NO_ROUTE".into())]);
    assert_eq!(w.pull_resps().len(), 1);
}

#[test]
fn a_version_1_gateway_is_told_late_and_its_silence_is_no_refusal() {
    let (mut w, a) = one_worker();
    w.pull(1, 1);
    let (start, windows) = (w.ms, two_windows(&w));
    w.downlink(a, 1, 1, windows);
    assert!(w.pull_resps().is_empty());
    w.run(4_000);
    let resps = w.pull_resps();
    assert_eq!((resps.len(), resps[0].0), (1, start + 100), "800 ms before its window, and once");
    assert_eq!(w.udp.last().unwrap().2[0], 1, "in its own version");
    let acks = w.tx_acks(a);
    assert_eq!((acks.len(), acks[0].error.as_str(), acks[0].window), (1, "NO_ANSWER", 1));
}

#[test]
fn silence_is_a_refusal_only_from_a_gateway_that_has_answered_before() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    w.run(3_000);
    assert_eq!(w.pull_resps().len(), 1, "never answered: RX1 may well be on air");
    assert_eq!(w.tx_acks(a)[0].error, "NO_ANSWER");

    let windows = two_windows(&w);
    w.downlink(a, 2, 1, windows);
    let token = w.pull_resps()[1].2;
    w.tx_ack(source(1), 1, token, "");
    let (start, windows) = (w.ms, two_windows(&w));
    w.downlink(a, 3, 1, windows);
    w.run(3_000);
    let resps = w.pull_resps();
    assert_eq!(resps.len(), 4);
    assert_eq!((resps[3].0, resps[3].3.as_str()), (start + 250, r#"{"txpk":{"window":2}}"#));
    let acks = w.tx_acks(a);
    assert_eq!((acks[2].key, acks[2].error.as_str(), acks[2].window), (3, "NO_ANSWER", 2));
}

#[test]
fn a_late_success_of_rx1_settles_the_downlink() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    let token = w.pull_resps()[0].2;
    w.tx_ack(source(1), 1, token, "");
    let windows = two_windows(&w);
    w.downlink(a, 2, 1, windows);
    w.run(300);
    let resps = w.pull_resps();
    assert_eq!(resps.len(), 3);
    w.tx_ack(source(1), 1, resps[1].2, "");
    let acks = w.tx_acks(a);
    assert_eq!((acks[1].key, acks[1].window, acks[1].error.as_str()), (2, 1, ""));
}

#[test]
fn at_once_means_at_once() {
    let (mut w, a) = one_worker();
    w.pull(1, 1);
    let mut window = w.window(0, 0);
    window.at = 0;
    w.downlink(a, 1, 1, vec![window]);
    assert_eq!(w.pull_resps().len(), 1);
}

#[test]
fn what_became_of_a_dead_workers_downlink_is_told_to_another() {
    let mut w = World::with_workers(&["a", "b"]);
    let ids: Vec<WorkerId> = w.workers.keys().copied().collect();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(ids[0], 42, 1, windows);
    w.close(ids[0]);
    let token = w.pull_resps()[0].2;
    w.tx_ack(source(1), 1, token, "");
    assert_eq!(w.tx_acks(ids[1]).len(), 1);
}

#[test]
fn a_tx_ack_that_nobody_asked_for_is_counted() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    w.tx_ack(source(1), 1, 5, "");
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    let token = w.pull_resps()[0].2;
    w.tx_ack(source(1), 1, token, "{");
    w.tx_ack(source(2), 2, token, "");
    use limpet_balancer_core::DropReason::*;
    assert_eq!(w.drops.iter().map(|d| d.0).collect::<Vec<_>>(), [TxAckUnmatched, TxAckMalformed, TxAckAddress]);
    assert!(w.tx_acks(a).is_empty());
}

fn elsewhere(host: u8) -> Source {
    Source { socket: 0, address: ([203, 0, 113, host], 1_700).into(), local: None }
}

#[test]
fn a_pull_data_in_a_gateways_name_gets_a_copy_and_diverts_nothing() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    // However many there are, each as fresh as the other.
    for host in 1..20 {
        w.run(1_000);
        w.datagram(elsewhere(host), gwmp(2, 1, 2, eui(1), b""));
    }
    let windows = two_windows(&w);
    w.downlink(a, 42, 1, windows);
    let resps = w.pull_resps();
    let to: Vec<Source> = resps.iter().map(|resp| resp.1).collect();
    assert_eq!(to, [source(20_001), elsewhere(19), elsewhere(18)], "the gateway first, and two who may be it");
    assert!(resps.iter().all(|resp| resp.3 == resps[0].3), "the same bytes");
    w.tx_ack(elsewhere(7), 1, resps[0].2, "");
    assert_eq!(w.drops.last().unwrap().0, DropReason::TxAckAddress, "who has not asked for it answers nothing");
    w.tx_ack(source(20_001), 1, resps[0].2, "");
    assert_eq!(w.tx_acks(a).len(), 1);
}

/// The version that a PULL_RESP is written in, and its JSON.
type Told = (u8, String);
/// The window that a worker was told of, and its error.
type Fate = (u32, String);

/// Somebody asks in the gateway's name, in version 1, and answers at once with `error` whatever he is sent; the gateway
/// answers after 600 ms with `own`. What the gateway was told to transmit, and what the worker was told.
fn beside_a_stranger(error: &str, own: &'static str) -> (Vec<Told>, Vec<Fate>) {
    let (mut w, a) = one_worker();
    // It is known to answer, and slowly.
    for key in 0..2 {
        w.pull(2, 1);
        let (sent, windows) = (w.pull_resps().len(), two_windows(&w));
        w.downlink(a, key, 1, windows);
        run_answering(&mut w, sent, 600, |_| "");
    }
    w.pull(2, 1);
    w.datagram(elsewhere(1), gwmp(1, 1, 2, eui(1), b""));
    let (before, told) = (w.pull_resps().len(), w.tx_acks(a).len());
    let windows = vec![w.window(1, 4_900), w.window(2, 5_900)];
    w.downlink(a, 42, 1, windows);
    let (mut answered, end) = (before, w.ms + 8_000);
    let mut due: Vec<(u64, u16)> = Vec::new();
    while w.ms < end {
        for resp in w.pull_resps().into_iter().skip(answered) {
            answered += 1;
            match resp.1 == elsewhere(1) {
                true => w.tx_ack(elsewhere(1), 1, resp.2, error),
                false => due.push((w.ms + 600, resp.2)),
            }
        }
        let ms = w.ms;
        for (_, token) in due.extract_if(.., |(at, _)| *at <= ms) {
            w.tx_ack(source(1), 1, token, own);
        }
        w.run(10);
    }
    let sent = w
        .pull_resps_to(source(20_001))
        .into_iter()
        .skip(2)
        .map(|bytes| (bytes[0], String::from_utf8(bytes[4..].to_vec()).unwrap()));
    let acks = w.tx_acks(a).into_iter().skip(told).map(|ack| (ack.window, ack.error));
    (sent.collect(), acks.collect())
}

#[test]
fn a_stranger_answers_nothing_for_the_gateway_and_changes_no_byte_of_what_it_is_sent() {
    let once = vec![(2, RX1.to_owned())];
    let twice = vec![(2, RX1.to_owned()), (2, RX2.to_owned())];
    assert_eq!(beside_a_stranger(REFUSED, ""), (once.clone(), vec![(1, String::new())]), "his refusal");
    assert_eq!(beside_a_stranger("", ""), (once, vec![(1, String::new())]), "his success");
    let (sent, acks) = beside_a_stranger("", REFUSED);
    assert_eq!((sent, acks), (twice, vec![(2, "COLLISION_PACKET".to_owned())]), "his success, and the gateway refuses");
}

#[test]
fn who_has_moved_is_believed_where_the_old_address_says_nothing() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    w.run(10_000);
    w.datagram(elsewhere(1), gwmp(2, 1, 2, eui(1), b""));
    let windows = two_windows(&w);
    w.downlink(a, 42, 1, windows);
    let token = w.pull_resps()[1].2;
    w.tx_ack(elsewhere(1), 1, token, "");
    w.run(5_000);
    let acks = w.tx_acks(a);
    assert_eq!((acks.len(), acks[0].window, acks[0].error.as_str()), (1, 1, ""));
    assert_eq!(w.pull_resps().len(), 2, "RX1 to both, and no RX2");
}

#[test]
fn a_gateway_that_moves_is_answered_where_it_is_now() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    w.run(10_000);
    w.datagram(elsewhere(1), gwmp(2, 1, 2, eui(1), b""));
    for _ in 0..9 {
        w.run(10_000);
        w.datagram(elsewhere(1), gwmp(2, 1, 2, eui(1), b""));
    }
    let windows = two_windows(&w);
    w.downlink(a, 42, 1, windows);
    assert_eq!(w.pull_resps().iter().map(|resp| resp.1).collect::<Vec<_>>(), [elsewhere(1)]);
}

/// Answers everything that a gateway was sent, each so long after it came, for as long as there is something. Numbers of the
/// windows that went on air, in order.
fn run_answering(w: &mut World, first: usize, delay: u64, error: impl Fn(usize) -> &'static str) -> Vec<String> {
    let (mut answered, end) = (first, w.ms + 4_000);
    while w.ms < end {
        w.run(10);
        let resps = w.pull_resps();
        if let Some(resp) = resps.get(answered).filter(|resp| w.ms >= resp.0 + delay) {
            w.tx_ack(source(1), 1, resp.2, error(answered - first));
            answered += 1;
        }
    }
    w.pull_resps().into_iter().skip(first).map(|resp| resp.3).collect()
}

const RX1: &str = r#"{"txpk":{"window":1}}"#;
const RX2: &str = r#"{"txpk":{"window":2}}"#;
const REFUSED: &str = r#"{"txpk_ack":{"error":"COLLISION_PACKET"}}"#;

#[test]
fn a_gateway_behind_a_slow_line_transmits_each_downlink_once() {
    // Delays of the TX_ACK in ms; the first is from when the gateway's silence means nothing yet.
    for delay in [20, 240, 400, 600, 800, 1_200, 1_900] {
        let (mut w, a) = one_worker();
        for key in 0..10 {
            w.pull(2, 1);
            let (sent, windows) = (w.pull_resps().len(), two_windows(&w));
            w.downlink(a, key, 1, windows);
            assert_eq!(run_answering(&mut w, sent, delay, |_| ""), [RX1], "downlink {key}, TX_ACK after {delay} ms");
        }
        let acks = w.tx_acks(a);
        let last = |key| acks.iter().rfind(|ack| ack.key == key).map(|ack| (ack.window, ack.error.as_str()));
        for key in 0..10 {
            assert!(delay > 1_400 && key == 0 || last(key) == Some((1, "")), "{delay} ms: {:?}", last(key));
        }
    }
}

#[test]
fn after_a_slow_answer_a_refusal_still_turns_to_rx2_and_silence_does_if_there_is_time() {
    // (TX_ACK of the one before, windows in so many ms, what follows an RX1 without answer and when)
    for (slow, rx1, rx2_after) in
        [(20, 900, Some(250)), (600, 900, Some(1_200)), (900, 900, None), (600, 400, Some(1_200)), (600, 399, None)]
    {
        let (mut w, a) = one_worker();
        w.pull(2, 1);
        let windows = two_windows(&w);
        w.downlink(a, 1, 1, windows);
        run_answering(&mut w, 0, slow, |_| "");
        let (start, windows) = (w.ms, vec![w.window(1, rx1), w.window(2, rx1 + 1_000)]);
        w.downlink(a, 2, 1, windows);
        w.run(4_000);
        let after = w.pull_resps().get(2).map(|resp| resp.0 - start);
        assert_eq!(after, rx2_after, "{slow} ms, RX1 in {rx1} ms");
        let acks = w.tx_acks(a);
        assert_eq!((acks[1].error.as_str(), acks[1].assumed), ("NO_ANSWER", false));

        let (sent, windows) = (w.pull_resps().len(), two_windows(&w));
        w.downlink(a, 3, 1, windows);
        let aired = run_answering(&mut w, sent, slow, |n| if n == 0 { REFUSED } else { "" });
        assert_eq!(aired, [RX1, RX2], "refused after {slow} ms");
        assert_eq!(w.tx_acks(a).last().map(|ack| (ack.window, ack.error.as_str())), Some((2, "")));
    }
}

#[test]
fn an_answer_after_all_was_given_up_says_that_it_was_sent_and_only_once() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    run_answering(&mut w, 0, 20, |_| "");
    let windows = vec![w.window(1, 900)];
    w.downlink(a, 2, 1, windows);
    w.run(2_000);
    let token = w.pull_resps()[1].2;
    assert_eq!(w.tx_acks(a)[1].error, "NO_ANSWER");
    w.tx_ack(source(1), 1, token, "");
    w.tx_ack(source(1), 1, token, "");
    let acks = w.tx_acks(a);
    assert_eq!(acks.len(), 3, "{acks:?}");
    assert_eq!(
        (acks[2].key, acks[2].window, acks[2].error.as_str(), &acks[2].context[..]),
        (2, 1, "", &b"context"[..])
    );
    let windows = vec![w.window(1, 900)];
    w.downlink(a, 2, 1, windows);
    assert_eq!((w.pull_resps().len(), w.drops.len()), (2, 0), "known to be on air, and every answer is known");
}

#[test]
fn silence_in_rx1_and_a_refusal_of_rx2_is_no_refusal() {
    for rx1_answers_later in ["", REFUSED, "never"] {
        let (mut w, a) = one_worker();
        w.pull(2, 1);
        let windows = two_windows(&w);
        w.downlink(a, 1, 1, windows);
        run_answering(&mut w, 0, 20, |_| "");
        let windows = two_windows(&w);
        w.downlink(a, 2, 1, windows);
        w.run(260);
        let resps = w.pull_resps();
        assert_eq!(resps[2].3, RX2);
        w.tx_ack(source(1), 1, resps[2].2, REFUSED);
        assert_eq!(w.tx_acks(a).len(), 1, "RX1 may be on air");
        if rx1_answers_later != "never" {
            w.tx_ack(source(1), 1, resps[1].2, rx1_answers_later);
        }
        w.run(4_000);
        let acks = w.tx_acks(a);
        let expected = match rx1_answers_later {
            "" => (1, ""),
            "never" => (2, "NO_ANSWER"),
            _ => (2, "COLLISION_PACKET"),
        };
        assert_eq!((acks.len(), (acks[1].window, acks[1].error.as_str())), (2, expected));
        assert_eq!(w.balancer.stats().downlinks, 0);
    }
}

#[test]
fn a_gateway_that_makes_up_tokens_is_understood_where_there_is_one_thing_to_answer() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let made_up = |w: &World| w.pull_resps().iter().map(|resp| resp.2).fold(1, |at, token| at.max(token % 7_919 + 1));
    // Refused: the next window, and then the gateway's word.
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    let token = made_up(&w);
    w.tx_ack(source(1), 1, token, REFUSED);
    assert_eq!(w.pull_resps().len(), 2);
    w.tx_ack(source(1), 1, token, REFUSED);
    assert_eq!(w.tx_acks(a).last().map(|ack| (ack.key, ack.error.as_str())), Some((1, "COLLISION_PACKET")));
    // Two at a time: which is meant cannot be told, and so silence is taken as transmitted.
    for key in [2, 3] {
        let windows = two_windows(&w);
        w.downlink(a, key, 1, windows);
    }
    let token = made_up(&w);
    w.tx_ack(source(1), 1, token, REFUSED);
    assert_eq!(w.drops.last().map(|drop| drop.0), Some(DropReason::TxAckUnmatched));
    w.run(4_000);
    assert_eq!(w.pull_resps().len(), 4, "each once");
    let acks = w.tx_acks(a);
    assert!(acks[1..].iter().all(|ack| ack.error == "NO_ANSWER" && ack.assumed), "{acks:?}");
}

#[test]
fn under_a_made_up_token_nobody_answers_but_who_pulls_where_the_gateway_is() {
    for error in ["", REFUSED] {
        let (mut w, a) = one_worker();
        w.pull(2, 1);
        // He asks for its downlinks, and pushes while it does not.
        w.datagram(elsewhere(1), gwmp(2, 1, 2, eui(1), b""));
        w.datagram(elsewhere(2), gwmp(2, 1, 0, eui(1), b"{}"));
        let windows = two_windows(&w);
        w.downlink(a, 1, 1, windows);
        let (sent, tokens) = (w.pull_resps().len(), w.pull_resps().iter().map(|resp| resp.2).collect::<Vec<_>>());
        let made_up = (1..).find(|token| !tokens.contains(token)).unwrap();
        for host in [1, 2] {
            w.tx_ack(elsewhere(host), 1, made_up, error);
            assert_eq!(w.drops.last().map(|drop| drop.0), Some(DropReason::TxAckUnmatched));
        }
        assert_eq!((w.pull_resps().len(), w.tx_acks(a).len()), (sent, 0), "no RX2, and no word of its fate");
        w.tx_ack(source(1), 1, made_up, "");
        let acks = w.tx_acks(a);
        assert_eq!((acks.len(), acks[0].window, acks[0].error.as_str()), (1, 1, ""), "the gateway's own word counts");
    }
}

#[test]
fn a_token_that_is_not_ours_takes_the_meaning_from_a_gateways_silence() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let windows = two_windows(&w);
    w.downlink(a, 1, 1, windows);
    let token = w.pull_resps()[0].2;
    w.tx_ack(source(1), 1, token, "");
    w.tx_ack(source(1), 1, token ^ 1, "");
    let windows = two_windows(&w);
    w.downlink(a, 2, 1, windows);
    w.run(4_000);
    assert_eq!(w.pull_resps().len(), 2, "no RX2 after silence");
    assert!(w.tx_acks(a)[1].assumed);
}

/// The window as a worker of today tells it: the balancer writes it as the gateway's kind wants it.
fn timed(w: &World, number: u32, in_ms: u64, time: RadioTime) -> Window {
    let of = Transmission { time: Some(time), frequency: 868_100_000, power: 14, ..Transmission::default() };
    let transmission = of.modulated(Modulation::Lora { spreading_factor: 7, bandwidth_khz: 125 });
    Window { json: Bytes::new(), transmission, ..w.window(number, in_ms) }
}

#[test]
fn a_downlink_is_written_for_the_kind_of_its_gateway_and_another_kind_is_refused() {
    let (mut w, a) = one_worker();
    w.pull(2, 1);
    let station = RadioTime::Station(StationTime { xtime: 5, rctx: 1, delay: 1_000_000 });
    let context = RadioTime::Context(ContextTime { context: vec![1], delay: 2_000_000 });
    // What this gateway understands goes out, whatever stands beside it.
    let windows = vec![timed(&w, 1, 900, station.clone()), timed(&w, 2, 1_900, RadioTime::Counter(77))];
    w.downlink(a, 42, 1, windows);
    let sent = w.pull_resps();
    let txpk = parse_pull_resp(sent[0].3.as_bytes()).unwrap();
    assert_eq!((sent.len(), txpk.tmst, txpk.freq, txpk.data), (1, Some(77), 868_100_000, b"phy".to_vec()));
    w.tx_ack(source(20_001), 1, sent[0].2, "");
    let windows = vec![timed(&w, 1, 900, station), timed(&w, 2, 1_900, context)];
    w.downlink(a, 43, 1, windows);
    assert_eq!(w.pull_resps().len(), 1);
    assert_eq!(w.drops, [(DropReason::DownlinkOtherKind, Some(eui(1)))]);
    let acks = w.tx_acks(a);
    assert_eq!((acks.len(), acks[1].key, acks[1].error.as_str()), (2, 43, "OTHER_KIND"));
}
