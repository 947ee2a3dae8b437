//! Holding an integration's events to its bounds. The table is walked, so this is for what is known to be beyond them.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use limpet_shared::Eui64;

use super::{AT_ONCE, Count, DELETED_AT, Db, Pending, now, read_of};
use crate::{
    IntegrationId, PendingBounds, Result, Trimmed,
    cql::waiting::{COUNT_ANEW, Note},
};

/// Events dropped by one call at most; the next one goes on.
const MOST_TRIMMED: u64 = 100_000;
/// Session start, slot, part, written_at, bytes, the body's stamp.
type KeyColumns = (i64, i64, i64, i64, i64, i64);

impl Pending {
    /// All that the list has; what cannot be counted counts as nothing.
    pub async fn size(&self, db: &Db, integration: IntegrationId) -> Result<(u64, u64)> {
        let name = &integration.0.to_string();
        let devices = self.of_integration(db, integration).await?;
        let counts = devices.into_iter().map(|device| async move {
            let count = self.count(db, name, &device).await;
            count.inspect_err(|error| uncounted(&device, error)).unwrap_or_default()
        });
        let mut sum = Count::default();
        let counts: Vec<_> = stream::iter(counts).buffer_unordered(AT_ONCE).collect().await;
        counts.into_iter().for_each(|count| sum.add(count));
        Ok((sum.events, sum.bytes))
    }

    /// A device that cannot be read is left as it is, and keeps no other from being held to the bounds.
    pub async fn trim(&self, db: &Db, integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed> {
        let name = integration.0.to_string();
        let (mut old, (mut events, mut bytes)) = (Oldest::default(), (0_u64, 0_u64));
        let since = i64::try_from(bounds.since.0).unwrap_or(i64::MAX);
        let mut devices = self.of_integration(db, integration).await?;
        let mut unread = Vec::new();
        for device in &devices {
            let count = |row: KeyColumns| {
                events += 1;
                bytes += row.4.cast_unsigned();
                if row.3 < since {
                    old.add(device, row);
                    old.keep_within(u64::MAX, u64::MAX);
                }
                Ok(true)
            };
            if let Err(error) = db.scan(&self.keys, (&name, device), count).await {
                uncounted(device, &error);
                unread.push(device.clone());
            }
        }
        devices.retain(|device| !unread.contains(device));
        let too_old = self.drop_all(db, &name, &old).await?;
        let (events, bytes) = (events - too_old, bytes - old.bytes);
        let surplus = (events.saturating_sub(bounds.events), bytes.saturating_sub(bounds.bytes));
        let mut trimmed = Trimmed { too_old, overflow: 0 };
        if surplus != (0, 0) {
            let mut oldest = Oldest::default();
            for device in &devices {
                let collect = |row: KeyColumns| {
                    oldest.add(device, row);
                    oldest.keep_within(surplus.0, surplus.1);
                    Ok(true)
                };
                if let Err(error) = db.scan(&self.keys, (&name, device), collect).await {
                    uncounted(device, &error);
                }
            }
            trimmed.overflow = self.drop_all(db, &name, &oldest).await?;
        }
        if trimmed.events() > 0 {
            let anew = Note { of: (integration, Eui64(0)), place: COUNT_ANEW, at: now(), bytes: 0 };
            self.signs.raise(db, &anew).await?;
        }
        Ok(trimmed)
    }

    async fn drop_all(&self, db: &Db, integration: &str, oldest: &Oldest) -> Result<u64> {
        // What is written now has a stamp below `DELETED_AT`; what an earlier version wrote goes at its own.
        for ((_, device, since, slot, part), (bytes, at)) in &oldest.events {
            db.write(&self.delete, (at, integration, device, since, slot, part)).await?;
            self.waiting.lock().deleted(read_of(integration, device)?, *bytes);
        }
        Ok(oldest.events.len() as u64)
    }
}

/// When it was written, and its device, session start, slot and part.
type Aged = (i64, String, i64, i64, i64);

/// The oldest events of an integration, by when they were written, with their size and the stamp that deletes them.
#[derive(Default)]
struct Oldest {
    events: BTreeMap<Aged, (u64, i64)>,
    bytes: u64,
}

impl Oldest {
    fn add(&mut self, device: &str, (since, slot, part, written_at, bytes, stamp): KeyColumns) {
        let bytes = bytes.cast_unsigned();
        self.events.insert((written_at, device.to_owned(), since, slot, part), (bytes, stamp.max(DELETED_AT)));
        self.bytes += bytes;
    }

    /// Forgets the youngest that are not needed to reach so many events and bytes; of more than [`MOST_TRIMMED`] always.
    fn keep_within(&mut self, events: u64, bytes: u64) {
        while let Some((key, (size, stamp))) = self.events.pop_last() {
            let left = self.events.len() as u64;
            if left < MOST_TRIMMED && (left < events || self.bytes - size < bytes) {
                self.events.insert(key, (size, stamp));
                return;
            }
            self.bytes -= size;
        }
    }
}

fn uncounted(device: &str, error: &crate::StoreError) {
    tracing::debug!(device, %error, "what waits of a device cannot be counted now");
}
