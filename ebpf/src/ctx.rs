//! A packet at a hook: the one place that touches packet memory.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, BPF_F_MARK_MANGLED_0,
        BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_check_mtu, bpf_clone_redirect, bpf_csum_diff, bpf_l4_csum_replace, bpf_redirect,
        bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes,
    },
};
use weir_common::{
    addr::{Addr, Be16},
    checksum::{Change, fold},
    flow::Tuple,
    reason::Reason,
};

use crate::{family::Family, maps::Buffer, parse::Packet, rewrite, slow};

/// Bits of an offset into a packet.
const MAX_OFFSET: usize = 0x3fff;

/// Most bytes that `bpf_csum_diff` sums up at once in older kernels.
const MOST_SUMMED: u32 = 512;

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

/// A packet at a hook, behind the context that the kernel hands to a program of this type: at TC where
/// nothing else is said.
pub struct Ctx<R = __sk_buff> {
    raw: *mut R,
}

/// Where a transport checksum stands in the frame.
#[derive(Clone, Copy)]
pub struct CheckField {
    /// The offset.
    pub at: u32,
    /// Whether it is UDP's: 0 says that there is none, and a sum of 0 is written as all ones.
    pub is_udp: bool,
}

impl CheckField {
    /// The flags that the kernel's helper takes for it.
    #[inline(always)]
    pub fn flags(self) -> u64 {
        u64::from(self.is_udp) * u64::from(BPF_F_MARK_MANGLED_0)
    }

    /// The field after a change, from the field before it, where there was a checksum.
    #[inline(always)]
    pub fn mended(self, check: u16, change: Change) -> u16 {
        let check = change.apply(Be16(check)).0;
        if self.is_udp && check == 0 { u16::MAX } else { check }
    }
}

/// A context of the kernel's, and what only programs of one type can do.
pub trait Raw: Sized {
    /// Where the linear part of the frame starts.
    fn data(ctx: &Ctx<Self>) -> u32;
    /// Where it ends.
    fn data_end(ctx: &Ctx<Self>) -> u32;
    /// Length of the packet in bytes, link-layer header included.
    fn len(ctx: &Ctx<Self>) -> u32;
    /// The interface that the hook belongs to.
    fn ifindex(ctx: &Ctx<Self>) -> u32;
    /// Length of the segments of a segmentation-offload packet, else 0.
    fn gso_size(ctx: &Ctx<Self>) -> u32;
    /// Sees to it that the first `len` bytes, or all there are, can be read.
    fn pull(ctx: &Ctx<Self>, len: u32);
    /// Applies the change `diff` to the transport checksum at `offset`, with the flags of
    /// `bpf_l4_csum_replace`.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when that cannot be done.
    fn replace_l4_check(ctx: &Ctx<Self>, offset: u32, diff: u32, flags: u64) -> Result<(), Reason>;
    /// Applies what became of the addresses, and then of the ports, to the transport checksum in `check`, which
    /// covers both.
    ///
    /// # Errors
    /// As [`replace_l4_check`](Self::replace_l4_check).
    fn mend_l4_check(
        ctx: &Ctx<Self>,
        check: CheckField,
        addresses: Change,
        ports: Option<Change>,
    ) -> Result<(), Reason>;

    /// [`rewrite::mend_sctp`].
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when that cannot be done.
    fn mend_sctp<A: Addr>(ctx: &Ctx<Self>, packet: &Packet<A>, to: &Tuple<A>) -> Result<(), Reason>;
    /// [`crate::parse::ipv4::check_options`], see [`crate::slow`].
    fn check_options(ctx: &Ctx<Self>, header_len: u32) -> u32;
    /// [`crate::parse::ipv6::walk`], see [`crate::slow`].
    fn walk_extensions(ctx: &Ctx<Self>, end: u32) -> u32;
    /// [`crate::parse::transport::parse_icmp`], see [`crate::slow`].
    fn parse_icmp<F: Family>(ctx: &Ctx<Self>) -> u32;
}

impl<R: Raw> Ctx<R> {
    /// Wraps the context of a program.
    #[inline(always)]
    pub fn new(raw: *mut R) -> Self {
        Self { raw }
    }

