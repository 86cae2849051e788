//! What the node itself sends to services. Packets of pods have been decided when they left their pod.

use weir_common::{
    flow::flags,
    reason::{Hook, Reason},
    state::MARK_JUDGED,
};

use super::Stage;
use crate::{
    ctx::Ctx,
    deliver::{self, Outcome},
    family::Family,
    rewrite,
    work::{Refused, Work},
};

struct ToUplink;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refused> {
    if ctx.ingress_ifindex() != 0 {
        return Ok(Outcome::PASS);
    }
    super::run::<ToUplink>(ctx)
}

impl Stage for ToUplink {
    const HOOK: Hook = Hook::ToUplink;
    const STRICT: bool = false;

    /// The route that the packet was to take was the service's: to the backend it needs another.
    #[inline(always)]
    fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
        let path = &work.path;
        if path.flags & (flags::REWRITE | flags::REWRITTEN) == 0 {
            return Ok(Outcome::PASS);
        }
        deliver::translate::<F>(ctx, &work.packet, path)?;
        let action = if path.flags & flags::TO_PEER == 0 {
            ctx.redirect_neigh(ctx.ifindex())
        } else {
            rewrite::address_frame(ctx, &path.mac)?;
            ctx.set_mark(MARK_JUDGED);
            ctx.redirect(path.ifindex)
        };
        if action < 0 { Err(Reason::RewriteFailed.into()) } else { Ok(Outcome(action)) }
    }
}
