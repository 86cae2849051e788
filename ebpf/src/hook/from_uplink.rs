//! What comes from other nodes and from outside: flows that are known, and such as services open, go straight to
//! their pod, into the tunnel to another node, or back to the node's own client; everything else takes the stack
//! and meets `to_pod`.

use weir_common::{flow::flags, reason::Hook};

use super::Stage;
use crate::{
    ctx::Ctx,
    deliver::{self, Outcome},
    family::Family,
    slow, tunnel,
    work::{Refusal, Refused, Work},
};

struct FromUplink;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refusal> {
    super::run::<FromUplink>(ctx)
}

impl Stage for FromUplink {
    const HOOK: Hook = Hook::FromUplink;
    const STRICT: bool = false;

    #[inline(always)]
    fn unwrap<F: Family>(ctx: &Ctx, work: &mut Work<F::Addr>) -> Result<(), Refused> {
        work.is_tunnelled = 0;
        if tunnel::may_end::<F>(ctx) {
            match slow::hear(F::leave_tunnel(ctx)) {
                slow::GO_ON => work.is_tunnelled = 1,
                slow::NOT_OURS => {}
                reason => return Err(Refused(reason)),
            }
        }
        slow::settle();
        Ok(())
    }

    /// Two nodes that take each other for the backend's would send it to and fro: the one that it came to decides.
    #[inline(always)]
    fn goes_round<A>(work: &Work<A>) -> bool {
        work.is_tunnelled & u32::from(work.path.flags / flags::TUNNEL) & 1 != 0
    }

    #[inline(always)]
    fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
        if deliver::expires(&work.packet, &work.path) {
            slow::heed(F::expired())?;
            return Ok(Outcome::PASS);
        }
        if work.path.flags & flags::TUNNEL != 0 {
            slow::heed(F::enter_tunnel(ctx))?;
            slow::settle();
            return Ok(Outcome(ctx.redirect_neigh(work.fib.ifindex)));
        }
        deliver::translate::<F>(ctx, &work.packet, &work.path)?;
        Ok(deliver::hand_over::<F>(ctx, &work.path)?)
    }
}
