//! Settings that count changes, so that whoever follows a table reads one row of few bytes instead of all of them.

use crate::StoreError;

/// Counts what becomes of join tokens and revoked servers.
pub(crate) const MEMBERSHIP: &str = "membership_changes";

/// In an SQLite store: the version that the set of gateways was given last, in the place of counting.
pub(crate) const GATEWAY_SET_JUMPED: &str = "gateway_set_jumped";
/// What is of one store alone, and moves to no other.
pub(crate) const OF_THIS_STORE: [&str; 2] = [MEMBERSHIP, GATEWAY_SET_JUMPED];

/// How many there were, as the setting has it; 0 before the first.
pub(crate) fn read(value: Option<&[u8]>) -> crate::Result<u64> {
    let Some(value) = value else { return Ok(0) };
    let value = value.try_into().map_err(|_| StoreError::Corrupt("a setting that counts is not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(value))
}

/// One more. What cannot be read begins anew: it only has to be another number.
pub(crate) fn next(value: Option<&[u8]>) -> Vec<u8> {
    read(value).unwrap_or_default().wrapping_add(1).to_be_bytes().into()
}
