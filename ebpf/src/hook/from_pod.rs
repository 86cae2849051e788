//! What a pod sends: source check, services, egress policy, and, when the receiver is a pod of this node,
//! ingress policy too, then straight to it.

use weir_common::reason::Hook;

use super::Stage;
use crate::{
    ctx::Ctx,
    deliver::Outcome,
    family::Family,
    slow,
    work::{Refusal, Refused},
};

struct FromPod;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refusal> {
    super::run::<FromPod>(ctx)
}

impl Stage for FromPod {
    const HOOK: Hook = Hook::FromPod;
    const STRICT: bool = true;

    #[inline(always)]
    fn arp(ctx: &Ctx) -> Result<Outcome, Refused> {
        slow::heed(slow::arp(ctx.as_ptr()))?;
        Ok(Outcome::PASS)
    }

    #[inline(always)]
    fn neighbour<F: Family>(ctx: &Ctx) -> Result<Outcome, Refused> {
        F::check_neighbour(ctx)?;
        Ok(Outcome::PASS)
    }
}
