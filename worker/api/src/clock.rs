//! The wall clock, and times as the API writes them.

use std::time::{SystemTime, UNIX_EPOCH};

use chirpstack_api::prost_types::Timestamp;
use limpet_shared::UnixMicros;

use crate::error::{ApiError, Result};

/// The wall clock now.
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

pub(crate) fn timestamp(at: UnixMicros) -> Timestamp {
    Timestamp { seconds: (at.0 / 1_000_000).cast_signed(), nanos: (at.0 % 1_000_000) as i32 * 1000 }
}

/// A time after 1970 that a caller gave.
pub(crate) fn unix(field: &'static str, at: &Timestamp) -> Result<UnixMicros> {
    let micros = || {
        let whole = u64::try_from(at.seconds).ok()?.checked_mul(1_000_000)?;
        let part = u64::try_from(at.nanos).ok().filter(|n| *n < 1_000_000_000)? / 1000;
        whole.checked_add(part)
    };
    micros().map(UnixMicros).ok_or_else(|| ApiError::invalid(field, "is no time after 1970"))
}
