//! One list in memory: its entries by name, then identity, found by place, identity or text.
//!
//! Entries stand in chunks, each with the searched text of all its entries in one piece: a place is found by adding up the
//! chunks before it, a search runs over plain text, and a change moves one chunk's worth of bytes.

use std::{borrow::Borrow, collections::HashSet, hash::Hash, hash::Hasher, sync::Arc};

/// Entries of a chunk, at most.
const CHUNK: usize = 512;
/// Ends each entry's text, so that nothing is found across two of them. No name that people type has it.
const END: char = '\0';
/// What an entry takes beside its texts: pointers, lengths, counters, its place in the set.
const OVERHEAD: usize = 160;

/// One thing that a list shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub name: Box<str>,
    pub id: Box<str>,
    /// Another thing that the list may be narrowed to.
    pub also: Arc<str>,
}

/// An entry with the text that is searched, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub name: String,
    pub id: String,
    pub also: String,
    pub search: String,
}

/// What is asked of a list.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// In lower case; empty finds all.
    pub needle: &'a str,
    pub keep: Option<&'a (dyn Fn(&Entry) -> bool + Sync)>,
    pub skip: usize,
    pub take: usize,
}

/// How many match in all, and those of them that were asked for.
pub(crate) type Found = (usize, Vec<Arc<Entry>>);

/// See the module.
#[derive(Default)]
pub(crate) struct Index {
    chunks: Vec<Chunk>,
    by_id: HashSet<ById>,
    also: HashSet<Arc<str>>,
    bytes: usize,
}

struct ById(Arc<Entry>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}
impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ById {}
impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As a `str` does.
        self.0.id.hash(state);
    }
}

#[derive(Default)]
struct Chunk {
    entries: Vec<Arc<Entry>>,
    text: String,
    /// Where each entry's text ends.
    ends: Vec<usize>,
}

impl Chunk {
    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default()
    }

    fn insert(&mut self, at: usize, entry: Arc<Entry>, search: &str) {
        let (start, length) = (self.start(at), search.len() + END.len_utf8());
        self.text.insert(start, END);
        self.text.insert_str(start, search);
        self.ends.iter_mut().skip(at).for_each(|end| *end += length);
        self.ends.insert(at, start + length);
        self.entries.insert(at, entry);
    }

    fn remove(&mut self, at: usize) -> usize {
        let (start, end) = (self.start(at), self.start(at + 1));
        self.text.replace_range(start..end, "");
        self.entries.remove(at);
        self.ends.remove(at);
        self.ends.iter_mut().skip(at).for_each(|after| *after -= end - start);
        end - start
    }

    fn split(&mut self) -> Self {
        let half = self.entries.len() / 2;
        let cut = self.start(half);
        let ends = self.ends.split_off(half).into_iter().map(|end| end - cut).collect();
        Self { entries: self.entries.split_off(half), text: self.text.split_off(cut), ends }
    }

    fn matching<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        let mut past = 0;
        self.text.match_indices(needle).filter_map(move |(found, _)| {
            if found < past {
                return None;
            }
            let at = self.ends.partition_point(|end| *end <= found);
            past = *self.ends.get(at)?;
            self.entries.get(at)
        })
    }
}

impl Index {
    /// Of one identity the last row counts.
    pub fn new(rows: Vec<Row>) -> Self {
        let mut index = Self::default();
        let mut rows: Vec<(Arc<Entry>, String)> = rows.into_iter().map(|row| index.entry(row)).collect();
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (entry, search) in rows {
            match index.by_id.contains(&*entry.id) {
                true => index.put_entry(entry, &search),
                false => index.push(entry, &search),
            }
        }
        index
    }

    /// Bytes that it holds, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Takes over how rows are now; `None` where one is gone.
    pub fn apply(&mut self, changes: Vec<(String, Option<Row>)>) {
        for (id, row) in changes {
            match row {
                Some(row) => self.put(row),
                None => self.take(&id),
            }
        }
    }

    pub fn put(&mut self, row: Row) {
        let (entry, search) = self.entry(row);
        self.put_entry(entry, &search);
    }

    pub fn take(&mut self, id: &str) {
        let Some(ById(entry)) = self.by_id.take(id) else { return };
        let chunk = self.chunk_of(&entry);
        let Some(found) = self.chunks.get_mut(chunk) else { return };
        if let Ok(at) = found.entries.binary_search(&entry) {
            let text = found.remove(at);
            self.bytes = self.bytes.saturating_sub(size(&entry, text));
        }
        if found.entries.is_empty() {
            self.chunks.remove(chunk);
        }
    }

    pub fn find(&self, ask: &Ask<'_>) -> Found {
        if ask.needle.contains(END) {
            return (0, Vec::new());
        }
        if ask.needle.is_empty() && ask.keep.is_none() {
            return (self.len(), self.from(ask.skip).take(ask.take).cloned().collect());
        }
        let keep = |entry: &&Arc<Entry>| ask.keep.is_none_or(|keep| keep(entry));
        let (mut total, mut found) = (0, Vec::new());
        let mut each = |entry: &Arc<Entry>| {
            if total >= ask.skip && found.len() < ask.take {
                found.push(entry.clone());
            }
            total += 1;
        };
        match ask.needle.is_empty() {
            true => self.from(0).filter(keep).for_each(&mut each),
            false => self.chunks.iter().flat_map(|c| c.matching(ask.needle)).filter(keep).for_each(&mut each),
        }
        (total, found)
    }

