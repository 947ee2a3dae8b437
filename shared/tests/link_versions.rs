//! A rolling upgrade mixes versions N and N+1 of the link's messages: what a newer version adds is passed over, and what
//! an older one does not say is as it was before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "newer/messages.rs"]
mod messages;

use bytes::{Bytes, BytesMut};
use limpet_shared::{
    RadioTime,
    link::{self, ToBalancer, ToWorker, to_balancer, to_worker},
};
use messages::{UNKNOWN, added, newer_of_kind, parts};
use prost::Message;

/// A message of the kind with this number, its content as a newer version would write it, as it comes off a stream.
fn newer(tag: u8, content: &[u8]) -> Bytes {
    let mut stream = BytesMut::from(&newer_of_kind(tag, content)[..]);
    link::next_message(&mut stream).unwrap().unwrap()
}

#[test]
fn what_a_newer_version_adds_to_a_message_is_passed_over() {
    use to_balancer::Kind as B;
    use to_worker::Kind as W;
    let weight = link::Weight { number: 3, weight: 50, ready: true, drained: Some(true), ..Default::default() };
    let transmission = Some(link::Transmission { time: Some(RadioTime::Counter(0)), ..Default::default() });
    let window = link::Window { number: 1, at: 5, json: Bytes::from_static(b"{}"), transmission };
    let known = link::KnownGateway { eui: 9, policy: "off".into() };
    let to_balancer = [
        B::Hello(link::Hello { version: 2, name: "w".into(), weight: Some(weight.clone()), ..Default::default() }),
        B::Cluster(link::Cluster { version: 4, gateways: vec![known.clone()], ..Default::default() }),
        B::ClusterDelta(link::ClusterDelta { from: 1, to: 2, add: vec![known], remove: vec![5] }),
        B::Weight(weight),
        B::Alive(link::Alive { in_flight: 3, asked_at: 9 }),
        B::Downlink(link::Downlink { key: 1, gateway: 2, windows: vec![window], ..Default::default() }),
        B::Drain(link::Drain { on: true, ..Default::default() }),
        B::Renew(link::Renew { csr: Bytes::from_static(b"csr") }),
        B::Admin(link::Admin { id: 1, request: "{}".into() }),
        B::AdminReply(link::AdminReply { id: 1, reply: "{}".into() }),
    ];
    for message in to_balancer.map(ToBalancer::from) {
        let (tag, content) = parts(&message);
        assert_eq!(ToBalancer::decode(newer(tag, &content)).unwrap(), message);
    }
    let to_worker = [
        W::Welcome(link::Welcome { version: 2, name: "b".into(), instance: 7, ..Default::default() }),
        W::Refused(link::Refused { reason: "no".into(), retry: true, linked: 7, ..Default::default() }),
        W::Trust(link::Trust { since: 3, ca: "new".into(), former: "old".into(), known: vec!["00".into()] }),
        W::ClusterHave(link::ClusterHave { version: 3, digest: Some(7) }),
        W::GatewaySeen(link::GatewaySeen { eui: 1, address: "192.0.2.1:1".into(), at: 5, version: 2 }),
        W::TxAck(link::TxAck { key: 1, gateway: 2, error: "TOO_LATE".into(), ..Default::default() }),
        W::Drain(link::Drain { on: true, remembered: true }),
        W::Remove(link::Remove {}),
        W::Suspects(link::Suspects { names: vec!["a".into()] }),
        W::Renewed(link::Renewed { certificate: "pem".into() }),
        W::Admin(link::Admin { id: 1, request: "{}".into() }),
        W::AdminReply(link::AdminReply { id: 1, reply: "{}".into() }),
        W::Sightings(link::Sightings { gateways: vec![1, 2], ages: vec![0, 9] }),
        W::Spare(link::Spare { names: vec!["a".into()] }),
        W::Clock(link::Clock { asked_at: 9, now: 5 }),
    ];
    for message in to_worker.map(ToWorker::from) {
        let (tag, content) = parts(&message);
        assert_eq!(ToWorker::decode(newer(tag, &content)).unwrap(), message);
    }
    let ack = link::Ack { received: 9, stored: vec![7], done: vec![6] };
    let wire = [ack.encode_to_vec(), added().encode_to_vec()].concat();
    assert_eq!(link::Ack::decode(&wire[..]).unwrap(), ack);
}

/// Their numbers are not given again: versions that write them may be on the other side.
#[test]
fn what_was_taken_out_of_messages_is_passed_over() {
    let ack = link::Ack::decode(&[0x08, 9, 0x22, 1, 8][..]).unwrap();
    assert_eq!(ack, link::Ack { received: 9, ..Default::default() });
    let cluster = link::Cluster::decode(&[0x08, 4, 0x22, 1, b'w', 0x2a, 1, b'b'][..]).unwrap();
    assert_eq!(cluster, link::Cluster { version: 4, ..Default::default() });
    assert_eq!(ToWorker::decode(newer(5, b"")).unwrap().kind, None);
}

/// Both sides leave such a message alone and go on.
#[test]
fn a_kind_that_only_a_newer_version_knows_is_no_kind_and_no_error() {
    assert_eq!(ToBalancer::decode(newer(UNKNOWN, b"")).unwrap().kind, None);
    assert_eq!(ToWorker::decode(newer(UNKNOWN, b"")).unwrap().kind, None);
    let message = added().encode_to_vec();
    assert_eq!(ToWorker::decode(&message[..]).unwrap().kind, None);
    assert_eq!(ToBalancer::decode(&message[..]).unwrap().kind, None);
}

#[test]
fn what_an_older_version_does_not_say_is_as_it_was() {
    let weight = link::Weight { number: 1, weight: 100, ready: true, ..Default::default() };
    assert_eq!((weight.drained, weight.overloaded, weight.spare), (None, false, false));
    // Number, weight and readiness, as the first version wrote them.
    let first = [0x08, 1, 0x10, 100, 0x18, 1];
    assert_eq!(link::Weight::decode(&first[..]).unwrap(), weight);
    // A downlink's window, written whole by the worker.
    let window = link::Window::decode(&[0x08, 1, 0x10, 5, 0x1a, 2, b'{', b'}'][..]).unwrap();
    assert_eq!((window.number, window.at, &window.json[..], window.transmission), (1, 5, &b"{}"[..], None));
    let gateway = link::KnownGateway::decode(&[0x09, 9, 0, 0, 0, 0, 0, 0, 0][..]).unwrap();
    assert_eq!((gateway.eui, gateway.policy.as_str()), (9, ""));
}
