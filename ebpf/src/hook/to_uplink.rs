//! What the node itself sends to services, and what its sockets answer for one. Packets of pods have been
//! decided when they left their pod.
//!
//! The program is at the egress of the uplink, and at that of the loopback interface: there it sees what
//! goes to the node's own addresses, where node ports are.

use weir_common::{flow::flags, reason::Hook, state::MARK_JUDGED};

use super::Stage;
use crate::{
    ctx::Ctx,
    deliver::{self, Outcome},
    family::Family,
    rewrite,
    work::{Refusal, Refused, Work},
};

struct ToUplink;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refusal> {
    if ctx.ingress_ifindex() != 0 {
        return Ok(Outcome::PASS);
    }
    super::run::<ToUplink>(ctx)
}

impl Stage for ToUplink {
    const HOOK: Hook = Hook::ToUplink;
    const STRICT: bool = false;

    #[inline(always)]
    fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
        let path = &work.path;
        if path.flags & (flags::REWRITE | flags::REWRITTEN) == 0 {
            return Ok(Outcome::PASS);
        }
        deliver::translate::<F>(ctx, &work.packet, path)?;
        if path.flags & flags::TO_PEER != 0 {
            rewrite::address_frame(ctx, &path.mac)?;
            ctx.set_mark(MARK_JUDGED);
            Ok(Outcome(ctx.redirect(path.ifindex)))
        } else if path.flags & flags::BY_UPLINK != 0 {
            Ok(Outcome(ctx.redirect_neigh(path.ifindex)))
        } else if path.flags & flags::BY_LOOPBACK != 0 {
            Ok(deliver::by_loopback(ctx)?)
        } else {
            Ok(Outcome::PASS)
        }
    }
}
