//! What callers put into fields: read, bounded, or refused by name.

use std::collections::HashMap;

use limpet_shared::{AesKey, DevAddr, Eui64};
use limpet_worker_core::model::Tags;
use uuid::Uuid;

use crate::error::{ApiError, Result};

/// Characters of a name.
const NAME_CHARS: usize = 200;
/// Bytes of a description, note or tag value.
const TEXT_BYTES: usize = 10_000;
/// Tags, variables or headers of one thing.
const TAGS: usize = 100;

/// A message that the request must have.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| ApiError::invalid(field, "is missing"))
}

/// Refuses what is not served: a field is honoured or refused, never stored and ignored.
pub(crate) fn refuse(field: &'static str, is_set: bool, why: &str) -> Result<()> {
    if is_set { Err(ApiError::invalid(field, why)) } else { Ok(()) }
}

pub(crate) fn eui(field: &'static str, text: &str) -> Result<Eui64> {
    text.parse().map_err(|e: limpet_shared::id::IdError| ApiError::invalid(field, e.to_string()))
}

pub(crate) fn dev_addr(field: &'static str, text: &str) -> Result<DevAddr> {
    text.parse().map_err(|e: limpet_shared::id::IdError| ApiError::invalid(field, e.to_string()))
}

pub(crate) fn key(field: &'static str, text: &str) -> Result<AesKey> {
    text.parse().map_err(|e: limpet_shared::id::IdError| ApiError::invalid(field, e.to_string()))
}

/// A key field that LoRaWAN 1.0.x has no use for: clients leave it empty, send zeros, or repeat the key that counts.
pub(crate) fn unused_key(field: &'static str, text: &str, same: Option<AesKey>) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let given = key(field, text)?;
    let harmless = given == AesKey::default() || Some(given) == same;
    refuse(field, !harmless, "is a key of LoRaWAN 1.1, which is not served yet")
}

pub(crate) fn id(field: &'static str, text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| ApiError::invalid(field, "must be a UUID"))
}

/// An id that may be left out.
pub(crate) fn optional_id(field: &'static str, text: &str) -> Result<Option<Uuid>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// A name: not empty, and short enough for a list.
pub(crate) fn name(field: &'static str, text: &str) -> Result<String> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(field, "must not be empty"));
    }
    if text.chars().count() > NAME_CHARS {
        return Err(ApiError::invalid(field, format!("must have at most {NAME_CHARS} characters")));
    }
    Ok(text.into())
}

pub(crate) fn text(field: &'static str, text: String) -> Result<String> {
    if text.len() > TEXT_BYTES {
        return Err(ApiError::invalid(field, format!("must have at most {TEXT_BYTES} bytes")));
    }
    Ok(text)
}

pub(crate) fn tags(field: &'static str, tags: HashMap<String, String>) -> Result<Tags> {
    if tags.len() > TAGS {
        return Err(ApiError::invalid(field, format!("must have at most {TAGS} entries")));
    }
    for (key, value) in &tags {
        name(field, key)?;
        if value.len() > TEXT_BYTES {
            return Err(ApiError::invalid(field, format!("{key}: must have at most {TEXT_BYTES} bytes")));
        }
    }
    Ok(tags.into_iter().collect())
}

/// Tags as the protocol has them.
pub(crate) fn map(tags: &Tags) -> HashMap<String, String> {
    tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A number that must fit a byte and its range.
pub(crate) fn byte(field: &'static str, value: u32, range: std::ops::RangeInclusive<u8>) -> Result<u8> {
    let outside = || ApiError::invalid(field, format!("must be {} to {}", range.start(), range.end()));
    u8::try_from(value).ok().filter(|v| range.contains(v)).ok_or_else(outside)
}

/// What people log in with: `admin`, or something like an e-mail address.
pub(crate) fn email(field: &'static str, text: &str) -> Result<String> {
    let text = text.trim();
    let is_address = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if text == "admin" || (is_address && text.len() <= 254 && !text.contains(char::is_whitespace)) {
        Ok(text.into())
    } else {
        Err(ApiError::invalid(field, "must be an e-mail address"))
    }
}
