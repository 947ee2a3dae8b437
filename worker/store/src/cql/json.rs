//! Rows to and from JSON.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Result, StoreError};

pub(super) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(format!("cannot write a row: {e}")))
}

pub(super) fn decode<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(|e| StoreError::Corrupt(format!("cannot read a row: {e}")))
}

/// An identity in a key column.
pub(super) fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("{text:?} is no {what}")))
}
