//! Messages of the link as a later version would write them: whatever this version knows, and more beside it. Shared by
//! the test of the messages and by that of servers which speak them.

use prost::Message;

/// A kind that this version does not know.
pub const UNKNOWN: u8 = 31;

/// One field of each wire type, under numbers that a later version may give.
#[derive(Clone, PartialEq, Message)]
pub struct Added {
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

pub fn added() -> Added {
    let inner = Added { number: 7, ..Added::default() };
    let message = Some(Box::new(inner));
    Added { number: u64::MAX, text: "later".into(), message, wide: 1, narrow: 2, list: vec![1, 2, 3], real: 0.5 }
}

/// A message of the kind with this number, with its length before it: added fields stand in its content, and beside it.
pub fn newer_of_kind(tag: u8, content: &[u8]) -> Vec<u8> {
    let content = [content, &added().encode_to_vec()].concat();
    let mut wire = Vec::new();
    // Field number and wire type 2.
    prost::encoding::encode_varint(u64::from(tag) << 3 | 2, &mut wire);
    prost::encoding::encode_varint(content.len() as u64, &mut wire);
    wire.extend(content);
    newer(&wire)
}

/// A message that has no kinds, with its length before it and with added fields.
pub fn newer(message: &[u8]) -> Vec<u8> {
    let wire = [message, &added().encode_to_vec()].concat();
    [&(wire.len() as u32).to_be_bytes()[..], &wire].concat()
}

/// The number of a kind, and its content, taken from what this version writes.
pub fn parts(message: &impl Message) -> (u8, Vec<u8>) {
    let wire = message.encode_to_vec();
    let mut rest = &wire[..];
    let key = prost::encoding::decode_varint(&mut rest).unwrap();
    let len = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
    assert_eq!(rest.len(), len, "one kind and nothing else");
    ((key >> 3) as u8, rest.to_vec())
}
