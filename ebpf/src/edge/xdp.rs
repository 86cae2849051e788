//! Packets at XDP.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, xdp_md},
    helpers::bpf_xdp_adjust_head,
};
use weir_common::{
    addr::Addr,
    checksum::{Change, fold},
    flow::Tuple,
    header::{Eth, IpHeader},
    reason::Reason,
};

use crate::{
    ctx::{CheckField, Ctx, Raw},
    family::Family,
    flow::Path,
    parse::{IP_OFFSET, Packet},
    tunnel, words,
};

/// A frame with a tunnel's header before that of the packet inside.
#[repr(C)]
#[derive(Clone, Copy)]
struct Outer<H: Copy> {
    eth: Eth,
    ip: H,
}

/// Puts the packet into a tunnel to the destination of `path`, and the frame under way to its next hop, from
/// the MAC address that it was sent to.
#[inline(always)]
pub fn encapsulate<F: Family>(ctx: &Ctx<xdp_md>, node: &F::Addr, path: &Path<F::Addr>) -> bool {
    let Ok(ip) = ctx.header::<F::Header>(IP_OFFSET) else { return false };
    let (class, len) = (ip.class(), ip.packet_len());
    let grown = size_of::<F::Header>() as u32;
    // SAFETY: plain helper call. No pointer into the packet is kept.
    if unsafe { bpf_xdp_adjust_head(ctx.as_ptr(), -(grown as i32)) } != 0 {
        return false;
    }
    let Ok(before) = ctx.header::<Eth>(grown) else { return false };
    let (mac, ethertype) = (&raw const before.dst, before.ethertype);
    let Ok(outer) = ctx.header_mut::<Outer<F::Header>>(0) else { return false };
    // The old addresses lie where the new header goes.
    // SAFETY: places of one type each, in the packet and in a map.
    unsafe {
        words::copy(&raw mut outer.eth.src, mac);
        words::copy(&raw mut outer.eth.dst, &raw const path.mac);
    }
    outer.eth.ethertype = ethertype;
    tunnel::write::<F>(&mut outer.ip, class, len, node, &path.to.dst);
    true
}

impl Raw for xdp_md {
    #[inline(always)]
    fn data(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: the kernel hands the program a valid context, whose fields the verifier knows.
        unsafe { (*ctx.as_ptr()).data }
    }

    #[inline(always)]
    fn data_end(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: as before.
        unsafe { (*ctx.as_ptr()).data_end }
    }

    #[inline(always)]
    fn len(ctx: &Ctx<Self>) -> u32 {
        Self::data_end(ctx).wrapping_sub(Self::data(ctx))
    }

    #[inline(always)]
    fn ifindex(ctx: &Ctx<Self>) -> u32 {
        // SAFETY: as before.
        unsafe { (*ctx.as_ptr()).ingress_ifindex }
    }

    /// There is no segmentation offload before the stack.
    #[inline(always)]
    fn gso_size(_: &Ctx<Self>) -> u32 {
        0
    }

    /// A frame is one piece.
    #[inline(always)]
    fn pull(_: &Ctx<Self>, _: u32) {}

    /// What comes from outside carries its checksum.
    #[inline(always)]
    fn replace_l4_check(ctx: &Ctx<Self>, offset: u32, diff: u32, flags: u64) -> Result<(), Reason> {
        let field = ctx.header_mut::<[u8; 2]>(offset)?;
        let check = u16::from_ne_bytes(*field);
        let is_udp = flags & u64::from(BPF_F_MARK_MANGLED_0) != 0;
        if is_udp && check == 0 {
            return Ok(());
        }
        let sum = !fold(u64::from(!check) + u64::from(diff));
        *field = if is_udp && sum == 0 { [0xff; 2] } else { sum.to_ne_bytes() };
        Ok(())
    }

    #[inline(always)]
    fn mend_l4_check(
        ctx: &Ctx<Self>,
        check: CheckField,
        addresses: Change,
        ports: Option<Change>,
    ) -> Result<(), Reason> {
        let change = addresses.and(ports.unwrap_or_default());
        Self::replace_l4_check(ctx, check.at, change.folded32(), check.flags())
    }

    /// The edge leaves SCTP to TC.
    #[inline(always)]
    fn mend_sctp<A: Addr>(_: &Ctx<Self>, _: &Packet<A>, _: &Tuple<A>) -> Result<(), Reason> {
        Err(Reason::RewriteFailed)
    }

    #[inline(always)]
    fn check_options(_: &Ctx<Self>, _: u32) -> u32 {
        Reason::InvalidIpOption as u32
    }

    #[inline(always)]
    fn walk_extensions(_: &Ctx<Self>, _: u32) -> u32 {
        Reason::InvalidExtensionHeader as u32
    }

    #[inline(always)]
    fn parse_icmp<F: Family>(_: &Ctx<Self>) -> u32 {
        Reason::IcmpUnsupported as u32
    }
}
