//! Sending a packet on its way.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use weir_common::{
    flow::flags,
    reason::Reason,
    state::{LOOPBACK, inside},
};

use crate::{ctx::Ctx, family::Family, flow::Path, parse::Packet, rewrite};

/// What becomes of a packet that may pass: the return value of a classifier.
#[derive(Clone, Copy)]
pub struct Outcome(pub i32);

impl Outcome {
    /// It goes on through the node's stack, and through the next program of the hook.
    pub const PASS: Self = Self(TC_ACT_UNSPEC);
}

/// Whether the packet's hops run out here. Such a packet goes to the stack unchanged, which drops it and
/// tells its sender; but see [`expired`].
#[inline(always)]
pub fn expires<A>(packet: &Packet<A>, path: &Path<A>) -> bool {
    packet.ttl <= 1 && path.flags & (flags::TO_PEER | flags::BY_UPLINK | flags::TUNNEL) != 0
}

/// What becomes of a packet whose hops run out: the stack would take one that is for the node's address for
/// a packet to the node.
///
/// # Errors
/// [`Reason::TtlExceeded`].
#[inline(always)]
pub fn expired<F: Family>(packet: &Packet<F::Addr>) -> Result<(), Reason> {
    match F::inside(&packet.key.dst) & inside::OWN {
        0 => Ok(()),
        _ => Err(Reason::TtlExceeded),
    }
}

/// Rewrites a packet where its way says so.
///
/// # Errors
/// When it cannot be rewritten.
#[inline(always)]
pub fn translate<F: Family>(ctx: &Ctx, packet: &Packet<F::Addr>, path: &Path<F::Addr>) -> Result<(), Reason> {
    if path.flags & flags::REWRITE != 0 {
        rewrite::translate::<F, _>(ctx, packet, &path.to)?;
    }
    Ok(())
}

/// Hands a packet over as its way says: straight into a local pod, out by the uplink, to a socket of the
/// node, or on through the stack.
///
/// # Errors
/// When its headers cannot be written.
#[inline(always)]
pub fn hand_over<F: Family>(ctx: &Ctx, path: &Path<F::Addr>) -> Result<Outcome, Reason> {
    if path.flags & flags::TO_PEER != 0 {
        rewrite::route::<F>(ctx, &path.mac)?;
        return Ok(Outcome(ctx.redirect_peer(path.ifindex)));
    }
    if path.flags & flags::BY_UPLINK != 0 {
        // The helper finds the next router's address itself.
        rewrite::route::<F>(ctx, &path.mac)?;
        return Ok(Outcome(ctx.redirect_neigh(path.ifindex)));
    }
    if path.flags & flags::BY_LOOPBACK != 0 {
        return by_loopback(ctx);
    }
    Ok(Outcome::PASS)
}

/// Hands a packet to a socket of the node as if it came from one.
///
/// # Errors
/// When its headers cannot be written.
#[inline(always)]
pub fn by_loopback(ctx: &Ctx) -> Result<Outcome, Reason> {
    if ctx.ifindex() == LOOPBACK {
        return Ok(Outcome::PASS);
    }
    // The interface's own address is zero.
    rewrite::address_frame(ctx, &[0; 6])?;
    Ok(Outcome(ctx.redirect_ingress(LOOPBACK)))
}
