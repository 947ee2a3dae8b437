//! What is listed under what, and in which order.
//!
//! A row here is written before the thing that it lists and deleted after it, so that a crash in between leaves a row too
//! many, which reading skips, and never a thing that no list shows. After each such write comes a note of it, which the
//! lists in memory follow; see [`crate::lists`]. A crash between row and note leaves nothing that was ever answered for.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::statement::prepared::PreparedStatement;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{
    CqlStore,
    db::{Db, How},
    entities::Kind,
    now,
};
use crate::{
    List, OpenError, Page, Result, StoreError,
    lists::{Ask, Changes, Entry, Found, Row, Source},
};

/// Partitions that one owner's rows are spread over.
const SHARDS: i32 = 8;
/// Reads of listed things at one moment.
pub(super) const AT_ONCE: usize = 32;
/// A row that is older than this and has no thing is not just being made.
pub(super) const SETTLED: Duration = Duration::from_secs(60);
/// Rows that one page takes out of a list at most.
const TIDIED: usize = 16;
/// How far the clocks of two servers may be apart, us: notes are read again from so long before the last look.
const SKEW: i64 = 10_000_000;
/// Notes end after an hour (in the table); who looked longer ago than this, us, reads the list anew.
const FORGOTTEN: i64 = 3_000_000_000;
/// Lists that are in use are read anew so often, beside their use: for what a server of the version before has written
/// without a note, or one whose clock is wrong.
const RENEW: Duration = Duration::from_secs(300);

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub owner: String,
    pub name: String,
    pub id: String,
    /// Another thing that lists may be narrowed to.
    pub also: String,
    /// What is searched, in lower case.
    pub search: String,
}

/// See the module.
pub(super) struct Listing {
    put: PreparedStatement,
    take: PreparedStatement,
    walk: PreparedStatement,
    row: PreparedStatement,
    written: PreparedStatement,
    take_written: PreparedStatement,
    note: PreparedStatement,
    notes: PreparedStatement,
}

type Columns = (String, Option<String>, Option<String>, Option<String>);

/// Up to where the changes of a list are known.
pub(crate) struct Mark {
    /// When its notes were read last (Unix, us).
    looked: i64,
    /// Those of them that will be met again.
    known: HashSet<Uuid>,
}

