//! Memory in whole words.
//!
//! LLVM's BPF backend has no memmove and no memset of its own: where an array moves between two places
//! that might overlap, or is filled, it calls a function that goes byte by byte, which costs more than all
//! else on a packet's way. So whatever is moved on that way is moved by [`copy`].
//!
//! Not for the stack, which the kernel only lets be accessed in aligned words.

use core::arch::asm;

/// Copies a value in words of 8, 4 and 2 bytes.
///
/// # Safety
/// Both pointers must be good for a value of `T`, at any alignment.
#[inline(always)]
pub unsafe fn copy<T>(to: *mut T, from: *const T) {
    const { assert!(size_of::<T>().is_multiple_of(2)) };
    let (to, from) = (to.cast::<u8>(), from.cast::<u8>());
    let mut at = 0;
    // SAFETY: in bounds of both values, which the caller vouches for.
    unsafe {
        while at + 8 <= size_of::<T>() {
            copy_word::<u64>(to.add(at), from.add(at));
            at += 8;
        }
        if at + 4 <= size_of::<T>() {
            copy_word::<u32>(to.add(at), from.add(at));
            at += 4;
        }
        if at + 2 <= size_of::<T>() {
            copy_word::<u16>(to.add(at), from.add(at));
        }
    }
}

/// Whether two values are the same, byte for byte.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
pub unsafe fn same<T>(one: *const T, other: *const T) -> bool {
    // SAFETY: the caller's. Opaque, or LLVM would make a branch a word.
    opaque(unsafe { difference(one, other) }) == 0
}

/// The bits in which two values differ, of all words together.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
pub unsafe fn difference<T>(one: *const T, other: *const T) -> u64 {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let (one, other) = (one.cast::<u8>(), other.cast::<u8>());
    let mut difference = 0;
    let mut at = 0;
    // SAFETY: in bounds of both values, which the caller vouches for.
    unsafe {
        while at + 8 <= size_of::<T>() {
            difference |= read::<u64>(one.add(at)) ^ read::<u64>(other.add(at));
            at += 8;
        }
        if at + 4 <= size_of::<T>() {
            difference |= u64::from(read::<u32>(one.add(at)) ^ read::<u32>(other.add(at)));
        }
    }
    difference
}

/// A number that the compiler knows nothing of.
#[inline(always)]
pub fn opaque(mut number: u64) -> u64 {
    // SAFETY: no instruction. The register is the one that functions answer in.
    unsafe { asm!("", inout("r0") number, options(pure, nomem, nostack)) };
    number
}

/// Fills a value with zeroes.
///
/// # Safety
/// The pointer must be good for a value of `T`, and zeroes must be one.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: in bounds of the value, which the caller vouches for.
        unsafe { to.cast::<Word<u64>>().add(word).write_volatile(Word(0)) };
    }
}

/// A word at any address.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Word<T: Copy>(T);

/// Copies one word. Volatile, or LLVM would make one move of them all.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
unsafe fn copy_word<T: Copy>(to: *mut u8, from: *const u8) {
    // SAFETY: the caller's word.
    unsafe { to.cast::<Word<T>>().write_volatile(Word(read(from))) }
}

/// Reads one word.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
unsafe fn read<T: Copy>(from: *const u8) -> T {
    // SAFETY: the caller's word.
    unsafe { from.cast::<Word<T>>().read_volatile().0 }
}
