//! Maps with types.

use std::{io, marker::PhantomData};

use weir_common::plain::{Plain, bytes_of, from_bytes};

use super::sys::MapFd;

/// A map from `K` to `V`.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: MapFd,
    types: PhantomData<fn() -> (K, V)>,
}

/// Elements that are read at once.
const CHUNK: usize = 4096;

impl<K: Plain, V: Plain> Map<K, V> {
    /// Takes a map whose keys and values have the sizes of `K` and `V`.
    ///
    /// # Errors
    /// When they have not.
    pub fn new(fd: MapFd) -> io::Result<Self> {
        let info = fd.info();
        let (key, value) = (info.key_size as usize, info.value_size as usize);
        if (key, value) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::other(format!(
                "has keys of {key} bytes and values of {value}, not of {} and {}",
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        Ok(Self { fd, types: PhantomData })
    }

    /// The map without its types.
    pub const fn fd(&self) -> &MapFd {
        &self.fd
    }

    /// The value of a key; of a per-CPU map, that of every possible CPU.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn get_all(&self, key: &K) -> io::Result<Vec<V>> {
        let mut bytes = vec![0; self.fd.value_bytes()];
        let found = self.fd.lookup(bytes_of(key), &mut bytes)?;
        Ok(if found { self.values(&bytes) } else { Vec::new() })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self.get_all(key)?.first().copied())
    }

    /// Adds or replaces elements in order.
    ///
    /// # Errors
    /// When the kernel refuses one of them; those before it are written.
    pub fn put(&self, elements: &[(K, V)]) -> io::Result<()> {
        let mut keys = Vec::with_capacity(elements.len() * size_of::<K>());
        let mut values = Vec::with_capacity(elements.len() * size_of::<V>());
        for (key, value) in elements {
            keys.extend_from_slice(bytes_of(key));
            values.extend_from_slice(bytes_of(value));
        }
        if elements.len() > 1 && self.fd.update_batch(&keys, &values).is_ok() {
            return Ok(());
        }
        // No batches for this map, or one element is refused: one by one tells why.
        elements.iter().try_for_each(|(key, value)| self.fd.update(bytes_of(key), bytes_of(value)))
    }

    /// Removes elements; those that are not there do not matter.
    ///
    /// # Errors
    /// When the kernel refuses one of them.
    pub fn delete(&self, keys: &[K]) -> io::Result<()> {
        let bytes: Vec<u8> = keys.iter().flat_map(bytes_of).copied().collect();
        if keys.len() > 1 && self.fd.delete_batch(&bytes).is_ok() {
            return Ok(());
        }
        keys.iter().try_for_each(|key| self.fd.delete(bytes_of(key)).map(drop))
    }