    /// Entries from this place on.
    fn from(&self, mut place: usize) -> impl Iterator<Item = &Arc<Entry>> {
        let mut first = 0;
        for chunk in &self.chunks {
            if place < chunk.entries.len() {
                break;
            }
            place -= chunk.entries.len();
            first += 1;
        }
        self.chunks.iter().skip(first).flat_map(|chunk| &chunk.entries).skip(place)
    }

    fn entry(&mut self, row: Row) -> (Arc<Entry>, String) {
        let also = match self.also.get(row.also.as_str()) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = row.also.into();
                self.also.insert(new.clone());
                new
            }
        };
        (Arc::new(Entry { name: row.name.into(), id: row.id.into(), also }), row.search)
    }

    /// Behind all others.
    fn push(&mut self, entry: Arc<Entry>, search: &str) {
        if self.chunks.last().is_none_or(|last| last.entries.len() >= CHUNK / 2) {
            self.chunks.push(Chunk::default());
        }
        if let Some(last) = self.chunks.last_mut() {
            self.bytes += size(&entry, search.len() + END.len_utf8());
            last.insert(last.entries.len(), entry.clone(), search);
            self.by_id.insert(ById(entry));
        }
    }

    fn put_entry(&mut self, entry: Arc<Entry>, search: &str) {
        self.take(&entry.id);
        if self.chunks.is_empty() {
            return self.push(entry, search);
        }
        let at = self.chunk_of(&entry);
        let chunk = &mut self.chunks[at];
        let (Ok(place) | Err(place)) = chunk.entries.binary_search(&entry);
        self.bytes += size(&entry, search.len() + END.len_utf8());
        chunk.insert(place, entry.clone(), search);
        if chunk.entries.len() > CHUNK {
            let rest = chunk.split();
            self.chunks.insert(at + 1, rest);
        }
        self.by_id.insert(ById(entry));
    }

    /// The chunk that it is in, or belongs into.
    fn chunk_of(&self, entry: &Entry) -> usize {
        let after = self.chunks.partition_point(|chunk| chunk.entries.first().is_some_and(|first| **first <= *entry));
        after.saturating_sub(1)
    }
}

fn size(entry: &Entry, text: usize) -> usize {
    entry.name.len() + entry.id.len() + text + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn row(name: &str, id: u32) -> Row {
        let id = format!("{id:04x}");
        Row { search: format!("{}\n{id}", name.to_lowercase()), name: name.into(), also: format!("p{}", id.len()), id }
    }

    fn ask(needle: &str, skip: usize, take: usize) -> Ask<'_> {
        Ask { needle, keep: None, skip, take }
    }

    fn ids((total, found): Found) -> (usize, Vec<String>) {
        (total, found.iter().map(|entry| entry.id.to_string()).collect())
    }

    #[test]
    fn it_finds_what_a_plain_walk_finds_through_any_changes() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let first: Vec<Row> = (0..3_000).map(|id| row(&format!("Name {}", id % 97), id)).collect();
        let mut plain: BTreeMap<String, Row> = first.iter().map(|row| (row.id.clone(), row.clone())).collect();
        let mut index = Index::new(first);
        for _ in 0..6_000 {
            let id = next(4_000) as u32;
            if next(3) == 0 {
                plain.remove(&format!("{id:04x}"));
                index.take(&format!("{id:04x}"));
            } else {
                let new = row(&format!("{} Süd {}", ["aa", "Name", "ab"][next(3) as usize], next(50)), id);
                plain.insert(new.id.clone(), new.clone());
                index.put(new);
            }
        }
        let mut sorted: Vec<&Row> = plain.values().collect();
        sorted.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        for needle in ["", "a", "süd 7", "0f", "name", "\n", "nothing", "d 1\n0"] {
            let wanted: Vec<String> =
                sorted.iter().filter(|row| row.search.contains(needle)).map(|row| row.id.clone()).collect();
            assert_eq!(ids(index.find(&ask(needle, 0, usize::MAX))), (wanted.len(), wanted.clone()), "{needle:?}");
            let (skip, part) = (wanted.len() / 2, wanted.iter().skip(wanted.len() / 2).take(10).cloned().collect());
            assert_eq!(ids(index.find(&ask(needle, skip, 10))), (wanted.len(), part), "{needle:?}");
        }
        for id in plain.keys() {
            index.take(id);
        }
        assert_eq!((index.len(), index.bytes(), index.chunks.len()), (0, 0, 0));
    }

    #[test]
    fn nothing_is_found_across_two_entries_and_a_filter_narrows() {
        let mut rows = vec![row("ab", 1), row("cd", 2)];
        rows[1].also = "other".into();
        let index = Index::new(rows);
        for needle in ["1c", "1\0c", "\0"] {
            assert_eq!(index.find(&ask(needle, 0, 9)).0, 0, "{needle:?}");
        }
        let other = |entry: &Entry| &*entry.also == "other";
        assert_eq!(ids(index.find(&Ask { keep: Some(&other), ..ask("", 0, 9) })), (1, vec!["0002".into()]));
    }

    #[test]
    fn of_one_identity_there_is_one_entry() {
        let mut index = Index::new(vec![row("b", 1), row("a", 1), row("c", 2)]);
        index.put(row("z", 2));
        assert_eq!((index.len(), ids(index.find(&ask("", 1, 9))).1), (2, vec!["0002".to_owned()]));
    }
}
