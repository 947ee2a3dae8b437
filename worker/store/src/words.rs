//! What all stores say and how they compare, in one place, so that they answer alike.

use std::fmt::Display;

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::{DeviceSeen, GatewaySeen, Tenant};
use uuid::Uuid;

use crate::{PendingBounds, Result, StoreError, Trimmed};

/// Receptions that one read gives at most. No frame has that many honest copies.
pub const MOST_COPIES: usize = 1_000;

/// Devices that one read gives turns to at most.
pub const MOST_TURNS: usize = 1_024;

/// Of an integration's events, the oldest first with when they were put (0: unknown) and how large they are, how many are
/// beyond the bounds. `total` is what waits in all, in events and bytes.
pub(crate) fn beyond(
    oldest: impl IntoIterator<Item = (UnixMicros, u64)>,
    total: (u64, u64),
    bounds: &PendingBounds,
) -> Trimmed {
    let ((mut events, mut bytes), mut beyond) = (total, Trimmed::default());
    for (at, size) in oldest {
        if at.0 > 0 && at < bounds.since {
            beyond.too_old += 1;
        } else if events > bounds.events || bytes > bounds.bytes {
            beyond.overflow += 1;
        } else {
            break;
        }
        (events, bytes) = (events.saturating_sub(1), bytes.saturating_sub(size));
    }
    beyond
}

/// Of some rows those that can be read: one that cannot hides no other. An error if none can.
pub(crate) fn readable<T>(rows: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut read, mut failed) = (Vec::new(), None);
    for row in rows {
        match row {
            Ok(row) => read.push(row),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if read.is_empty() => Err(error),
        Some(error) => {
            tracing::warn!(%error, "a row is left out");
            Ok(read)
        }
        None => Ok(read),
    }
}

/// This machine's clock.
pub(crate) fn now() -> UnixMicros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// `what id` is taken.
pub(crate) fn exists(what: &str, id: impl Display) -> StoreError {
    StoreError::AlreadyExists(format!("{what} {id}"))
}

/// What is restored may be there already.
pub(crate) fn or_there(put: Result<()>) -> Result<()> {
    match put {
        Err(StoreError::AlreadyExists(_)) => Ok(()),
        other => other,
    }
}

/// There is no `what id`.
pub(crate) fn missing(what: &str, id: impl Display) -> StoreError {
    StoreError::NotFound(format!("{what} {id}"))
}

/// There is no `what id` that belongs to this tenant.
pub(crate) fn missing_in_tenant(what: &str, id: impl Display, tenant: Uuid) -> StoreError {
    StoreError::NotFound(format!("{what} {id} of tenant {tenant}"))
}

/// A tenant has as many things of a kind as it may. `things`: plural, for people.
pub(crate) fn as_many_as_it_may(tenant: &Tenant, most: u32, things: &str) -> StoreError {
    StoreError::Exhausted(format!("tenant {} has {most} {things}, as many as it may", tenant.name))
}

/// Devices hold on to their profile. `some` are the first few of them, `total` is how many there are.
pub(crate) fn profile_in_use(profile: Uuid, some: &[String], total: u32) -> StoreError {
    let more = u64::from(total).saturating_sub(some.len() as u64);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    StoreError::AlreadyExists(format!("a device that uses device profile {profile} ({}{more})", some.join(", ")))
}

/// How many devices [`profile_in_use`] names.
pub(crate) const NAMED_DEVICES: usize = 5;

/// What an e-mail address is compared by.
pub(crate) fn email_key(email: &str) -> String {
    email.trim().to_lowercase()
}

/// What a search looks into: the name, and the identity where that is searched too.
pub(crate) fn search_text(name: &str, identity: Option<&str>) -> String {
    match identity {
        Some(identity) => format!("{}\n{identity}", name.to_lowercase()),
        None => name.to_lowercase(),
    }
}

/// Two notes of one device as one: the later wins, and what it leaves out stays. In any order the result is the same.
pub(crate) fn merge_device(a: DeviceSeen, b: DeviceSeen) -> DeviceSeen {
    let (old, new) = if a.last_seen_at <= b.last_seen_at { (a, b) } else { (b, a) };
    DeviceSeen {
        last_seen_at: new.last_seen_at.or(old.last_seen_at),
        data_rate: new.data_rate.or(old.data_rate),
        battery: new.battery.or(old.battery),
        margin: new.margin.or(old.margin),
    }
}

/// Two notes of one gateway as one, like [`merge_device`].
pub(crate) fn merge_gateway(a: GatewaySeen, b: GatewaySeen) -> GatewaySeen {
    let (old, new) = if a.last_seen_at <= b.last_seen_at { (a, b) } else { (b, a) };
    GatewaySeen {
        last_seen_at: new.last_seen_at.or(old.last_seen_at),
        address: new.address.or(old.address),
        location: new.location.or(old.location),
    }
}

/// Whether there is a change for each version after `since` up to this one.
pub(crate) fn are_all(since: u64, version: u64, changed: &[(u64, Eui64)]) -> bool {
    let Some(wanted) = version.checked_sub(since) else { return false };
    let numbers = changed.iter().map(|(n, _)| *n).filter(|n| *n > since && *n <= version);
    numbers.collect::<std::collections::BTreeSet<u64>>().len() as u64 == wanted
}
