//! A packet at a TC hook: the one place that touches packet memory.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::{bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_pull_data},
};
use weir_common::reason::Reason;

/// Bits of an offset into a packet.
const MAX_OFFSET: usize = 0x3fff;

/// A map key on the stack, which the kernel only lets be accessed in aligned words.
#[repr(C, align(8))]
pub struct Aligned<T>(pub T);

/// The same for a key that begins with one 32-bit word before its address.
#[repr(C, align(8))]
pub struct AlignedAfterWord<T>(u32, pub T);

impl<T> AlignedAfterWord<T> {
    /// Wraps a key.
    #[inline(always)]
    pub fn new(key: T) -> Self {
        Self(0, key)
    }
}

/// A packet at a TC hook.
pub struct Ctx {
    skb: *mut __sk_buff,
}

/// Reads a field of the kernel's `__sk_buff`.
macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(&self) -> u32 {
            // SAFETY: the kernel hands the program a valid context, whose fields the verifier knows.
            unsafe { (*self.skb).$name }
        }
    };
}

impl Ctx {
    /// Wraps the context of a classifier.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    field!(/// Length of the packet in bytes, link-layer header included.
        len);
    field!(/// The interface that the hook belongs to.
        ifindex);
    field!(/// The interface that the packet came in by; 0: the node itself sent it.
        ingress_ifindex);
    field!(/// Whether the kernel took a VLAN tag off the frame and keeps it beside it.
        vlan_present);
    field!(/// Length of the segments of a segmentation-offload packet, else 0.
        gso_size);
    field!(/// The packet's mark; cleared whenever a packet crosses from one network namespace to another.
        mark);
    field!(data);
    field!(data_end);

    /// Sets the mark.
    #[inline(always)]
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: as in `field!`; the verifier allows this field to be written.
        unsafe { (*self.skb).mark = mark }
    }

    /// The context as the helpers and the log macros take it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut __sk_buff {
        self.skb
    }

    /// A pointer to `T` at `offset` from the start of the frame, if all of it is in linear memory.
    ///
    /// `T` must have alignment 1. Valid until the packet's memory is moved: by [`pull`](Self::pull) and
    /// by the checksum helper in [`replace_l4_check`](Self::replace_l4_check).
    #[inline(always)]
    fn at<T>(&self, offset: u32) -> Option<*mut T> {
        const { assert!(align_of::<T>() == 1) };
        let start = self.data() as usize;
        let end = self.data_end() as usize;
        // No header starts further in than a whole chain of IPv6 extension headers; the mask tells the verifier.
        let offset = offset as usize & MAX_OFFSET;
        if start + offset + size_of::<T>() > end {
            return None;
        }
        Some((start + offset) as *mut T)
    }

    /// The header `T` at `offset`, in place: a copy on the stack would be of bytes at odd offsets.
    ///
    /// Read it before the packet's memory is moved, see [`at`](Self::at).
    ///
    /// # Errors
    /// [`Reason::InvalidPacket`] when the packet ends before it does.
    #[inline(always)]
    pub fn header<T: Copy>(&self, offset: u32) -> Result<&T, Reason> {
        match self.at::<T>(offset) {
            // SAFETY: `at` has checked the bounds against the packet's end; `T` is made of bytes.
            Some(pointer) => Ok(unsafe { &*pointer }),
            None => Err(Reason::InvalidPacket),
        }
    }

    /// The same, to be changed in place.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "the packet is behind the context, and one stage has it at a time"
    )]
    pub fn header_mut<T: Copy>(&self, offset: u32) -> Result<&mut T, Reason> {
        match self.at::<T>(offset) {
            // SAFETY: as in `header`; nobody else has the packet.
            Some(pointer) => Ok(unsafe { &mut *pointer }),
            None => Err(Reason::InvalidPacket),
        }
    }

    /// Sees to it that the first `len` bytes, or all there are, can be read.
    #[inline(always)]
    pub fn pull(&self, len: u32) {
        let have = self.data_end().wrapping_sub(self.data());
        if have < len && have < self.len() {
            let len = if len < self.len() { len } else { self.len() };
            // SAFETY: plain helper call; a failure shows when the bytes are read. No pointer into the packet is kept.
            unsafe { bpf_skb_pull_data(self.skb, len) };
        }
    }

    /// Applies the change `diff` to the transport checksum at `offset`, with the flags of
    /// `bpf_l4_csum_replace`. A program cannot see whether a local socket left the checksum to the
    /// device; the helper can, hence no direct write here.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when the kernel refuses.
    #[inline(always)]
    pub fn replace_l4_check(&self, offset: u32, diff: u32, flags: u64) -> Result<(), Reason> {
        // SAFETY: plain helper call. No pointer into the packet is kept.
        match unsafe { bpf_l4_csum_replace(self.skb, offset, 0, u64::from(diff), flags) } {
            0 => Ok(()),
            _ => Err(Reason::RewriteFailed),
        }
    }

    /// Hands the packet to the pod behind the host-side interface `ifindex`, past its queue.
    #[inline(always)]
    pub fn redirect_peer(&self, ifindex: u32) -> i32 {
        // SAFETY: plain helper call; an interface that is gone drops the packet.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Hands the packet to the output of the interface `ifindex`.
    #[inline(always)]
    pub fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: as in `redirect_peer`.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Hands the packet to the input of the interface `ifindex`.
    #[inline(always)]
    pub fn redirect_ingress(&self, ifindex: u32) -> i32 {
        // SAFETY: as in `redirect_peer`.
        unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 }
    }

    /// Hands the packet to the output of `ifindex` after a new look-up of route and neighbour.
    #[inline(always)]
    pub fn redirect_neigh(&self, ifindex: u32) -> i32 {
        // SAFETY: as in `redirect_peer`; without parameters the helper takes the route of the packet's destination.
        unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
    }
}
