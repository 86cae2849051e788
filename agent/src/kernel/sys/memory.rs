//! Arrays in memory.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

use weir_common::plain::Plain;

/// An array map in memory. Programs go on writing to it.
#[derive(Debug)]
pub struct Mapped {
    address: NonNull<u8>,
    len: usize,
    stride: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only read.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps `len` bytes of elements that are `stride` bytes apart.
    pub(super) fn new(map: BorrowedFd<'_>, len: usize, stride: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { address, len, stride })
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.len / self.stride
    }

    /// Whether there is no element.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of an element, as far as a copy of memory that changes can be one.
    pub fn read<T: Plain>(&self, index: usize) -> T {
        assert!(index < self.len() && size_of::<T>() <= self.stride && align_of::<T>() <= 8);
        // SAFETY: inside the mapping, aligned as elements are; `Plain` takes any bytes, torn ones too.
        unsafe { self.address.as_ptr().add(index * self.stride).cast::<T>().read_volatile() }
    }
}

/// Gives back to the kernel what the allocator keeps for later.
pub fn give_back_free_memory() {
    // SAFETY: takes no pointer, and leaves what is in use where it is.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: what `mmap` gave; nothing borrows from it.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}
