//! A table with a limit that forgets what was not used for longest.

use alloc::collections::BTreeMap;

/// Bounded map. Trees, not hash tables: the keys are chosen by whoever sends datagrams.
#[derive(Clone, Debug)]
pub struct Lru<K, V> {
    limit: usize,
    uses: u64,
    entries: BTreeMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
}

impl<K: Ord + Copy, V> Lru<K, V> {
    /// An empty table for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { limit, uses: 0, entries: BTreeMap::new(), order: BTreeMap::new() }
    }

    /// The entry, marked as used now.
    pub fn touch(&mut self, key: &K) -> Option<&mut V> {
        let (used, value) = self.entries.get_mut(key)?;
        self.uses += 1;
        self.order.remove(used);
        self.order.insert(self.uses, *key);
        *used = self.uses;
        Some(value)
    }

    /// The entry, without marking it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The entry to change, without marking it.
    pub fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Puts an entry in; gives back the one that had to go.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.remove(&key);
        let evicted = if self.entries.len() >= self.limit { self.pop_oldest() } else { None };
        self.uses += 1;
        self.order.insert(self.uses, key);
        self.entries.insert(key, (self.uses, value));
        evicted
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (used, value) = self.entries.remove(key)?;
        self.order.remove(&used);
        Some(value)
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn pop_oldest(&mut self) -> Option<(K, V)> {
        let (_, key) = self.order.pop_first()?;
        self.entries.remove(&key).map(|(_, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut lru = Lru::new(2);
        assert_eq!(lru.insert(1, 'a'), None);
        assert_eq!(lru.insert(2, 'b'), None);
        assert_eq!(lru.insert(2, 'c'), None, "a replaced entry makes no other go");
        assert!(lru.touch(&1).is_some());
        assert_eq!(lru.insert(3, 'd'), Some((2, 'c')));
        assert_eq!(lru.len(), 2);
        assert_eq!(lru.peek(&1), Some(&'a'));
        assert_eq!((lru.remove(&3), lru.remove(&3)), (Some('d'), None));
    }
}