    /// The context as the helpers take it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut R {
        self.raw
    }

    /// Length of the packet in bytes, link-layer header included.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        R::len(self)
    }

    /// The interface that the hook belongs to.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        R::ifindex(self)
    }

    /// Length of the segments of a segmentation-offload packet, else 0.
    #[inline(always)]
    pub fn gso_size(&self) -> u32 {
        R::gso_size(self)
    }

    /// Sees to it that the first `len` bytes, or all there are, can be read.
    #[inline(always)]
    pub fn pull(&self, len: u32) {
        R::pull(self, len);
    }

    /// Applies the change `diff` to the transport checksum at `offset`, with the flags of
    /// `bpf_l4_csum_replace`.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when that cannot be done.
    #[inline(always)]
    pub fn replace_l4_check(&self, offset: u32, diff: u32, flags: u64) -> Result<(), Reason> {
        R::replace_l4_check(self, offset, diff, flags)
    }

    /// The longest packet, without link-layer header, that goes through the interface `ifindex`; 0 when it is gone.
    #[inline(always)]
    pub fn mtu(&self, ifindex: u32) -> u32 {
        let mut mtu = 0;
        // SAFETY: plain helper call, which says the interface's limit whether this packet is in it or not.
        unsafe { bpf_check_mtu(self.raw.cast(), ifindex, &raw mut mtu, 0, 0) };
        mtu
    }

    /// A pointer to `T` at `offset` from the start of the frame, if all of it is in linear memory.
    ///
    /// `T` must have alignment 1. Valid until the packet's memory is moved: by [`pull`](Self::pull) and
    /// by the checksum helper in [`replace_l4_check`](Self::replace_l4_check).
    #[inline(always)]
    fn at<T>(&self, offset: u32) -> Option<*mut T> {
        const { assert!(align_of::<T>() == 1) };
        let start = R::data(self) as usize;
        let end = R::data_end(self) as usize;
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
}

/// Reads a field of the kernel's `__sk_buff`.
macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(&self) -> u32 {
            // SAFETY: the kernel hands the program a valid context, whose fields the verifier knows.
            unsafe { (*self.raw).$name }
        }
    };
}

impl Ctx {
    field!(/// The interface that the packet came in by; 0: the node itself sent it.
        ingress_ifindex);
    field!(/// Whether the kernel took a VLAN tag off the frame and keeps it beside it.
        vlan_present);
    field!(/// The packet's mark; cleared whenever a packet crosses from one network namespace to another.
        mark);