impl Listing {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put = "INSERT INTO $.listing (owner, shard, id, name, search, also) VALUES (?, ?, ?, ?, ?, ?)";
        let take = "DELETE FROM $.listing WHERE owner = ? AND shard = ? AND id = ?";
        let walk = "SELECT id, name, search, also FROM $.listing WHERE owner = ? AND shard = ?";
        let written = "SELECT WRITETIME(name) FROM $.listing WHERE owner = ? AND shard = ? AND id = ?";
        let take_written = "DELETE FROM $.listing USING TIMESTAMP ? WHERE owner = ? AND shard = ? AND id = ?";
        let note = "INSERT INTO $.listing_change (owner, at, n, id) VALUES (?, ?, ?, ?)";
        let notes = "SELECT at, n, id FROM $.listing_change WHERE owner = ? AND at > ?";
        Ok(Self {
            put: db.prepare(How::Write, put).await?,
            take: db.prepare(How::Write, take).await?,
            walk: db.prepare(How::Scan, walk).await?,
            row: db.prepare(How::Read, &format!("{walk} AND id = ?")).await?,
            written: db.prepare(How::Read, written).await?,
            take_written: db.prepare(How::Write, take_written).await?,
            note: db.prepare(How::Write, note).await?,
            notes: db.prepare(How::Scan, notes).await?,
        })
    }

    pub async fn put(&self, db: &Db, Place { owner, name, id, also, search }: &Place) -> Result<()> {
        db.write(&self.put, (owner, shard(id), id, name, search, also)).await?;
        self.note(db, owner, id).await
    }

    pub async fn take(&self, db: &Db, owner: &str, id: &str) -> Result<()> {
        db.write(&self.take, (owner, shard(id), id)).await?;
        self.note(db, owner, id).await
    }

    /// When the row was written (Unix, us).
    async fn written(&self, db: &Db, owner: &str, id: &str) -> Result<Option<i64>> {
        let found: Option<(Option<i64>,)> = db.row(&self.written, (owner, shard(id), id)).await?;
        Ok(found.and_then(|(written,)| written))
    }

    /// Takes the row that was written then, and none that was written later.
    async fn take_written(&self, db: &Db, owner: &str, id: &str, written: i64) -> Result<()> {
        db.write(&self.take_written, (written, owner, shard(id), id)).await?;
        self.note(db, owner, id).await
    }

    async fn note(&self, db: &Db, owner: &str, id: &str) -> Result<()> {
        db.write(&self.note, (owner, now(), Uuid::new_v4(), id)).await
    }

    /// A note of something that is numbered, in the place of a time.
    pub async fn note_numbered(&self, db: &Db, owner: &str, number: u64, id: &str) -> Result<()> {
        db.write(&self.note, (owner, number.cast_signed(), Uuid::new_v4(), id)).await
    }

    /// Such notes after `since` up to `last`, in order.
    pub async fn numbered(&self, db: &Db, owner: &str, since: u64, last: u64) -> Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        let note = |(at, _, id): (i64, Uuid, Option<String>)| {
            let at = at.cast_unsigned();
            found.extend(id.filter(|_| at <= last).map(|id| (at, id)));
            Ok(at < last)
        };
        db.scan(&self.notes, (owner, since.cast_signed()), note).await?;
        Ok(found)
    }

    async fn rows(&self, db: &Db, owner: &str) -> Result<Vec<Row>> {
        let walks = (0..SHARDS).map(|shard| async move {
            let mut found = Vec::new();
            let take = |columns: Columns| {
                found.push(row_of(columns));
                Ok(true)
            };
            db.scan(&self.walk, (owner, shard), take).await?;
            Ok::<_, StoreError>(found)
        });
        let found: Vec<Vec<Row>> = stream::iter(walks).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn row(&self, db: &Db, owner: &str, id: &str) -> Result<Option<Row>> {
        Ok(db.row::<Columns>(&self.row, (owner, shard(id), id)).await?.map(row_of))
    }

    /// Identities of all that it lists, read from the database.
    pub async fn ids(&self, db: &Db, owner: &str) -> Result<BTreeSet<String>> {
        Ok(self.rows(db, owner).await?.into_iter().map(|row| row.id).collect())
    }

    /// What has been noted since, `most` things at most; `None` if that is more.
    async fn noted(&self, db: &Db, owner: &str, mark: &Mark, most: usize) -> Result<Option<(Mark, BTreeSet<String>)>> {
        let (looked, since) = (now(), mark.looked.saturating_sub(SKEW));
        if looked.saturating_sub(mark.looked) > FORGOTTEN {
            return Ok(None);
        }
        let (mut known, mut ids) = (HashSet::new(), BTreeSet::new());
        let note = |(at, n, id): (i64, Uuid, Option<String>)| {
            if at > looked.saturating_sub(SKEW) {
                known.insert(n);
            }
            if !mark.known.contains(&n) {
                ids.extend(id);
            }
            Ok(ids.len() <= most)
        };
        db.scan(&self.notes, (owner, since), note).await?;
        Ok((ids.len() <= most).then_some((Mark { looked, known }, ids)))
    }
}

fn row_of((id, name, search, also): Columns) -> Row {
    Row { name: name.unwrap_or_default(), id, also: also.unwrap_or_default(), search: search.unwrap_or_default() }
}

#[async_trait]
impl Source for CqlStore {
    type Key = String;
    type Mark = Mark;

    async fn load(&self, owner: &String) -> Result<(Mark, Vec<Row>)> {
        let mark = Mark { looked: now(), known: HashSet::new() };
        Ok((mark, self.listing.rows(&self.db, owner).await?))
    }
    async fn changes(&self, owner: &String, mark: &Mark, most: usize) -> Result<Option<(Mark, Changes)>> {
        let Some((mark, ids)) = self.listing.noted(&self.db, owner, mark, most).await? else { return Ok(None) };
        let reads = ids.into_iter().map(|id| async move {
            let row = self.listing.row(&self.db, owner, &id).await?;
            Ok::<_, StoreError>((id, row))
        });
        Ok(Some((mark, stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?)))
    }
}

