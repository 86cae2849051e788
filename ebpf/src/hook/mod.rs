//! The programs, one file each, and what they share: parse, look the flow up, decide, hand over, report.

pub mod from_pod;
pub mod from_uplink;
pub mod to_pod;
pub mod to_uplink;

use aya_ebpf::bindings::TC_ACT_SHOT;
use weir_common::{
    header::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    reason::{Hook, Reason},
};

use crate::{
    ctx::Ctx,
    deliver::{self, Outcome},
    family::{Family, Inet, Inet6},
    flow::{self, Rules},
    maps, parse,
    parse::Kind,
    policy, slow,
    work::{Refusal, Refused, Work},
};

/// What sets one program apart from another.
pub trait Stage {
    /// Its name in counters and events.
    const HOOK: Hook;
    /// Whether what cannot be parsed is dropped. On the uplink it passes: whatever of it is for a pod
    /// meets the pod's own program.
    const STRICT: bool;

    /// Judges an ARP message. The node and its neighbours may ask and answer as they like.
    #[inline(always)]
    fn arp(_: &Ctx) -> Result<Outcome, Refused> {
        Ok(Outcome::PASS)
    }

    /// Judges a neighbour discovery message. It does not cross routers: what is for a pod is the node's own.
    #[inline(always)]
    fn neighbour<F: Family>(_: &Ctx) -> Result<Outcome, Refused> {
        Ok(Outcome::PASS)
    }

    /// Takes a packet out of the tunnel that ends here, if one does.
    #[inline(always)]
    fn unwrap<F: Family>(_: &Ctx, _: &mut Work<F::Addr>) -> Result<(), Refused> {
        Ok(())
    }

    /// Whether the way that was found leads back into a tunnel that the packet came out of.
    #[inline(always)]
    fn goes_round<A>(_: &Work<A>) -> bool {
        false
    }

    /// Sends a packet on its way, which is in `work`.
    #[inline(always)]
    fn hand_over<F: Family>(ctx: &Ctx, work: &Work<F::Addr>) -> Result<Outcome, Refused> {
        if deliver::expires(&work.packet, &work.path) {
            slow::heed(F::expired())?;
            return Ok(Outcome::PASS);
        }
        deliver::translate::<F>(ctx, &work.packet, &work.path)?;
        Ok(deliver::hand_over::<F>(ctx, &work.path)?)
    }
}

/// Runs a stage on a frame.
#[inline(always)]
fn run<S: Stage>(ctx: &Ctx) -> Result<Outcome, Refusal> {
    let verdict = match parse::ethertype(ctx) {
        Ok(ETHERTYPE_IPV4) => return packet::<S, Inet>(ctx),
        Ok(ETHERTYPE_IPV6) => return packet::<S, Inet6>(ctx),
        Ok(ETHERTYPE_ARP) => S::arp(ctx),
        Ok(_) => Err(Reason::UnsupportedL2.into()),
        Err(reason) => Err(reason.into()),
    };
    match verdict {
        Err(_) if !S::STRICT => Ok(Outcome::PASS),
        Err(Refused(reason)) => {
            slow::unparsed(ctx.as_ptr(), S::HOOK as u32, reason);
            Err(Refusal(TC_ACT_SHOT))
        }
        Ok(outcome) => Ok(outcome),
    }
}

#[inline(always)]
fn packet<S: Stage, F: Family>(ctx: &Ctx) -> Result<Outcome, Refusal> {
    // The one element is always there.
    let Some(work) = F::work().get_ptr_mut(0) else { return Ok(Outcome::PASS) };
    // SAFETY: this CPU's own element, of integers only; see `Work`.
    let work = unsafe { &mut *work };
    if let Err(Refused(reason)) = S::unwrap::<F>(ctx, work) {
        slow::unparsed(ctx.as_ptr(), S::HOOK as u32, reason);
        return Err(Refusal(TC_ACT_SHOT));
    }
    let verdict = match prepare::<S, F>(ctx, work) {
        Ok(()) => {
            slow::settle();
            judge::<S, F>(ctx, work)
        }
        Err(Refused(slow::TAKEN)) => return Err(Refusal(TC_ACT_SHOT)),
        Err(_) if !is_strict::<S, _>(work) => return Ok(Outcome::PASS),
        Err(drop) => Err(drop),
    };
    verdict.map_err(|Refused(reason)| F::refuse(ctx, S::HOOK, reason))
}

/// Whether what is not understood or not known is dropped. What came out of a tunnel is for a backend of this
/// node, and has no other way to go.
#[inline(always)]
fn is_strict<S: Stage, A>(work: &Work<A>) -> bool {
    S::STRICT || matches!(S::HOOK, Hook::FromUplink) && work.is_tunnelled != 0
}

/// Parses a packet as far as its flow's key.
#[inline(always)]
fn prepare<S: Stage, F: Family>(ctx: &Ctx, work: &mut Work<F::Addr>) -> Result<(), Refused> {
    work.rules = Rules::NONE;
    F::parse(ctx, work)?;
    if matches!(S::HOOK, Hook::FromPod) {
        // Flows are keyed by the interface, so that a hit needs no check of the source.
        work.packet.key.scope = ctx.ifindex();
    }
    if work.packet.piece.is_fragment {
        slow::heed(F::resolve_fragment(ctx, S::HOOK))?;
    }
    Ok(())
}

#[inline(always)]
fn judge<S: Stage, F: Family>(ctx: &Ctx, work: &mut Work<F::Addr>) -> Result<Outcome, Refused> {
    match work.packet.kind {
        Kind::Neighbour => return S::neighbour::<F>(ctx),
        Kind::IcmpError => match slow::hear(F::resolve_icmp_error(ctx, S::HOOK)) {
            slow::GO_ON => {}
            _ if !is_strict::<S, _>(work) => return Ok(Outcome::PASS),
            reason => return Err(Refused(reason)),
        },
        Kind::Tcp | Kind::Udp | Kind::Sctp | Kind::EchoRequest | Kind::EchoReply => {
            if !find_way::<S, F>(ctx, work)? {
                return Ok(Outcome::PASS);
            }
        }
    }
    slow::settle();
    S::hand_over::<F>(ctx, work)
}

/// Finds a packet's way, by the entry of its flow or by deciding that. False where it is no concern of
/// this hook's.
#[inline(always)]
fn find_way<S: Stage, F: Family>(ctx: &Ctx, work: &mut Work<F::Addr>) -> Result<bool, Refused> {
    let epoch = match maps::state() {
        Some(state) if state.epoch != 0 => state.epoch,
        _ if is_strict::<S, _>(work) => return Err(Reason::NotReady.into()),
        _ => return Ok(false),
    };
    // Before anything is looked up that a commit may change.
    work.epoch = epoch;
    let is_found = flow::lookup::<F>(work, maps::now());
    let is_known = is_found && !S::goes_round(work);
    if is_known && work.path.epoch == epoch {
        policy::count_packet(&work.known_rules);
        return Ok(true);
    }
    match F::decide(ctx, S::HOOK, is_known) {
        slow::GO_ON => Ok(true),
        slow::NOT_OURS => Ok(false),
        reason => Err(Refused(reason)),
    }
}
