//! Rows to and from JSON.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Result, StoreError,
    rows::{self, Stored},
};

pub(super) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(format!("cannot write a row: {e}")))
}

pub(super) fn decode<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(|e| StoreError::Corrupt(format!("cannot read a row: {e}")))
}

/// A row that has a form of its own, from its two columns.
pub(super) fn decode_row<T: Stored>(body: &str, packed: Option<&[u8]>) -> Result<T> {
    rows::decode(if body.is_empty() { packed.unwrap_or_default() } else { body.as_bytes() })
}

/// An identity in a key column.
pub(super) fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("{text:?} is no {what}")))
}
