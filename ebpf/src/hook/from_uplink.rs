//! What comes from other nodes and from outside: flows that are known go straight to their pod, or back
//! to the node's own client; everything else takes the stack and meets `to_pod`.

use weir_common::reason::Hook;

use super::Stage;
use crate::{ctx::Ctx, deliver::Outcome, work::Refusal};

struct FromUplink;

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx) -> Result<Outcome, Refusal> {
    super::run::<FromUplink>(ctx)
}

impl Stage for FromUplink {
    const HOOK: Hook = Hook::FromUplink;
    const STRICT: bool = false;
}