    /// Sets the mark.
    #[inline(always)]
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: as in `field!`; the verifier allows this field to be written.
        unsafe { (*self.raw).mark = mark }
    }

    /// Makes room for a header of `len` bytes after the Ethernet header, of a tunnel that `flags` name. Segments of
    /// a segmentation-offload packet keep their length.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when the kernel refuses.
    #[inline(always)]
    pub fn adjust_room(&self, len: i32, flags: u32) -> Result<(), Reason> {
        let flags = u64::from(flags | BPF_F_ADJ_ROOM_FIXED_GSO);
        // SAFETY: plain helper call. No pointer into the packet is kept.
        match unsafe { bpf_skb_adjust_room(self.raw, len, BPF_ADJ_ROOM_MAC, flags) } {
            0 => Ok(()),
            _ => Err(Reason::RewriteFailed),
        }
    }

    /// The sum of the `len` bytes at `offset`, folded to 16 bits, for a checksum.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when there are none, or more than the buffer holds.
    #[inline(always)]
    pub fn sum(&self, buffer: &mut Buffer, offset: u32, len: u32) -> Result<u16, Reason> {
        if len == 0 || len > size_of::<Buffer>() as u32 - 4 {
            return Err(Reason::RewriteFailed);
        }
        // The helper wants whole words: the last one's other bytes are zero.
        buffer[(len / 4) as usize] = 0;
        // SAFETY: the helper writes `len` bytes of the buffer, which is longer.
        if unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, buffer.as_mut_ptr().cast(), len) } != 0 {
            return Err(Reason::RewriteFailed);
        }
        let whole = len.div_ceil(4) * 4;
        let mut sum = 0;
        let mut at = 0;
        while at < size_of::<Buffer>() {
            let rest = slow::hear(whole.saturating_sub(at as u32).min(MOST_SUMMED));
            if rest > MOST_SUMMED {
                break;
            }
            // SAFETY: the helper reads at most `MOST_SUMMED` bytes of the buffer from `at`.
            sum = unsafe {
                let from = buffer.as_mut_ptr().byte_add(at);
                bpf_csum_diff(core::ptr::null_mut(), 0, from, rest, sum)
            } as u32;
            at += MOST_SUMMED as usize;
        }
        Ok(fold(sum.into()))
    }

    /// Whether a local socket, or the kernel that put segments together, leaves the checksum at `offset` to
    /// the device: the helper does not touch it then. What stands there is spoilt.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when the kernel refuses.
    #[inline(always)]
    pub fn leaves_check(&self, offset: u32) -> Result<bool, Reason> {
        let before = u16::from_ne_bytes(*self.header(offset)?);
        self.replace_l4_check(offset, 1, 0)?;
        Ok(u16::from_ne_bytes(*self.header(offset)?) == before)
    }

    /// Cuts the packet off after `len` bytes, and makes room for `head` more, or fewer, before its network header. A
    /// packet that was to be segmented is an ordinary one after that.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] when the kernel refuses.
    #[inline(always)]
    pub fn resize(&self, len: u32, head: i32) -> Result<(), Reason> {
        // SAFETY: plain helper calls. No pointer into the packet is kept.
        let failed = unsafe {
            bpf_skb_change_tail(self.raw, len, 0) != 0
                || bpf_skb_adjust_room(self.raw, head, BPF_ADJ_ROOM_MAC, 0) != 0
        };
        if failed { Err(Reason::RewriteFailed) } else { Ok(()) }
    }

    /// Copies the first `len` bytes of the frame. False when there are none, or not so many.
    ///
    /// # Safety
    /// `to` must be good for `len` bytes.
    #[inline(always)]
    pub unsafe fn load(&self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the helper writes `len` bytes, which the caller vouches for.
        len != 0 && unsafe { bpf_skb_load_bytes(self.raw.cast(), 0, to.cast(), len) } == 0
    }

    /// Makes the frame `len` bytes long, and these. False when the kernel refuses.
    ///
    /// # Safety
    /// `from` must be good for `len` bytes.
    #[inline(always)]
    pub unsafe fn replace(&self, from: *const u8, len: u32) -> bool {
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
        // SAFETY: plain helper calls; the second reads `len` bytes, which the caller vouches for. No pointer into
        // the packet is kept.
        len != 0
            && unsafe {
                bpf_skb_change_tail(self.raw, len, 0) == 0
                    && bpf_skb_store_bytes(self.raw, 0, from.cast(), len, flags) == 0
            }
    }

    /// Sends a copy of the packet to the input or output of the interface `ifindex`. False when there is no memory
    /// for it, or no such interface.
    #[inline(always)]
    pub fn clone_to(&self, ifindex: u32, is_ingress: bool) -> bool {
        let flags = if is_ingress { u64::from(BPF_F_INGRESS) } else { 0 };
        // SAFETY: plain helper call. No pointer into the packet is kept.
        unsafe { bpf_clone_redirect(self.raw, ifindex, flags) >= 0 }
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

impl Raw for __sk_buff {
    #[inline(always)]
    fn data(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: the kernel hands the program a valid context, whose fields the verifier knows.
        unsafe { (*ctx.raw).data }
    }

    #[inline(always)]
    fn data_end(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: as before.
        unsafe { (*ctx.raw).data_end }
    }

    #[inline(always)]
    fn len(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: as before.
        unsafe { (*ctx.raw).len }
    }

    #[inline(always)]
    fn ifindex(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: as before.
        unsafe { (*ctx.raw).ifindex }
    }

    #[inline(always)]
    fn gso_size(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: as before.
        unsafe { (*ctx.raw).gso_size }
    }

    #[inline(always)]
    fn pull(ctx: &Ctx<Self>, len: u32) {
        let have = Self::data_end(ctx).wrapping_sub(Self::data(ctx));
        if have < len && have < ctx.len() {
            let len = if len < ctx.len() { len } else { ctx.len() };
            // SAFETY: plain helper call; a failure shows when the bytes are read. No pointer into the packet is kept.
            unsafe { bpf_skb_pull_data(ctx.raw, len) };
        }
    }

    /// A program cannot see whether a local socket left the checksum to the device; the helper can, hence no
    /// direct write here.
    #[inline(always)]
    fn replace_l4_check(ctx: &Ctx<Self>, offset: u32, diff: u32, flags: u64) -> Result<(), Reason> {
        // SAFETY: plain helper call. No pointer into the packet is kept.
        match unsafe { bpf_l4_csum_replace(ctx.raw, offset, 0, u64::from(diff), flags) } {
            0 => Ok(()),
            _ => Err(Reason::RewriteFailed),
        }
    }

    /// One call of the helper, and what it did to the field says whether the checksum is left to the device: such
    /// a field holds the sum of the addresses itself, any other its complement. The one went up by as much as the
    /// other would have gone down, and the ports concern only the other.
    #[inline(always)]
    fn mend_l4_check(
        ctx: &Ctx<Self>,
        check: CheckField,
        addresses: Change,
        ports: Option<Change>,
    ) -> Result<(), Reason> {
        let before = u16::from_ne_bytes(*ctx.header(check.at)?);
        let flags = check.flags();
        Self::replace_l4_check(ctx, check.at, addresses.folded32(), flags | u64::from(BPF_F_PSEUDO_HDR))?;
        let Some(ports) = ports else { return Ok(()) };
        if addresses.is_silent() {
            return Self::replace_l4_check(ctx, check.at, ports.folded32(), flags);
        }
        let field = ctx.header_mut::<[u8; 2]>(check.at)?;
        let after = u16::from_ne_bytes(*field);
        if after == check.mended(before, addresses) {
            *field = check.mended(after, ports).to_ne_bytes();
        }
        Ok(())
    }

    #[inline(always)]
    fn mend_sctp<A: Addr>(ctx: &Ctx<Self>, packet: &Packet<A>, to: &Tuple<A>) -> Result<(), Reason> {
        rewrite::mend_sctp(ctx, packet, to)
    }

    #[inline(always)]
    fn check_options(ctx: &Ctx<Self>, header_len: u32) -> u32 {
        slow::options_v4(ctx.raw, header_len)
    }

    #[inline(always)]
    fn walk_extensions(ctx: &Ctx<Self>, end: u32) -> u32 {
        slow::extensions_v6(ctx.raw, end)
    }

    #[inline(always)]
    fn parse_icmp<F: Family>(ctx: &Ctx<Self>) -> u32 {
        F::parse_icmp(ctx)
    }
}
