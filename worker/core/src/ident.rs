//! Identities that any worker computes alike: hashes of what they stand for.

use limpet_shared::{AesKey, DevAddr, Eui64, RadioTime, UnixMicros};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::model::{DedupKey, RxInfo, SessionId, SessionKey};

/// A SHA-256 over parts that cannot run into each other: each is preceded by its length.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

fn first<const N: usize>(digest: [u8; 32]) -> [u8; N] {
    core::array::from_fn(|i| digest[i])
}

/// What the copies of one transmission share: the PHYPayload. A strong signal is heard on channels that it was not sent on.
pub fn dedup_key(phy: &[u8]) -> DedupKey {
    let digest = hash(&[b"dedup", phy]);
    DedupKey(u128::from_be_bytes(first(digest)))
}

/// Tells two receptions of equal bytes at one gateway apart. A redelivery has equal parts, hence the same context.
pub fn reception_context(received_at: u64, channel: (u32, u8), rx: &RxInfo) -> u64 {
    let bytes = |value: Option<u32>| {
        value.map_or([0; 5], |v| {
            let [a, b, c, d] = v.to_be_bytes();
            [1, a, b, c, d]
        })
    };
    let radio = match &rx.radio {
        None => bytes(None).to_vec(),
        Some(RadioTime::Counter(counter)) => bytes(Some(*counter)).to_vec(),
        Some(other) => [&[2][..], &other.to_context()].concat(),
    };
    let (frequency, data_rate) = channel;
    let parts: [&[u8]; 7] = [
        b"context",
        &received_at.to_be_bytes(),
        &frequency.to_be_bytes(),
        &[data_rate],
        &radio,
        &bytes(rx.board),
        &bytes(rx.antenna),
    ];
    u64::from_be_bytes(first(hash(&parts)))
}

/// The session that a join makes. `join_nonce` is never used twice for a device, so neither is the id; `since`, when the
/// JoinRequest was received, tells a device from its namesake that was deleted.
pub fn joined_session(dev_eui: Eui64, dev_nonce: u16, join_nonce: u32, since: UnixMicros) -> SessionId {
    let (device, since) = (dev_eui.0.to_be_bytes(), since.0.to_be_bytes());
    let parts: [&[u8]; 5] = [b"join", &device, &dev_nonce.to_be_bytes(), &join_nonce.to_be_bytes(), &since];
    SessionId(u64::from_be_bytes(first(hash(&parts))))
}

/// The session that an activation by personalization makes; `revision` is that of the device's state, `since` when it was.
pub fn personalized_session(dev_eui: Eui64, dev_addr: DevAddr, revision: u64, since: UnixMicros) -> SessionId {
    let (device, since) = (dev_eui.0.to_be_bytes(), since.0.to_be_bytes());
    let parts: [&[u8]; 5] = [b"abp", &device, &dev_addr.0.to_be_bytes(), &revision.to_be_bytes(), &since];
    SessionId(u64::from_be_bytes(first(hash(&parts))))
}

fn session_bytes(key: &SessionKey) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&key.dev_addr.0.to_be_bytes());
    bytes[4..12].copy_from_slice(&key.dev_eui.0.to_be_bytes());
    bytes[12..].copy_from_slice(&key.id.0.to_be_bytes());
    bytes
}

/// `deduplicationId` of an event. `what` names the kind, `resets` and `number` the uplink or downlink in its session.
pub fn event_id(what: &str, key: &SessionKey, resets: u32, number: u32) -> Uuid {
    let digest = hash(&[b"event", what.as_bytes(), &session_bytes(key), &resets.to_be_bytes(), &number.to_be_bytes()]);
    Builder::from_custom_bytes(first(digest)).into_uuid()
}

/// `deduplicationId` of a log event about a transmission of a device that made no other event.
pub fn log_id(dev_eui: Eui64, cause: &str, frame: DedupKey, received_at: UnixMicros) -> Uuid {
    let (device, at) = (dev_eui.0.to_be_bytes(), received_at.0.to_be_bytes());
    let digest = hash(&[b"log", cause.as_bytes(), &device, &frame.0.to_be_bytes(), &at]);
    Builder::from_custom_bytes(first(digest)).into_uuid()
}

/// One of several URLs that an application's events go to.
pub fn endpoint(application: Uuid, url: &str) -> Uuid {
    Builder::from_custom_bytes(first(hash(&[b"endpoint", application.as_bytes(), url.as_bytes()]))).into_uuid()
}

/// Identity of a downlink's bytes: one FCntDown of one session has one (promise 3).
pub fn downlink_key(key: &SessionKey, fcnt_down: u32) -> u64 {
    u64::from_be_bytes(first(hash(&[b"down", &session_bytes(key), &fcnt_down.to_be_bytes()])))
}

/// Tells keys apart without telling them.
pub fn key_print(key: &AesKey) -> u64 {
    u64::from_be_bytes(first(hash(&[b"key", &key.0])))
}

/// A key that nobody knows who does not know this one.
pub fn veil(key: &AesKey) -> [u8; 16] {
    first(hash(&[b"veil", &key.0]))
}

/// Identity of a JoinAccept's bytes.
pub fn accept_key(key: &SessionKey) -> u64 {
    u64::from_be_bytes(first(hash(&[b"accept", &session_bytes(key)])))
}
