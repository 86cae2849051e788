//! Maps: elements, batches, memory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{Mapped, Shared, bpf, object_info, possible_cpus};

/// Map types of `enum bpf_map_type` that are told apart here.
pub mod map_type {
    /// `BPF_MAP_TYPE_HASH`.
    pub const HASH: u32 = 1;
    /// `BPF_MAP_TYPE_ARRAY`.
    pub const ARRAY: u32 = 2;
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    pub const PERCPU_HASH: u32 = 5;
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    pub const PERCPU_ARRAY: u32 = 6;
    /// `BPF_MAP_TYPE_LRU_HASH`.
    pub const LRU_HASH: u32 = 9;
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    pub const LRU_PERCPU_HASH: u32 = 10;
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    pub const LPM_TRIE: u32 = 11;
}

/// `BPF_F_NO_PREALLOC`: elements are allocated as they come.
pub const NO_PREALLOC: u32 = 1 << 0;
/// `BPF_F_MMAPABLE`: the array can be mapped into memory.
pub const MMAPABLE: u32 = 1 << 10;

/// What the kernel says of a map: the beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    /// One of [`map_type`], or another.
    pub kind: u32,
    /// Number of the map.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most elements.
    pub max_entries: u32,
    /// Flags it was created with.
    pub flags: u32,
}

weir_common::plain!(MapInfo: 24);

#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    /// The value, or for GET_NEXT_KEY the next key.
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// A map whose sizes are known.
#[derive(Debug)]
pub struct MapFd {
    fd: OwnedFd,
    info: MapInfo,
    value_bytes: usize,
}

/// `BPF_MAP_*` commands on one element.
#[derive(Clone, Copy)]
enum OnElement {
    Lookup = 1,
    Update = 2,
    Delete = 3,
    NextKey = 4,
}

impl MapFd {
    /// Asks the kernel for the sizes of a map.
    ///
    /// # Errors
    /// When `fd` is no map.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info: MapInfo = object_info(fd.as_fd())?;
        let per_cpu =
            matches!(info.kind, map_type::PERCPU_HASH | map_type::PERCPU_ARRAY | map_type::LRU_PERCPU_HASH);
        let value_bytes = match per_cpu {
            true => info.value_size.next_multiple_of(8) as usize * possible_cpus()?,
            false => info.value_size as usize,
        };
        Ok(Self { fd, info, value_bytes })
    }

    /// Creates a map.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn create(
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    ) -> io::Result<Self> {
        let mut attr = Create { kind, key_size, value_size, max_entries, flags };
        // SAFETY: BPF_MAP_CREATE reads integers only; the descriptor that it returns is ours.
        let fd = unsafe { OwnedFd::from_raw_fd(bpf(0, &mut attr)?) };
        Self::new(fd)
    }

    /// What the kernel said of it.
    pub const fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Bytes that a look-up gives: a value, or one for each possible CPU.
    pub const fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Reads the value of `key`; false when there is none.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        assert_eq!(value.len(), self.value_bytes);
        found(self.on_element(OnElement::Lookup, key, value.as_mut_ptr().cast(), 0))
    }

    /// Writes the value of `key`.
    ///
    /// # Errors
    /// When the kernel refuses it, as when the map is full.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value_bytes);
        self.on_element(OnElement::Update, key, value.as_ptr().cast_mut().cast(), 0)
    }

    /// Removes `key`; false when it was not there.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        found(self.on_element(OnElement::Delete, key, std::ptr::null_mut(), 0))
    }

    /// Writes into `next` the key that follows `key`, or the first; false when there is none.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        assert_eq!(next.len(), self.info.key_size as usize);
        let next = next.as_mut_ptr().cast();
        found(match key {
            Some(key) => self.on_element(OnElement::NextKey, key, next, 0),
            None => self.element(OnElement::NextKey, 0, next, 0),
        })
    }

    fn on_element(
        &self,
        command: OnElement,
        key: &[u8],
        value: *mut libc::c_void,
        flags: u64,
    ) -> io::Result<()> {
        assert_eq!(key.len(), self.info.key_size as usize);
        self.element(command, key.as_ptr() as u64, value, flags)
    }

    fn element(&self, command: OnElement, key: u64, value: *mut libc::c_void, flags: u64) -> io::Result<()> {
        let mut attr =
            Element { map: self.fd.as_raw_fd() as u32, reserved: 0, key, value: value as u64, flags };
        // SAFETY: the callers check that key and value point to as many bytes as the map's sizes say.
        unsafe { bpf(command as i32, &mut attr) }.map(drop)
    }

    /// Reads up to `keys.len() / key_size` elements from `cursor` on and moves it; gives the number read,
    /// and whether there may be more.
    ///
    /// # Errors
    /// `ENOTSUP` where the kernel has no batches for this map.
    pub fn lookup_batch(
        &self,
        cursor: &mut Option<Vec<u8>>,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let count = self.count(keys.len(), values.len());
        // Hash maps keep a bucket number there, the others a key.
        let mut next = vec![0; (self.info.key_size as usize).max(8)];
        let from = cursor.as_ref().map_or(0, |cursor| cursor.as_ptr() as u64);
        let mut attr = Batch {
            from,
            to: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count,
            map: self.fd.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: `keys` and `values` hold `count` elements, the cursors a key or a bucket number.
        let more = found(unsafe { bpf(24, &mut attr) }.map(drop))?;
        *cursor = Some(next);
        Ok((attr.count as usize, more))
    }

    /// Writes elements in order.
    ///
    /// # Errors
    /// `ENOTSUP` where the kernel has no batches for this map; otherwise those before the failing one are
    /// written.
    pub fn update_batch(&self, keys: &[u8], values: &[u8]) -> io::Result<()> {
        let count = self.count(keys.len(), values.len());
        self.batch(26, keys, values.as_ptr() as u64, count)
    }

    /// Removes elements in order.
    ///
    /// # Errors
    /// `ENOTSUP` where the kernel has no batches for this map, `ENOENT` at the first that is not there.
    pub fn delete_batch(&self, keys: &[u8]) -> io::Result<()> {
        let count = keys.len() / self.info.key_size as usize;
        assert_eq!(keys.len(), count * self.info.key_size as usize);
        self.batch(27, keys, 0, count as u32)
    }

    fn batch(&self, command: i32, keys: &[u8], values: u64, count: u32) -> io::Result<()> {
        let mut attr = Batch {
            from: 0,
            to: 0,
            keys: keys.as_ptr() as u64,
            values,
            count,
            map: self.fd.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the callers check that keys and values hold `count` elements.
        unsafe { bpf(command, &mut attr) }.map(drop)
    }

    fn count(&self, keys: usize, values: usize) -> u32 {
        let count = keys / self.info.key_size as usize;
        assert_eq!((keys, values), (count * self.info.key_size as usize, count * self.value_bytes));
        count as u32
    }

    /// Maps an array that was created with [`MMAPABLE`], to be read.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn map(&self) -> io::Result<Mapped> {
        let (len, stride) = self.extent();
        Mapped::new(self.fd.as_fd(), len, stride)
    }

    /// Maps an array that was created with [`MMAPABLE`], to be written while programs run.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn share(&self) -> io::Result<Shared> {
        let (len, stride) = self.extent();
        Shared::new(self.fd.as_fd(), len, stride)
    }

    /// Bytes of all elements, and from one to the next.
    fn extent(&self) -> (usize, usize) {
        let stride = self.info.value_size.next_multiple_of(8) as usize;
        (stride * self.info.max_entries as usize, stride)
    }
}

impl AsFd for MapFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
