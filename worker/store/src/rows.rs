//! The stored form of what every uplink writes: sessions, receptions, events that wait.
//!
//! ```text
//! | u8 version | u32 check | message (protobuf) |   big-endian
//! ```
//!
//! `check` is of the message's bytes, so that a row that is cut off or damaged is an error, and never another row. Protobuf, because a
//! field can be added to it: who does not know the field passes over it. But whoever then writes the row anew leaves it out. So a field
//! that must not get lost is written only once the schema says that no server of a version without it is left; and what cannot be told
//! by adding a field is another `version`, which such a server refuses to read.
//!
//! Versions before wrote JSON, which begins with `{`. Such rows are read, and written anew in this form when they change. While servers
//! of a version that reads nothing else may be at work all rows are written as JSON: [`Form`].

mod answer;
mod event;
mod heard;
mod session;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::hash::Hasher;

use limpet_shared::{AesKey, UnixMicros};
use limpet_worker_core::model::{Reception, Session};
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use crate::{Result, StoreError, waiting_body::WaitingBody};

/// The form's version, in front.
const VERSION: u8 = 1;
/// What a server says of itself in the store: up to which form it reads rows ([`limpet_shared::admin::Server::reads_rows`]).
pub const READS_ROWS: u32 = VERSION as u32;
/// Before the message.
const HEAD: usize = 5;

/// How rows are written. All forms are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As versions read it that read nothing else.
    Json,
    Compact,
}

/// A row as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Json(String),
    Compact(Vec<u8>),
}

impl Body {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Compact(bytes) => bytes.len(),
        }
    }
}

/// What has a stored form.
pub(crate) trait Stored: Serialize + DeserializeOwned {
    type Row: Message + Default;
    fn to_row(&self) -> Self::Row;
    /// An error names what the row says that cannot be.
    fn from_row(row: Self::Row) -> Read<Self>;
}

/// What of a row makes no sense.
type Read<T> = std::result::Result<T, &'static str>;

impl Form {
    pub fn encode<T: Stored>(self, value: &T) -> Result<Body> {
        match self {
            Self::Json => {
                let text = serde_json::to_string(value);
                text.map(Body::Json).map_err(|e| StoreError::Corrupt(format!("cannot write a row: {e}")))
            }
            Self::Compact => Ok(Body::Compact(compact(&value.to_row()))),
        }
    }
}

fn compact(row: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + row.encoded_len());
    bytes.extend([VERSION, 0, 0, 0, 0]);
    // A vector grows as needed, so encoding into it cannot run out of space.
    let _ = row.encode(&mut bytes);
    let check = check(&bytes[HEAD..]).to_be_bytes();
    bytes[1..HEAD].copy_from_slice(&check);
    bytes
}

/// Of either form.
pub(crate) fn decode<T: Stored>(bytes: &[u8]) -> Result<T> {
    if bytes.first() == Some(&b'{') {
        return serde_json::from_slice(bytes).map_err(corrupt);
    }
    T::from_row(message(bytes)?).map_err(corrupt)
}

/// What a row in the compact form holds.
fn message<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    match bytes.split_first_chunk::<HEAD>() {
        Some(([VERSION, told @ ..], message)) => {
            if u32::from_be_bytes(*told) != check(message) {
                return Err(corrupt("it is damaged"));
            }
            M::decode(message).map_err(corrupt)
        }
        Some(([version, ..], _)) => Err(corrupt(format!("its form has version {version}, which a newer Limpet wrote"))),
        None => Err(corrupt("it is too short")),
    }
}

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("cannot read a row: {what}"))
}

fn check(message: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write(message);
    hasher.finish() as u32
}

impl Stored for Session {
    type Row = session::SessionRow;
    fn to_row(&self) -> Self::Row {
        session::to_row(self)
    }
    fn from_row(row: Self::Row) -> Read<Self> {
        session::from_row(row)
    }
}

impl Stored for Reception {
    type Row = heard::ReceptionRow;
    fn to_row(&self) -> Self::Row {
        heard::to_row(self)
    }
    fn from_row(row: Self::Row) -> Read<Self> {
        heard::from_row(row)
    }
}

impl Stored for WaitingBody {
    type Row = event::WaitingRow;
    fn to_row(&self) -> Self::Row {
        event::waiting_row(self)
    }
    fn from_row(row: Self::Row) -> Read<Self> {
        event::waiting(row)
    }
}

fn key(bytes: &[u8]) -> Read<AesKey> {
    bytes.try_into().map(AesKey).map_err(|_| "a key is not of 16 bytes")
}

fn uuid(bytes: &[u8]) -> Read<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| "an identity is not of 16 bytes")
}

/// Nobody has the identity of zeros, which takes no room.
fn uuid_or_none(bytes: &[u8]) -> Read<Uuid> {
    if bytes.is_empty() { Ok(Uuid::nil()) } else { uuid(bytes) }
}

fn uuid_bytes(id: Uuid) -> Vec<u8> {
    if id.is_nil() { Vec::new() } else { id.as_bytes().to_vec() }
}

/// A number that has fewer bits than protobuf gives it.
fn fits<T: TryFrom<N>, N>(number: N) -> Read<T> {
    T::try_from(number).map_err(|_| "a number is too large")
}

fn fits_option<T: TryFrom<N>, N>(number: Option<N>) -> Read<Option<T>> {
    number.map(fits).transpose()
}

fn at(micros: u64) -> UnixMicros {
    UnixMicros(micros)
}
