//! Asking the kernel's routing table.

use aya_ebpf::{bindings, helpers::bpf_fib_lookup};
use weir_common::addr::Addr;

use crate::{
    ctx::{Ctx, Raw},
    family::Family,
    words,
};

/// A question and its answer: the kernel's `struct bpf_fib_lookup`.
#[repr(C)]
pub struct Fib {
    family: u8,
    l4_protocol: u8,
    sport: u16,
    dport: u16,
    /// 0 when it asks: the length is not to be looked at. Then the longest packet that gets through, where that
    /// was looked for.
    pub mtu: u16,
    /// The interface that the packet came by; then the one that it leaves by.
    pub ifindex: u32,
    tos_or_flow: u32,
    src: [u32; 4],
    dst: [u32; 4],
    vlan: [u16; 2],
    smac: [u8; 6],
    /// MAC address of the next router, or of the receiver itself.
    pub dmac: [u8; 6],
}

const _: () = assert!(size_of::<Fib>() == size_of::<bindings::bpf_fib_lookup>());

impl Fib {
    /// Asks for the way of a packet from `src` to `dst` that came by the interface `ifindex`.
    #[inline(always)]
    pub fn ask<F: Family>(&mut self, ifindex: u32, src: &F::Addr, dst: &F::Addr) {
        // SAFETY: a place in the map.
        unsafe { words::clear(self) };
        self.family = F::AF;
        self.ifindex = ifindex;
        const { assert!(F::Addr::WORDS <= 4) };
        // SAFETY: places in maps, of four words where an address has one or four.
        unsafe {
            words::copy((&raw mut self.src).cast(), src);
            words::copy((&raw mut self.dst).cast(), dst);
        }
    }

    /// Whether the kernel knows a way to the next hop's MAC address.
    #[inline(always)]
    pub fn answer<R: Raw>(&mut self, ctx: &Ctx<R>) -> bool {
        self.look_up(ctx) == i64::from(bindings::BPF_FIB_LKUP_RET_SUCCESS)
    }

    /// Asks by which interface to go, which the question's remains where the kernel does not know.
    #[inline(always)]
    pub fn route<R: Raw>(&mut self, ctx: &Ctx<R>) -> u32 {
        self.look_up(ctx);
        self.ifindex
    }

    #[inline(always)]
    fn look_up<R: Raw>(&mut self, ctx: &Ctx<R>) -> i64 {
        // SAFETY: the helper reads and writes as many bytes as it is told.
        unsafe { bpf_fib_lookup(ctx.as_ptr().cast(), (&raw mut *self).cast(), size_of::<Self>() as i32, 0) }
    }
}
