//! Lists, held in memory while they are asked for: a page, its total and a search then cost no walk through the store.
//!
//! Nothing here is the truth. A list is read whole when it is first asked for; from then on, each question first asks the
//! store what has changed since, so that an answer holds whatever was written before it, by whomever. Memory is bounded:
//! the list that was asked for the longest time ago goes first, and one that is too large alone is read each time.

mod index;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

pub(crate) use self::index::{Ask, Entry, Found, Index, Row};
use crate::Result;

/// Bytes of all lists together: about a million entries.
const MOST_BYTES: usize = 256 << 20;

/// What a list takes that holds nothing.
const EMPTY: usize = 8 << 10;
/// Room is looked for after each list that was read, and every so many questions.
const LOOK_EVERY: u64 = 64;

/// Lists that one question looks into at one moment.
const AT_ONCE: usize = 32;

/// More changes than this share of a list: reading it whole is cheaper.
const SHARE: usize = 16;
/// As many changes are always taken one by one.
const FEW: usize = 500;

/// Rows as they are now; none where one is gone.
pub(crate) type Changes = Vec<(String, Option<Row>)>;

/// Where lists come from.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// Which list.
    type Key: Send + Sync;
    /// Up to where changes are known.
    type Mark: Send + Sync;

    /// The whole list, with a mark from before it was read.
    async fn load(&self, key: &Self::Key) -> Result<(Self::Mark, Vec<Row>)>;
    /// What has changed since the mark, `most` rows at most, with the next mark; `None` if that is more or not known.
    async fn changes(&self, key: &Self::Key, mark: &Self::Mark, most: usize) -> Result<Option<(Self::Mark, Changes)>>;
}

/// The lists that are held, by name.
pub(crate) struct Lists<M> {
    held: Mutex<HashMap<String, Arc<Held<M>>>>,
    asked: AtomicU64,
    most_bytes: usize,
}

struct Held<M> {
    /// The number of the question that came last.
    asked: AtomicU64,
    bytes: AtomicUsize,
    state: tokio::sync::Mutex<Option<(M, Index)>>,
}

impl<M> Default for Held<M> {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), bytes: AtomicUsize::new(0), state: tokio::sync::Mutex::new(None) }
    }
}

impl<M> Default for Lists<M> {
    fn default() -> Self {
        Self { held: Mutex::default(), asked: AtomicU64::new(0), most_bytes: MOST_BYTES }
    }
}

impl<M: Send + Sync> Lists<M> {
    /// The part of one list that is asked for, as it is now.
    pub async fn find<S>(&self, source: &S, name: &str, key: &S::Key, ask: &Ask<'_>) -> Result<Found>
    where
        S: Source<Mark = M> + ?Sized,
    {
        let held = self.held.lock().entry(name.to_owned()).or_default().clone();
        let question = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        held.asked.store(question, Ordering::Relaxed);
        let mut state = held.state.lock().await;
        let changes = match &*state {
            Some((mark, index)) => source.changes(key, mark, FEW.max(index.len() / SHARE)).await?,
            None => None,
        };
        let loaded = changes.is_none();
        match (&mut *state, changes) {
            (Some((mark, index)), Some((next, changes))) => {
                *mark = next;
                index.apply(changes);
            }
            (state, _) => {
                let (mark, rows) = source.load(key).await?;
                *state = Some((mark, Index::new(rows)));
            }
        }
        let Some((_, index)) = &*state else { return Ok((0, Vec::new())) };
        let found = index.find(ask);
        held.bytes.store(index.bytes() + EMPTY, Ordering::Relaxed);
        drop(state);
        if loaded || question.is_multiple_of(LOOK_EVERY) {
            self.make_room();
        }
        Ok(found)
    }

    /// What several lists hold together.
    pub async fn find_in<S>(&self, source: &S, lists: &[(String, S::Key)], ask: &Ask<'_>) -> Result<Found>
    where
        S: Source<Mark = M> + ?Sized,
    {
        if let [(name, key)] = lists {
            return self.find(source, name, key, ask).await;
        }
        let (mut total, mut all) = (0, Vec::new());
        let take = if ask.take == 0 { 0 } else { ask.skip.saturating_add(ask.take) };
        let each = Ask { skip: 0, take, ..*ask };
        let finds: Vec<_> = lists.iter().map(|(name, key)| self.find(source, name, key, &each)).collect();
        let mut finds = stream::iter(finds).buffer_unordered(AT_ONCE);
        while let Some((some, entries)) = finds.try_next().await? {
            total += some;
            all.extend(entries);
        }
        all.sort();
        Ok((total, all.into_iter().skip(ask.skip).take(ask.take).collect()))
    }

    /// Names of the lists that were asked for since this question, and the number of the last one.
    pub fn asked_since(&self, question: u64) -> (u64, Vec<String>) {
        let held = self.held.lock();
        let recent = held.iter().filter(|(_, list)| list.asked.load(Ordering::Relaxed) > question);
        (self.asked.load(Ordering::Relaxed), recent.map(|(name, _)| name.clone()).collect())
    }

    /// Puts a list that was read anew in the place of what is held of it, if anything still is.
    pub async fn renew(&self, name: &str, (mark, rows): (M, Vec<Row>)) {
        let Some(held) = self.held.lock().get(name).cloned() else { return };
        let index = Index::new(rows);
        let mut state = held.state.lock().await;
        if state.is_some() {
            held.bytes.store(index.bytes() + EMPTY, Ordering::Relaxed);
            *state = Some((mark, index));
        }
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.held.lock().len()
    }

    fn make_room(&self) {
        let mut held = self.held.lock();
        let mut bytes: usize = held.values().map(|list| list.bytes.load(Ordering::Relaxed)).sum();
        while bytes > self.most_bytes {
            let oldest = held.iter().min_by_key(|(_, list)| list.asked.load(Ordering::Relaxed));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { return };
            let gone = held.remove(&name).map_or(0, |list| list.bytes.load(Ordering::Relaxed));
            bytes = bytes.saturating_sub(gone);
        }
    }
}

#[cfg(test)]
mod tests;
