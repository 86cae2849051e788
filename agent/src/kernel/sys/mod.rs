//! bpf(2) and mmap(2): what aya does not offer, and the only unsafe code of the agent.
//!
//! Every function takes slices whose lengths it checks against what the kernel will read and write.
#![expect(unsafe_code, reason = "system calls that take pointers")]

mod clock;
mod map;
mod memory;
mod run;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use tokio::io::{Interest, unix::AsyncFd};
use weir_common::{plain::Plain, service::SourceKey};

pub use self::{
    clock::jiffies,
    map::{MMAPABLE, MapFd, MapInfo, NO_PREALLOC, map_type},
    memory::{Mapped, Shared, allocate_from_one_heap, give_back_free_memory, give_back_pages},
    run::{Outcome, Packet, test_run, test_run_xdp},
};

/// What the kernel says of a link: the beginning of `struct bpf_link_info` of a TCX link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// Type of the link.
    pub kind: u32,
    /// Number of the link.
    pub id: u32,
    /// Number of its program.
    pub program: u32,
    reserved: u32,
    /// Interface it is attached to; 0 when the interface is gone or the link was detached.
    pub ifindex: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// Key of an LPM trie: a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix<A> {
    /// Its length in bits.
    pub length: u32,
    /// Its address.
    pub address: A,
}

weir_common::plain!(
    LinkInfo: 24,
    Prefix<weir_common::addr::V4>: 8, Prefix<weir_common::addr::V6>: 20,
    Prefix<SourceKey<weir_common::addr::V4>>: 12, Prefix<SourceKey<weir_common::addr::V6>>: 24,
);

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

/// Opens what is pinned at a path.
///
/// # Errors
/// When nothing is.
pub fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the path ends with a zero byte; the descriptor that is returned is ours.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(7, &mut attr)?)) }
}

/// Pins an object at a path.
///
/// # Errors
/// When something is there already, or the path is not on a BPF file system.
pub fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path ends with a zero byte.
    unsafe { bpf(6, &mut attr) }.map(drop)
}

/// What the kernel says of a map or a link.
///
/// # Errors
/// When the kernel refuses it.
pub fn object_info<T: Plain + Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let len = size_of::<T>() as u32;
    let mut attr = Info { fd: object.as_raw_fd() as u32, len, info: (&raw mut info) as u64 };
    // SAFETY: the kernel writes at most `len` bytes, and `Plain` takes any.
    unsafe { bpf(15, &mut attr) }?;
    Ok(info)
}

/// Watches a descriptor, by a copy of it. Needs a tokio runtime.
///
/// # Errors
/// When it cannot be copied or watched.
pub fn when_readable(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = fd.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open, and the same descriptor, as long as it lives.
    unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }.map_err(io::Error::from)
}

/// Waits until every program run that is under way has ended: `MEMBARRIER_CMD_GLOBAL` waits for an RCU
/// grace period, and programs run inside RCU read-side sections. Where the kernel does not offer it (with
/// `nohz_full`), a sleep has to do: a run takes microseconds, with interrupts milliseconds at most.
pub fn wait_for_programs() {
    // SAFETY: membarrier(2) takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Number of CPUs that a per-CPU map has values for.
///
/// # Errors
/// When /sys cannot be read.
pub fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// bpf(2), again where it was interrupted.
///
/// # Safety
/// Addresses in `attr` must point to memory that the command may use as it does.
unsafe fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    loop {
        // SAFETY: `attr` is as long as is said; what it points to is the caller's promise.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
        if result >= 0 {
            return Ok(result as i32);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}
