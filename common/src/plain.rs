//! Types whose bytes may cross between the kernel and the agent.

/// A `repr(C)` type without padding, pointers or invalid bit patterns.
///
/// # Safety
/// Every byte of the type must be initialised whatever its value is (no padding), and every pattern of
/// bytes must be a valid value. [`plain!`](crate::plain!) checks the size against the sum that the
/// author names, which is how padding shows.
pub unsafe trait Plain: Copy + 'static {}

/// Implements [`Plain`] and asserts the size in bytes.
#[macro_export]
macro_rules! plain {
    ($($ty:ty : $size:literal),+ $(,)?) => {$(
        // SAFETY: repr(C) of integers and plain arrays; the assertion shows that there is no padding.
        unsafe impl $crate::plain::Plain for $ty {}
        const _: () = assert!(core::mem::size_of::<$ty>() == $size);
    )+};
}

plain!(u8: 1, u16: 2, u32: 4, u64: 8, [u32; 2]: 8, [u64; 8]: 64);

/// The bytes of a value, as they lie in a map.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` has no padding, so all `size_of::<T>()` bytes are initialised.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value that `bytes` hold, or `None` when there are too few of them.
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, read without an alignment demand, and any pattern is valid for `Plain`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