impl CqlStore {
    /// How many there are in these lists, and what of them was asked for.
    pub(super) async fn find(
        &self,
        owners: &[String],
        list: &List,
        keep: Option<&(dyn Fn(&Entry) -> bool + Sync)>,
    ) -> Result<Found> {
        let needle = list.search.to_lowercase();
        let ask = Ask { needle: &needle, keep, skip: list.offset as usize, take: list.limit as usize };
        let lists: Vec<(String, String)> = owners.iter().map(|owner| (owner.clone(), owner.clone())).collect();
        self.lists.find_in(self, &lists, &ask).await
    }

    /// The part of the lists that was asked for, read. `places`: where a thing is really listed, for rows may be left of what has
    /// gone, and identities come again under other owners.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        kind: Kind,
        owners: Vec<String>,
        list: &List,
        keep: Option<&(dyn Fn(&Entry) -> bool + Sync)>,
        places: fn(&T) -> Vec<Place>,
    ) -> Result<Page<T>> {
        let (total, found) = self.find(&owners, list, keep).await?;
        let reads = found.into_iter().map(|entry| async move {
            let thing = self.entities.get::<T>(&self.db, kind, &entry.id).await?;
            Ok::<_, StoreError>((entry, thing))
        });
        let read: Vec<_> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let (page, strays) = owned(&owners, total, read, places);
        self.tidy_all(kind, &owners, &strays, places).await;
        Ok(page)
    }

    /// What a page has met in a list, and should not have.
    pub(super) async fn tidy_all<T: DeserializeOwned>(
        &self,
        kind: Kind,
        owners: &[String],
        strays: &[Arc<Entry>],
        places: fn(&T) -> Vec<Place>,
    ) {
        // Of several lists it is not known which one it was.
        let [owner] = owners else { return };
        for entry in strays.iter().take(TIDIED) {
            if let Err(error) = self.tidy(kind, owner, &entry.id, places).await {
                tracing::debug!(list = owner, id = &*entry.id, %error, "a row that is left in a list stays there");
            }
        }
    }

    /// Takes a row out of a list that its thing does not belong into, or that has long had none. It is deleted as it was read
    /// before the thing was, so that one that comes meanwhile stays.
    pub(super) async fn tidy<T: DeserializeOwned>(
        &self,
        kind: Kind,
        owner: &str,
        id: &str,
        places: fn(&T) -> Vec<Place>,
    ) -> Result<()> {
        let Some(written) = self.listing.written(&self.db, owner, id).await? else { return Ok(()) };
        let thing: Option<T> = self.entities.get_settled(&self.db, kind, id).await?;
        let stays = match &thing {
            Some(thing) => places(thing).iter().any(|place| place.owner == owner),
            None => now().saturating_sub(written) < i64::try_from(SETTLED.as_micros()).unwrap_or(i64::MAX),
        };
        if stays {
            return Ok(());
        }
        self.listing.take_written(&self.db, owner, id, written).await
    }
}

/// What really belongs into these lists, each once, and the entries of all else.
pub(super) fn owned<T>(
    owners: &[String],
    total: usize,
    read: Vec<(Arc<Entry>, Option<T>)>,
    places: impl Fn(&T) -> Vec<Place>,
) -> (Page<T>, Vec<Arc<Entry>>) {
    let owners: HashSet<&String> = owners.iter().collect();
    let own = |thing: &T| places(thing).iter().any(|place| owners.contains(&place.owner));
    let (mut known, mut items, mut strays) = (HashSet::new(), Vec::new(), Vec::new());
    for (entry, thing) in read {
        match thing.filter(own) {
            Some(thing) if known.insert(entry.id.clone()) => items.push(thing),
            _ => strays.push(entry),
        }
    }
    let total = u32::try_from(total.saturating_sub(strays.len())).unwrap_or(u32::MAX);
    (Page { total, items }, strays)
}

/// Reads the lists that are in use anew, now and then, as long as the store is in use.
pub(super) async fn renew(store: Weak<CqlStore>) {
    let mut question = 0;
    loop {
        tokio::time::sleep(RENEW).await;
        let Some(store) = store.upgrade() else { return };
        let (last, names) = store.lists.asked_since(question);
        question = last;
        for name in names {
            match store.load(&name).await {
                Ok(list) => store.lists.renew(&name, list).await,
                Err(error) => tracing::debug!(list = name, %error, "a list was not read anew"),
            }
        }
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
