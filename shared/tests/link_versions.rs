//! A rolling upgrade mixes versions N and N+1 of the link's messages: what a newer version adds is passed over, and what
//! an older one does not say is as it was before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use limpet_shared::link::{self, ToBalancer, ToWorker, to_balancer, to_worker};
use prost::Message;

/// One field of each wire type, under numbers that a later version may give.
#[derive(Clone, PartialEq, Message)]
struct Added {
    #[prost(uint64, tag = "1000")]
    number: u64,
    #[prost(string, tag = "1001")]
    text: String,
    #[prost(message, optional, boxed, tag = "1002")]
    message: Option<Box<Added>>,
    #[prost(fixed64, tag = "1003")]
    wide: u64,
    #[prost(fixed32, tag = "1004")]
    narrow: u32,
    #[prost(uint32, repeated, tag = "1005")]
    list: Vec<u32>,
    #[prost(double, tag = "1006")]
    real: f64,
}

fn added() -> Added {
    let inner = Added { number: 7, ..Added::default() };
    let message = Some(Box::new(inner));
    Added { number: u64::MAX, text: "later".into(), message, wide: 1, narrow: 2, list: vec![1, 2, 3], real: 0.5 }
}

/// A message of the kind with this number, its content as a newer version would write it, beside which stands more.
fn newer(tag: u8, content: &[u8]) -> Bytes {
    let content = [content, &added().encode_to_vec()].concat();
    let mut wire = Vec::new();
    // Field number and wire type 2 in one byte: all our numbers are below 16.
    wire.push(tag << 3 | 2);
    prost::encoding::encode_varint(content.len() as u64, &mut wire);
    wire.extend(content);
    wire.extend(added().encode_to_vec());
    // As it comes off a stream.
    let mut stream = BytesMut::new();
    stream.extend((wire.len() as u32).to_be_bytes());
    stream.extend(wire);
    link::next_message(&mut stream).unwrap().unwrap()
}

/// The number of a kind, and its content, taken from what this version writes.
fn parts(message: &impl Message) -> (u8, Vec<u8>) {
    let wire = message.encode_to_vec();
    let mut rest = &wire[1..];
    let len = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
    assert_eq!(rest.len(), len, "one kind and nothing else");
    (wire[0] >> 3, rest.to_vec())
}

#[test]
fn what_a_newer_version_adds_to_a_message_is_passed_over() {
    use to_balancer::Kind as B;
    use to_worker::Kind as W;
    let weight = link::Weight { number: 3, weight: 50, ready: true, drained: Some(true), ..Default::default() };
    let window = link::Window { number: 1, at: 5, json: Bytes::from_static(b"{}") };
    let known = link::KnownGateway { eui: 9, policy: "off".into() };
    let to_balancer = [
        B::Hello(link::Hello { version: 2, name: "w".into(), weight: Some(weight.clone()), ..Default::default() }),
        B::Cluster(link::Cluster { version: 4, gateways: vec![known.clone()], ..Default::default() }),
        B::ClusterDelta(link::ClusterDelta { from: 1, to: 2, add: vec![known], remove: vec![5] }),
        B::Weight(weight),
        B::Alive(link::Alive { in_flight: 3 }),
        B::Downlink(link::Downlink { key: 1, gateway: 2, windows: vec![window], ..Default::default() }),
        B::Drain(link::Drain { on: true }),
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
        W::ClusterHave(link::ClusterHave { version: 3 }),
        W::GatewaySeen(link::GatewaySeen { eui: 1, address: "192.0.2.1:1".into(), at: 5, version: 2 }),
        W::UnknownGateway(link::UnknownGateway { eui: 1, address: "192.0.2.1:1".into(), at: 5 }),
        W::TxAck(link::TxAck { key: 1, gateway: 2, error: "TOO_LATE".into(), ..Default::default() }),
        W::Drain(link::Drain { on: true }),
        W::Remove(link::Remove {}),
        W::Suspects(link::Suspects { names: vec!["a".into()] }),
        W::Renewed(link::Renewed { certificate: "pem".into() }),
        W::Admin(link::Admin { id: 1, request: "{}".into() }),
        W::AdminReply(link::AdminReply { id: 1, reply: "{}".into() }),
        W::Sightings(link::Sightings { gateways: vec![1, 2], ages: vec![0, 9] }),
        W::Spare(link::Spare { names: vec!["a".into()] }),
    ];
    for message in to_worker.map(ToWorker::from) {
        let (tag, content) = parts(&message);
        assert_eq!(ToWorker::decode(newer(tag, &content)).unwrap(), message);
    }
    let ack = link::Ack { received: 9, stored: vec![7], done: vec![6], failed: vec![8] };
    let wire = [ack.encode_to_vec(), added().encode_to_vec()].concat();
    assert_eq!(link::Ack::decode(&wire[..]).unwrap(), ack);
}

/// Both sides leave such a message alone and go on.
#[test]
fn a_kind_that_only_a_newer_version_knows_is_no_kind_and_no_error() {
    assert_eq!(ToBalancer::decode(newer(15, b"")).unwrap().kind, None);
    assert_eq!(ToWorker::decode(newer(15, b"")).unwrap().kind, None);
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
    let gateway = link::KnownGateway::decode(&[0x09, 9, 0, 0, 0, 0, 0, 0, 0][..]).unwrap();
    assert_eq!((gateway.eui, gateway.policy.as_str()), (9, ""));
}
