//! Counting and telling what became of a packet.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_NO_WAKEUP, TC_ACT_SHOT, xdp_md},
    helpers::bpf_ktime_get_ns,
};
use aya_log_ebpf::debug;
use weir_common::{
    addr::V6,
    event::{Event, kind},
    flow::Tuple,
    reason::{Hook, Reason, drop_counter},
    state::events,
};

use crate::{
    ctx::{Ctx, Raw},
    deliver::Outcome,
    family::Family,
    flow::Rules,
    maps,
    parse::Packet,
    slow, words,
    work::{Refusal, Work},
};

/// Events of dropped packets that one CPU sends a second from the edge.
const MOST_TOLD_A_SECOND: u32 = 100;

/// Turns a verdict into the return value of a classifier. Counts a packet that passes; one that is refused
/// has been counted.
#[inline(always)]
pub fn finish(ctx: &Ctx, hook: Hook, verdict: Result<Outcome, Refusal>) -> i32 {
    match verdict {
        Ok(Outcome(action)) => {
            maps::count(&maps::FORWARDED, hook as u32, ctx.len());
            action
        }
        Err(Refusal(action)) => action,
    }
}

/// Counts and tells of a dropped packet that could not be parsed.
#[inline(always)]
pub fn unparsed(ctx: &Ctx, hook: u32, reason: u32) {
    debug!(&Log(ctx), "hook {} drops an unparsed frame: reason {}", hook, reason);
    maps::count(&maps::DROPS, drop_counter(hook, reason), ctx.len());
    emit(ctx, events::DROPS, |event| {
        event.kind = kind::DROP;
        event.reason = reason as u8;
        event.hook = hook as u8;
    });
}

/// Refuses a packet: answers it where that is due, counts it and tells of it. Gives what the program returns.
#[inline(always)]
pub fn refuse<F: Family>(ctx: &Ctx, hook: u32, reason: u32, work: &mut Work<F::Addr>) -> i32 {
    debug!(
        &Log(ctx),
        "hook {} refuses a packet: reason {} rules {} {}",
        hook,
        reason,
        work.rules.egress,
        work.rules.ingress
    );
    let len = ctx.len();
    maps::count(&maps::DROPS, drop_counter(hook, reason), len);
    let action = F::answer(ctx, hook, reason);
    slow::settle();
    emit(ctx, events::DROPS, |event| {
        describe::<F>(event, &work.packet);
        event.kind = if action == TC_ACT_SHOT { kind::DROP } else { kind::REJECT };
        event.reason = reason as u8;
        event.hook = hook as u8;
        event.len = len;
        event.egress_rule = work.rules.egress;
        event.ingress_rule = work.rules.ingress;
    });
    action
}

/// Counts a packet that the edge drops, and tells of it. The count is of all; the events have a limit, for who
/// is denied may send as fast as the wire carries.
#[inline(always)]
pub fn denied<F: Family>(ctx: &Ctx<xdp_md>, reason: Reason, work: &mut Work<F::Addr>) {
    let Work { packet, told, .. } = work;
    maps::count(&maps::DROPS, drop_counter(Hook::Edge as u32, reason as u32), ctx.len());
    if !told.admits(MOST_TOLD_A_SECOND) {
        return;
    }
    emit(ctx, events::DROPS, |event| {
        describe::<F>(event, packet);
        event.kind = kind::DROP;
        event.reason = reason as u8;
        event.hook = Hook::Edge as u8;
    });
}

/// Tells of a new flow.
#[inline(always)]
pub fn opened<F: Family>(ctx: &Ctx, hook: u32, packet: &Packet<F::Addr>, to: &Tuple<F::Addr>, rules: &Rules) {
    debug!(&Log(ctx), "hook {} opens a flow: rules {} {}", hook, rules.egress, rules.ingress);
    emit(ctx, events::FLOWS, |event| {
        describe::<F>(event, packet);
        event.kind = kind::FLOW;
        event.hook = hook as u8;
        event.egress_rule = rules.egress;
        event.ingress_rule = rules.ingress;
        event.backend = V6(weir_common::addr::Addr::words(to.dst));
        event.backend_port = to.dport;
    });
}

#[inline(always)]
fn describe<F: Family>(event: &mut Event, packet: &Packet<F::Addr>) {
    event.src = V6(weir_common::addr::Addr::words(packet.key.src));
    event.dst = V6(weir_common::addr::Addr::words(packet.key.dst));
    event.sport = packet.key.sport;
    event.dport = packet.key.dport;
    event.protocol = packet.protocol();
    event.family = F::VERSION;
    event.tcp_flags = packet.tcp_flags;
}

/// Sends an event of class `class` if the agent wants such. When the buffer is full the loss is counted.
#[inline(always)]
fn emit(ctx: &Ctx<impl Raw>, class: u32, fill: impl FnOnce(&mut Event)) {
    let Some(state) = maps::state() else { return };
    if state.events & class == 0 {
        return;
    }
    let Some(mut record) = maps::EVENTS.reserve::<Event>(0) else {
        if let Some(lost) = maps::LOST_EVENTS.get_ptr_mut(0) {
            // SAFETY: this CPU's own counter.
            unsafe { *lost += 1 };
        }
        return;
    };
    // Filled in where it lies: the stack has no room for it.
    // SAFETY: reserved memory of the record's size; all of it is written before it is used.
    let event = unsafe {
        words::clear(record.as_mut_ptr());
        record.assume_init_mut()
    };
    // SAFETY: a helper without arguments.
    event.time = unsafe { bpf_ktime_get_ns() };
    event.ifindex = ctx.ifindex();
    event.len = ctx.len();
    event.epoch = state.epoch;
    fill(event);
    // The agent looks now and then. Were it woken for each new flow, that would cost more than all else that a
    // new flow does.
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// The context as the log macros take it.
struct Log<'a>(&'a Ctx);

impl EbpfContext for Log<'_> {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.0.as_ptr().cast()
    }
}
