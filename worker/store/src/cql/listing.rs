//! What is listed under what, and in which order.
//!
//! A row here is written before the thing that it lists and deleted after it, so that a crash in between leaves a row too
//! many, which reading skips, and never a thing that no list shows.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::statement::prepared::PreparedStatement;
use serde::de::DeserializeOwned;

use super::{
    db::{Db, How},
    entities::{Entities, Kind},
};
use crate::{List, OpenError, Page, Result, StoreError};

/// Partitions that one owner's rows are spread over.
const SHARDS: i32 = 8;
/// Reads of listed things at one moment.
pub(super) const AT_ONCE: usize = 32;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub name: String,
    pub id: String,
    /// Another thing that lists may be narrowed to.
    pub also: String,
}

/// See the module.
pub(super) struct Listing {
    put: PreparedStatement,
    take: PreparedStatement,
    walk: PreparedStatement,
}

type Columns = (String, Option<String>, Option<String>, Option<String>);

impl Listing {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put = "INSERT INTO $.listing (owner, shard, id, name, search, also) VALUES (?, ?, ?, ?, ?, ?)";
        let take = "DELETE FROM $.listing WHERE owner = ? AND shard = ? AND id = ?";
        let walk = "SELECT id, name, search, also FROM $.listing WHERE owner = ? AND shard = ?";
        Ok(Self {
            put: db.prepare(How::Write, put).await?,
            take: db.prepare(How::Write, take).await?,
            walk: db.prepare(How::Scan, walk).await?,
        })
    }

    pub async fn put(&self, db: &Db, owner: &str, entry: &Entry, search: &str) -> Result<()> {
        let Entry { name, id, also } = entry;
        db.write(&self.put, (owner, shard(id), id, name, search, also)).await
    }

    pub async fn take(&self, db: &Db, owner: &str, id: &str) -> Result<()> {
        db.write(&self.take, (owner, shard(id), id)).await
    }

    /// All that these owners list and whose search text holds `needle` (in lower case), by name, then identity.
    pub async fn entries(&self, db: &Db, owners: &[String], needle: &str) -> Result<Vec<Entry>> {
        let partitions = owners.iter().cloned().flat_map(|owner| (0..SHARDS).map(move |shard| (owner.clone(), shard)));
        let walks = partitions.map(|(owner, shard)| async move {
            let mut found = Vec::new();
            let take = |(id, name, search, also): Columns| {
                if needle.is_empty() || search.is_some_and(|text| text.contains(needle)) {
                    found.push(Entry { name: name.unwrap_or_default(), id, also: also.unwrap_or_default() });
                }
                Ok(true)
            };
            db.scan(&self.walk, (owner, shard), take).await?;
            Ok::<_, StoreError>(found)
        });
        let found: Vec<Vec<Entry>> = stream::iter(walks).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// The part of the entries that was asked for, read.
    pub async fn page<T: DeserializeOwned>(
        &self,
        db: &Db,
        entities: &Entities,
        kind: Kind,
        owners: &[String],
        list: &List,
        keep: impl Fn(&Entry) -> bool,
    ) -> Result<Page<T>> {
        let mut entries = self.entries(db, owners, &list.search.to_lowercase()).await?;
        entries.retain(|entry| keep(entry));
        let total = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let part = entries.into_iter().skip(list.offset as usize).take(list.limit as usize);
        let reads = part.map(|entry| async move { entities.get(db, kind, &entry.id).await });
        let items: Vec<Option<T>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let missing = items.iter().filter(|item| item.is_none()).count();
        let total = total.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX));
        Ok(Page { total, items: items.into_iter().flatten().collect() })
    }
}

/// FNV-1a: the same in every process and version, for it is part of where rows are.
fn shard(id: &str) -> i32 {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash % u64::from(SHARDS.unsigned_abs())) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stays_where_it_is() {
        assert_eq!(["0016c001ff10a235", "0016c001ff10a236", "", "ä"].map(shard), [4, 5, 5, 2]);
    }
}