    /// Sets the values of keys to zero, on every CPU where the map has one for each.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn reset(&self, keys: &[K]) -> io::Result<()> {
        let zeros = vec![0; self.fd.value_bytes()];
        keys.iter().try_for_each(|key| self.fd.update(bytes_of(key), &zeros))
    }

    /// Every element, each with its value or, of a per-CPU map, with that of every possible CPU.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn entries_all(&self) -> io::Result<Vec<(K, Vec<V>)>> {
        let mut entries = Vec::new();
        self.for_each(|key, values| entries.push((key, self.values(values))))?;
        Ok(entries)
    }

    /// Every element.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.for_each(|key, value| entries.extend(from_bytes(value).map(|value| (key, value))))?;
        Ok(entries)
    }

    /// The elements of an array in order.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn elements(&self) -> io::Result<Vec<V>> {
        let mut elements = Vec::with_capacity(self.fd.info().max_entries as usize);
        self.for_each(|_, value| elements.extend(from_bytes::<V>(value)))?;
        Ok(elements)
    }

    fn for_each(&self, mut each: impl FnMut(K, &[u8])) -> io::Result<()> {
        let mut keys = vec![0; CHUNK * size_of::<K>()];
        let mut values = vec![0; CHUNK * self.fd.value_bytes()];
        let mut cursor = None;
        loop {
            let (count, more) = match self.fd.lookup_batch(&mut cursor, &mut keys, &mut values) {
                // This kernel has no batches for this map.
                Err(_) if cursor.is_none() => return self.for_each_by_key(each),
                batch => batch?,
            };
            let keys = keys.chunks_exact(size_of::<K>()).filter_map(from_bytes);
            let values = values.chunks_exact(self.fd.value_bytes());
            keys.zip(values).take(count).for_each(|(key, values)| each(key, values));
            if !more {
                return Ok(());
            }
        }
    }

    fn for_each_by_key(&self, mut each: impl FnMut(K, &[u8])) -> io::Result<()> {
        let mut key = vec![0; size_of::<K>()];
        let mut values = vec![0; self.fd.value_bytes()];
        let mut more = self.fd.next_key(None, &mut key)?;
        while more {
            if self.fd.lookup(&key, &mut values)?
                && let Some(key) = from_bytes(&key)
            {
                each(key, &values);
            }
            let previous = key.clone();
            more = self.fd.next_key(Some(&previous), &mut key)?;
        }
        Ok(())
    }

    /// The values in what a look-up gave: per-CPU ones lie 8 bytes or a multiple of it apart.
    fn values(&self, bytes: &[u8]) -> Vec<V> {
        let single = bytes.len() == size_of::<V>();
        let stride = if single { size_of::<V>() } else { size_of::<V>().next_multiple_of(8) };
        bytes.chunks_exact(stride).filter_map(from_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_common::reason::Counter;

    use super::*;
    use crate::kernel::sys::{MMAPABLE, NO_PREALLOC, map_type, possible_cpus};

    fn map<K: Plain, V: Plain>(kind: u32, max_entries: u32, flags: u32) -> Map<K, V> {
        let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
        Map::new(MapFd::create(kind, key, value, max_entries, flags).expect("needs root")).unwrap()
    }

    #[test]
    fn elements_of_a_hash_map_come_back() {
        let map: Map<u32, u64> = map(map_type::HASH, 20_000, 0);
        let elements: Vec<_> = (0..10_000).map(|key| (key, u64::from(key) * 3)).collect();
        map.put(&elements).unwrap();
        let expected: BTreeMap<_, _> = elements.iter().copied().collect();
        assert_eq!(map.entries().unwrap().into_iter().collect::<BTreeMap<_, _>>(), expected);
        let mut by_key = 0;
        map.for_each_by_key(|_, _| by_key += 1).unwrap();
        assert_eq!(by_key, 10_000);
        assert_eq!(map.get(&7).unwrap(), Some(21));

        map.delete(&[7, 20_000, 8]).unwrap();
        assert_eq!((map.get(&7).unwrap(), map.get(&8).unwrap()), (None, None));
        assert_eq!(map.entries().unwrap().len(), 9_998);
    }

    #[test]
    fn elements_of_a_trie_come_back() {
        let map: Map<[u32; 2], u64> = map(map_type::LPM_TRIE, 100, NO_PREALLOC);
        let elements: Vec<_> = (0..50_u32).map(|host| ([32, host.to_be()], u64::from(host))).collect();
        map.put(&elements).unwrap();
        map.put(&[([8, 0], 1000)]).unwrap();
        assert_eq!(map.get(&[32, 99_u32.to_be()]).unwrap(), Some(1000), "the longest match");
        map.delete(&[[32, 7_u32.to_be()], [32, 99_u32.to_be()]]).unwrap();
        assert_eq!(map.entries().unwrap().len(), 50);
    }

    #[test]
    fn a_refused_element_is_an_error() {
        let map: Map<u32, u64> = map(map_type::ARRAY, 4, 0);
        let error = map.put(&[(3, 1), (4, 1)]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        assert_eq!(map.get(&3).unwrap(), Some(1));
    }

    #[test]
    fn per_cpu_values_are_told_apart() {
        let map: Map<u32, Counter> = map(map_type::PERCPU_ARRAY, 3, 0);
        let all = vec![Counter { packets: 5, bytes: 500 }; possible_cpus().unwrap()];
        let bytes: Vec<u8> = all.iter().flat_map(bytes_of).copied().collect();
        map.fd().update(bytes_of(&1_u32), &bytes).unwrap();
        assert_eq!(map.get_all(&1).unwrap(), all);
        let zeros = vec![Counter::default(); all.len()];
        assert_eq!(map.entries_all().unwrap(), [(0, zeros.clone()), (1, all), (2, zeros.clone())]);
        map.reset(&[1]).unwrap();
        assert_eq!(map.get_all(&1).unwrap(), zeros);
    }

    #[test]
    fn a_mapped_array_shows_what_is_written() {
        let map: Map<u32, Counter> = map(map_type::ARRAY, 1000, MMAPABLE);
        let memory = map.fd().map().unwrap();
        assert_eq!((memory.len(), memory.read::<Counter>(999)), (1000, Counter::default()));
        map.put(&[(999, Counter { packets: 1, bytes: 2 })]).unwrap();
        assert_eq!(memory.read::<Counter>(999), Counter { packets: 1, bytes: 2 });
    }

    #[test]
    fn a_map_of_other_sizes_is_refused() {
        let fd = MapFd::create(map_type::HASH, 4, 8, 1, 0).unwrap();
        let error = Map::<u32, u32>::new(fd).unwrap_err();
        assert_eq!(error.to_string(), "has keys of 4 bytes and values of 8, not of 4 and 4");
    }
}
