//! An ordered map whose copies share what they have in common.
//!
//! A change of a large cluster touches a few of its objects, and the state before it must stay whole until the
//! state after it is in force. So both are values, and neither a copy nor a comparison of them may cost what
//! the cluster costs: a copy takes a reference, a write copies one chunk, and a comparison passes over the
//! chunks that both sides share.
//!
//! It is weir's own because no crate has both: the ordered map of `imbl` compares in the same way, but its licence
//! (MPL-2.0) is not one of those that `deny.toml` allows; that of `rpds` (MIT) can be told to be one with another, but
//! not what two that differ have in common.

use std::{borrow::Borrow, fmt, ops::Index, sync::Arc};

/// Most entries of a chunk.
const FULL: usize = 64;

/// Entries in ascending order of their keys, never none.
type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map.
pub struct SharedMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// An entry that two maps do not have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a, K, V> {
    /// Its key.
    pub key: &'a K,
    /// What the first map says, if anything.
    pub before: Option<&'a V>,
    /// What the second map says, if anything.
    pub after: Option<&'a V>,
}

impl<K, V> SharedMap<K, V> {
    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// Whether the two are one, at the cost of a comparison of addresses. Equal maps may be two.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let position = search(chunk, key).ok()?;
        Some(&chunk[position].1)
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from the first whose key is not less than `key`.
    pub fn iter_from<'m, Q: Ord + ?Sized>(
        &'m self,
        key: &Q,
    ) -> impl Iterator<Item = (&'m K, &'m V)> + use<'m, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let first = self.chunk_of(key);
        let skipped = self.chunks.get(first).map_or(0, |chunk| match search(chunk, key) {
            Ok(position) | Err(position) => position,
        });
        let chunks = self.chunks.get(first..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(skipped).map(|(key, value)| (key, value))
    }

    /// The chunk that has the key, if any has.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks.partition_point(|chunk| chunk[0].0.borrow() <= key).saturating_sub(1)
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// What differs from this map in `after`, in the order of the keys.
    pub fn differences<'a>(&'a self, after: &'a Self) -> Vec<Difference<'a, K, V>> {
        self.differences_by(after, V::eq)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// What is not the `same` in `after`, in the order of the keys.
    pub fn differences_by<'a>(
        &'a self,
        after: &'a Self,
        same: impl Fn(&V, &V) -> bool,
    ) -> Vec<Difference<'a, K, V>> {
        let mut found = Vec::new();
        if self.is_same(after) {
            return found;
        }
        let (mut old, mut new) = (Cursor::new(self), Cursor::new(after));
        loop {
            while old.shares_chunk(&new) {
                (old.chunk, new.chunk) = (old.chunk + 1, new.chunk + 1);
            }
            let order = match (old.peek(), new.peek()) {
                (None, None) => return found,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            match (before, after) {
                (Some((_, before)), Some((_, after))) if same(before, after) => {}
                (Some((key, _)), _) | (None, Some((key, _))) => found.push(Difference {
                    key,
                    before: before.map(|(_, value)| value),
                    after: after.map(|(_, value)| value),
                }),
                (None, None) => {}
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Adds an entry; returns the value that it replaces.
    pub fn insert(&mut self, key: K, value: impl Into<V>) -> Option<V> {
        let value = value.into();
        let index = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(index) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let entries = Arc::make_mut(chunk);
        let position = match search(entries, &key) {
            Ok(position) => return Some(std::mem::replace(&mut entries[position].1, value)),
            Err(position) => position,
        };
        self.len += 1;
        if entries.len() < FULL {
            entries.insert(position, (key, value));
            return None;
        }
        // Entries that come in order leave full chunks behind.
        let kept = if position == FULL { FULL } else { FULL / 2 };
        let mut after = entries.split_off(kept);
        entries.shrink_to_fit();
        match position.checked_sub(kept) {
            Some(position) => after.insert(position, (key, value)),
            None => entries.insert(position, (key, value)),
        }
        chunks.insert(index + 1, Arc::new(after));
        None
    }

    /// Removes a key; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk_of(key);
        let position = search(self.chunks.get(index)?, key).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(&mut chunks[index]);
        let (_, value) = entries.remove(position);
        if entries.is_empty() {
            chunks.remove(index);
        }
        self.len -= 1;
        Some(value)
    }

    /// The value of a key, to change.
    pub fn value_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk_of(key);
        let position = search(self.chunks.get(index)?, key).ok()?;
        let chunk = &mut Arc::make_mut(&mut self.chunks)[index];
        Some(&mut Arc::make_mut(chunk)[position].1)
    }

    /// Keeps the entries that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let gone: Vec<K> =
            self.iter().filter(|(key, value)| !keep(key, value)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, Arc<V>> {
    /// The object of a key, to change.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.value_mut(key).map(Arc::make_mut)
    }

    /// The objects in the order of their keys, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = Arc::make_mut(&mut self.chunks).iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(_, value)| Arc::make_mut(value)))
    }
}

fn search<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// A place in a map.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    chunk: usize,
    entry: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(map: &'a SharedMap<K, V>) -> Self {
        Self { chunks: &map.chunks, chunk: 0, entry: 0 }
    }

    /// Whether both are at the beginning of one chunk.
    fn shares_chunk(&self, other: &Self) -> bool {
        let here = (self.chunks.get(self.chunk), other.chunks.get(other.chunk));
        let (Some(one), Some(other_one)) = here else { return false };
        self.entry == 0 && other.entry == 0 && Arc::ptr_eq(one, other_one)
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.chunks.get(self.chunk).map(|chunk| &chunk[self.entry])
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let entry = self.peek()?;
        self.entry += 1;
        if self.entry == self.chunks[self.chunk].len() {
            (self.chunk, self.entry) = (self.chunk + 1, 0);
        }
        Some(entry)
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        if self.is_empty() {
            *self = entries.into_iter().collect();
        } else {
            entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    /// Of entries with one key, the last stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        entries.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let len = entries.len();
        let mut entries = entries.into_iter();
        let chunks = std::iter::from_fn(|| {
            // Not full, so that the first insertions split nothing.
            let chunk: Vec<_> = entries.by_ref().take(FULL * 3 / 4).collect();
            (!chunk.is_empty()).then(|| Arc::new(chunk))
        });
        Self { chunks: Arc::new(chunks.collect()), len }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Box<dyn Iterator<Item = (&'a K, &'a V)> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no entry for the key")
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differences(other).is_empty()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
