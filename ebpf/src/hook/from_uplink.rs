//! What comes from other nodes and from outside: flows that are known go straight to their pod, or back
//! to the node's own client; everything else takes the stack and meets `to_pod`.

use weir_common::reason::Hook;

use super::Stage;
use crate::{
    ctx::Ctx,
    deliver::{self, Outcome},
    family::Family,
    work::{Refused, Work},
};

struct FromUplink;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refused> {
    super::run::<FromUplink>(ctx)
}

impl Stage for FromUplink {
    const HOOK: Hook = Hook::FromUplink;
    const STRICT: bool = false;

    #[inline(always)]
    fn arp(_: &Ctx) -> Result<Outcome, Refused> {
        Ok(Outcome::PASS)
    }

    #[inline(always)]
    fn neighbour<F: Family>(_: &Ctx) -> Result<Outcome, Refused> {
        Ok(Outcome::PASS)
    }

    #[inline(always)]
    fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
        if deliver::expires(&work.packet, &work.path) {
            return Ok(Outcome::PASS);
        }
        deliver::translate::<F>(ctx, &work.packet, &work.path)?;
        Ok(deliver::hand_over::<F>(ctx, &work.path)?)
    }
}
