//! What reaches a pod through the node's stack: from other nodes, from outside, from the node itself.

use weir_common::{reason::Hook, state::MARK_JUDGED};

use super::Stage;
use crate::{
    ctx::Ctx,
    deliver::{self, Outcome},
    family::Family,
    work::{Refusal, Refused, Work},
};

struct ToPod;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refusal> {
    if ctx.mark() == MARK_JUDGED {
        ctx.set_mark(0);
        return Ok(Outcome::PASS);
    }
    super::run::<ToPod>(ctx)
}

impl Stage for ToPod {
    const HOOK: Hook = Hook::ToPod;
    const STRICT: bool = true;

    /// The packet is at its interface already.
    #[inline(always)]
    fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
        deliver::translate::<F>(ctx, &work.packet, &work.path)?;
        Ok(Outcome::PASS)
    }
}
