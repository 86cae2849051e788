//! Arrays in memory.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    slice,
    sync::atomic::AtomicU64,
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
    /// Maps `len` bytes of elements that are `stride` bytes apart, to be read.
    pub(super) fn new(map: BorrowedFd<'_>, len: usize, stride: usize) -> io::Result<Self> {
        Self::with_access(libc::PROT_READ, map, len, stride)
    }

    fn with_access(access: i32, map: BorrowedFd<'_>, len: usize, stride: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
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

/// Has all threads allocate from one heap, to be called before there are others. Each with its own, they would keep
/// apart what is free in them. And what is large or last in it goes back to the kernel when it is freed, also after
/// something very large has been freed, which else has the allocator keep as much from then on.
pub fn allocate_from_one_heap() {
    // What the C library begins with.
    #[cfg(target_env = "gnu")]
    const LARGE: libc::c_int = 128 << 10;
    // SAFETY: sets numbers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    };
}

/// Gives back to the kernel what the allocator keeps for later.
pub fn give_back_free_memory() {
    // SAFETY: takes no pointer, and leaves what is in use where it is.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Gives back the pages of the program's file in which these constants are. Who reads them once more gets them from
/// the file once more.
pub fn give_back_pages(constants: &'static [u8]) {
    let Ok(Some(page)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) else { return };
    let (page, range) = (page as usize, constants.as_ptr_range());
    let start = range.start.addr().next_multiple_of(page);
    let len = (range.end.addr() / page * page).saturating_sub(start);
    // SAFETY: whole pages inside of what lives as long as the process, is never written, and so is as in the file.
    unsafe { libc::madvise(range.start.with_addr(start).cast_mut().cast(), len, libc::MADV_DONTNEED) };
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: what `mmap` gave; nothing borrows from it.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// An array map in memory, to be written there while programs run: by tests, as another processor would.
#[derive(Debug)]
pub struct Shared(Mapped);

impl Shared {
    /// Maps `len` bytes of elements that are `stride` bytes apart, a multiple of eight.
    pub(super) fn new(map: BorrowedFd<'_>, len: usize, stride: usize) -> io::Result<Self> {
        Mapped::with_access(libc::PROT_READ | libc::PROT_WRITE, map, len, stride).map(Self)
    }

    /// The words of an element.
    pub fn words(&self, index: usize) -> &[AtomicU64] {
        let Mapped { address, stride, .. } = &self.0;
        assert!(index < self.0.len() && stride.is_multiple_of(size_of::<u64>()));
        // SAFETY: inside the mapping, which is writable and starts at a page; any bytes are a word, and what
        // programs write meanwhile is what another thread would.
        unsafe {
            slice::from_raw_parts(address.as_ptr().add(index * stride).cast(), stride / size_of::<u64>())
        }
    }
}
