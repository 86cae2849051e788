//! Sending a packet on its way.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use weir_common::{flow::flags, reason::Reason};

use crate::{
    ctx::Ctx,
    family::Family,
    flow::Path,
    parse::Packet,
    rewrite, slow,
    work::{Refused, Work},
};

/// What becomes of a packet that may pass: the return value of a classifier.
#[derive(Clone, Copy)]
pub struct Outcome(pub i32);

impl Outcome {
    /// It goes on through the node's stack, and through the next program of the hook.
    pub const PASS: Self = Self(TC_ACT_UNSPEC);
}

/// Whether the packet's hops run out here. Such a packet goes to the stack unchanged, which drops it and
/// tells its sender.
#[inline(always)]
pub fn expires<A>(packet: &Packet<A>, path: &Path<A>) -> bool {
    packet.ttl <= 1
        && path.flags & (flags::TO_PEER | flags::MASQUERADED | flags::BY_UPLINK | flags::TUNNEL) != 0
}

/// Rewrites a packet where its way says so.
///
/// # Errors
/// When it cannot be rewritten.
#[inline(always)]
pub fn translate<F: Family>(ctx: &Ctx, packet: &Packet<F::Addr>, path: &Path<F::Addr>) -> Result<(), Reason> {
    if path.flags & flags::REWRITE != 0 {
        rewrite::translate::<F>(ctx, packet, &path.to)?;
    }
    Ok(())
}

/// Hands a packet over as its way says: straight into a local pod, out by the uplink under the node's own
/// address, which the stack would take for forged, or on through the stack.
///
/// # Errors
/// When its headers cannot be written.
#[inline(always)]
pub fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
    let path = &work.path;
    if path.flags & flags::TO_PEER != 0 {
        rewrite::route::<F>(ctx, &path.mac)?;
        return Ok(Outcome(ctx.redirect_peer(path.ifindex)));
    }
    if path.flags & flags::TUNNEL != 0 {
        return match slow::hear(F::enter_tunnel(ctx)) {
            slow::GO_ON => {
                slow::settle();
                Ok(Outcome(ctx.redirect_neigh(work.fib.ifindex)))
            }
            reason => Err(Refused(reason)),
        };
    }
    if path.flags & (flags::MASQUERADED | flags::REPLY) == flags::MASQUERADED
        || path.flags & flags::BY_UPLINK != 0
    {
        // The helper finds the next router's address itself.
        rewrite::route::<F>(ctx, &path.mac)?;
        return Ok(Outcome(ctx.redirect_neigh(path.ifindex)));
    }
    Ok(Outcome::PASS)
}
