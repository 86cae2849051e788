//! What each floor does.

use core::hint::black_box;

use crate::{HASH, LRU, MISSES};

/// Addresses and ports of a TCP segment over IPv4.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    addresses: u64,
    ports: u32,
    protocol: u32,
}

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const TCP: u8 = 6;
/// Offsets in a frame with an IPv4 header of 20 bytes.
const ETHERTYPE: usize = 12;
const VERSION: usize = 14;
const FRAGMENT: usize = 20;
const PROTOCOL: usize = 23;
const ADDRESSES: usize = 26;
const PORTS: usize = 34;
const END: usize = 54;

/// Nothing.
#[inline(always)]
pub fn null(_: usize, _: usize) {}

/// Reads the headers.
#[inline(always)]
pub fn parse_only(data: usize, end: usize) {
    // Taken apart first: the padding of `None` is no value that the verifier lets be stored.
    if let Some(key) = parse(data, end) {
        black_box(key);
    }
}

/// Reads the headers and looks the flow up in a hash map.
#[inline(always)]
pub fn hash(data: usize, end: usize) {
    let Some(key) = parse(data, end) else { return };
    match HASH.get_ptr(&key) {
        // SAFETY: an element of the map.
        Some(value) => drop(black_box(unsafe { value.read_volatile() })),
        None => miss(),
    }
}

/// Reads the headers and looks the flow up in an LRU map.
#[inline(always)]
pub fn lru(data: usize, end: usize) {
    let Some(key) = parse(data, end) else { return };
    match LRU.get_ptr(&key) {
        // SAFETY: an element of the map.
        Some(value) => drop(black_box(unsafe { value.read_volatile() })),
        None => miss(),
    }
}

/// Reads the headers and writes the flow into an LRU map.
#[inline(always)]
pub fn update(data: usize, end: usize) {
    let Some(key) = parse(data, end) else { return };
    if LRU.insert(&key, &1, 0).is_err() {
        miss();
    }
}

#[inline(always)]
fn parse(data: usize, end: usize) -> Option<Key> {
    if data + END > end {
        return None;
    }
    // SAFETY: in bounds, as checked.
    unsafe {
        if read::<u16>(data + ETHERTYPE) != ETHERTYPE_IPV4
            || read::<u8>(data + VERSION) != 0x45
            || read::<u16>(data + FRAGMENT) & 0x3fff_u16.to_be() != 0
            || read::<u8>(data + PROTOCOL) != TCP
        {
            return None;
        }
        Some(Key { addresses: read(data + ADDRESSES), ports: read(data + PORTS), protocol: u32::from(TCP) })
    }
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T: Copy>(T);

/// # Safety
/// The address must be inside the packet.
#[inline(always)]
unsafe fn read<T: Copy>(at: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { (at as *const Unaligned<T>).read_volatile().0 }
}

#[inline(always)]
fn miss() {
    if let Some(misses) = MISSES.get_ptr_mut(0) {
        // SAFETY: an element of the map; rounds run one after the other.
        unsafe { *misses += 1 };
    }
}
