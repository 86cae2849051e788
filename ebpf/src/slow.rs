//! The stages off the fast path, as functions of their own.
//!
//! A call costs a few nanoseconds and saves the verifier from walking a stage once for every way to it: it
//! takes such a function, known by its exported name and its plain arguments, by itself. What goes in and
//! out beside the numbers is in [`Work`].

use core::arch::asm;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use weir_common::{crc32c, reason::Reason, service::Ring};

use crate::{
    affinity,
    ctx::Ctx,
    decide, deliver,
    family::{Family, Inet, Inet6},
    flow, fragment, icmp_error, maps, masquerade, neighbour, parse, reject, report, reset, service, tunnel,
    words,
    work::{Refused, Work},
};

/// Answer of a stage: the packet may go on; where there is a way to be found, it is in [`Work::path`].
pub const GO_ON: u32 = 1 << 16;
/// Answer of a stage: the packet is no concern of this hook's. Every other answer is a [`Refused`].
pub const NOT_OURS: u32 = 1 << 17;
/// Answer of a stage: the packet is kept, or has been sent once more; there is nothing left to judge or to count.
pub const TAKEN: u32 = 1 << 18;

/// Runs a stage on this CPU's working memory.
#[inline(always)]
fn run<F: Family>(stage: impl FnOnce(&mut Work<F::Addr>) -> u32) -> u32 {
    match F::work().get_ptr_mut(0) {
        // SAFETY: this CPU's own element, of integers only; see `Work`.
        Some(work) => stage(unsafe { &mut *work }),
        None => NOT_OURS,
    }
}

/// The answer of a stage that only refuses.
#[inline(always)]
fn answer(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => GO_ON,
        Err(reason) => reason as u32,
    }
}

/// Takes an answer for what it says, not for what the compiler, which looks into the function, expects:
/// the verifier does not look, and wants every other number handled too.
#[inline(always)]
pub fn hear(answer: u32) -> u32 {
    words::opaque(u64::from(answer)) as u32
}

/// [`hear`] for a stage that only refuses.
#[inline(always)]
pub fn heed(answer: u32) -> Result<(), Refused> {
    match hear(answer) {
        GO_ON => Ok(()),
        reason => Err(Refused(reason)),
    }
}

/// The end of a stage: what comes after reads its results from memory.
///
/// Otherwise the compiler keeps them in registers, and makes a copy of what follows for every way through
/// the stage, which the verifier then has to walk one by one.
#[inline(always)]
pub fn settle() {
    // SAFETY: no instruction; it is said to change memory.
    unsafe { asm!("", options(nostack)) };
}

/// Exports the stages of one family.
macro_rules! stages {
    ($family:ty: $revisit:ident $choose:ident $ends:ident $judge:ident $serve:ident $balance:ident $allot:ident $free:ident $peek:ident $record:ident $insert:ident $keep_alive:ident $icmp:ident $fragment:ident $icmp_error:ident $expired:ident $enter:ident $leave:ident $quote:ident $answer:ident $refuse:ident) => {
        /// [`decide::revisit`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $revisit() -> u32 {
            run::<$family>(|work| decide::revisit::<$family>(work))
        }

        /// [`decide::choose`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $choose(skb: *mut __sk_buff, hook: u32) -> u32 {
            let hook = hear(hook);
            run::<$family>(|work| decide::choose::<$family>(&Ctx::new(skb), hook, work))
        }

        /// [`decide::check_ends`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $ends(skb: *mut __sk_buff, hook: u32) -> u32 {
            let hook = hear(hook);
            run::<$family>(|work| decide::check_ends::<$family>(&Ctx::new(skb), hook, work))
        }

        /// [`decide::judge`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $judge() -> u32 {
            run::<$family>(|work| decide::judge::<$family>(work))
        }

        /// [`service::serve`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $serve(hook: u32) -> u32 {
            let hook = hear(hook);
            run::<$family>(|work| service::serve::<$family>(hook, work))
        }

        /// [`affinity::choose`]. Answers [`GO_ON`], or [`NOT_OURS`] where there is no backend.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $balance(id: u32, timeout: u32, offset: u32, len: u32, set: u32) -> u32 {
            let service = affinity::Asked { id: hear(id), timeout: hear(timeout) };
            let (ring, set) = (Ring { offset: hear(offset), len: hear(len) }, hear(set));
            run::<$family>(|work| {
                let Work { packet, chosen, .. } = work;
                let is_found = affinity::choose::<$family>(service, ring, set, &packet.key, chosen);
                if is_found { GO_ON } else { NOT_OURS }
            })
        }

        /// [`masquerade::allot`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $allot() -> u32 {
            run::<$family>(|work| answer(masquerade::allot::<$family>(work)))
        }

        /// [`masquerade::is_free`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $free(attempt: u32) -> u32 {
            let attempt = hear(attempt);
            run::<$family>(
                |work| if masquerade::is_free::<$family>(attempt, work) { GO_ON } else { NOT_OURS },
            )
        }

        /// [`flow::peek`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $peek() -> u32 {
            run::<$family>(|work| if flow::peek::<$family>(work) { GO_ON } else { NOT_OURS })
        }

        /// [`decide::record`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $record(skb: *mut __sk_buff, hook: u32) -> u32 {
            run::<$family>(|work| decide::record::<$family>(&Ctx::new(skb), hook, work))
        }

        /// [`flow::insert`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $insert() -> u32 {
            run::<$family>(|work| answer(flow::insert::<$family>(work)))
        }

        /// [`flow::keep_alive`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $keep_alive() -> u32 {
            run::<$family>(|work| {
                let is_there = flow::keep_alive::<$family>(&work.packet, &work.path);
                if is_there { GO_ON } else { NOT_OURS }
            })
        }

        /// [`parse::transport::parse_icmp`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $icmp(skb: *mut __sk_buff) -> u32 {
            run::<$family>(|work| {
                answer(parse::transport::parse_icmp::<$family>(&Ctx::new(skb), &mut work.packet))
            })
        }

        /// [`fragment::resolve`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $fragment(skb: *mut __sk_buff, hook: u32) -> u32 {
            let hook = hear(hook);
            run::<$family>(|work| fragment::resolve::<$family>(&Ctx::new(skb), hook, work))
        }

        /// [`icmp_error::resolve`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $icmp_error(skb: *mut __sk_buff, hook: u32) -> u32 {
            run::<$family>(|work| answer(icmp_error::resolve::<$family>(&Ctx::new(skb), hook, work)))
        }

        /// [`tunnel::enter`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $enter(skb: *mut __sk_buff) -> u32 {
            run::<$family>(|work| answer(tunnel::enter::<$family>(&Ctx::new(skb), work)))
        }

        /// [`tunnel::leave`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $leave(skb: *mut __sk_buff) -> u32 {
            run::<$family>(|work| tunnel::leave::<$family>(&Ctx::new(skb), work))
        }

        /// [`deliver::expired`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $expired() -> u32 {
            run::<$family>(|work| answer(deliver::expired::<$family>(&work.packet)))
        }

        /// [`reject::quote`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $quote(skb: *mut __sk_buff, hook: u32) -> u32 {
            let hook = hear(hook);
            run::<$family>(|work| reject::quote::<$family>(&Ctx::new(skb), hook, work))
        }

        /// [`reject::answer`] or [`reset::answer`], whichever is due. Answers what the program returns.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $answer(skb: *mut __sk_buff, hook: u32, reason: u32) -> u32 {
            let (hook, reason, ctx) = (hear(hook), hear(reason), Ctx::new(skb));
            run::<$family>(|work| {
                let answer = if reject::is_due(reason) {
                    reject::answer::<$family>(&ctx, hook, reason, work)
                } else if reason == Reason::ServiceBackendGone as u32 {
                    reset::answer::<$family>(&ctx, hook, work)
                } else {
                    None
                };
                answer.unwrap_or(TC_ACT_SHOT).cast_unsigned()
            })
        }

        /// [`report::refuse`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $refuse(skb: *mut __sk_buff, hook: u32, reason: u32) -> u32 {
            let hook = hear(hook);
            run::<$family>(|work| {
                report::refuse::<$family>(&Ctx::new(skb), hook, reason, work).cast_unsigned()
            })
        }
    };
}

stages!(Inet: revisit_v4 choose_v4 ends_v4 judge_v4 serve_v4 balance_v4 allot_v4 free_v4 peek_v4 record_v4 insert_v4 keep_alive_v4 icmp_v4 fragment_v4 icmp_error_v4 expired_v4 enter_v4 leave_v4 quote_v4 answer_v4 refuse_v4);
stages!(Inet6: revisit_v6 choose_v6 ends_v6 judge_v6 serve_v6 balance_v6 allot_v6 free_v6 peek_v6 record_v6 insert_v6 keep_alive_v6 icmp_v6 fragment_v6 icmp_error_v6 expired_v6 enter_v6 leave_v6 quote_v6 answer_v6 refuse_v6);

/// [`Ctx::sum`]. Answers the sum, or [`NOT_OURS`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum(skb: *mut __sk_buff, offset: u32, len: u32) -> u32 {
    let len = hear(len);
    // SAFETY: this CPU's own element, of integers only; see `Work`.
    let Some(buffer) = maps::BUFFER.get_ptr_mut(0).map(|buffer| unsafe { &mut *buffer }) else {
        return NOT_OURS;
    };
    Ctx::new(skb).sum(buffer, offset, len).map_or(NOT_OURS, u32::from)
}

/// [`crc32c::difference`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_difference(change: u32, bytes: u32) -> u32 {
    let (change, bytes) = (hear(change), hear(bytes));
    crc32c::difference(change, bytes, hear)
}

/// [`report::unparsed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unparsed(skb: *mut __sk_buff, hook: u32, reason: u32) -> u32 {
    report::unparsed(&Ctx::new(skb), hook, reason);
    GO_ON
}

/// [`neighbour::check_arp`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn arp(skb: *mut __sk_buff) -> u32 {
    answer(neighbour::check_arp(&Ctx::new(skb)))
}

/// [`neighbour::check_discovery`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn discovery_v6(skb: *mut __sk_buff) -> u32 {
    run::<Inet6>(|work| answer(neighbour::check_discovery(&Ctx::new(skb), &work.packet)))
}

/// [`parse::ipv4::check_options`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn options_v4(skb: *mut __sk_buff, header_len: u32) -> u32 {
    run::<Inet>(|work| answer(parse::ipv4::check_options(&Ctx::new(skb), &mut work.cursor, header_len)))
}

/// [`parse::ipv6::walk`]. The chain is handed over in the packet's fields.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn extensions_v6(skb: *mut __sk_buff, end: u32) -> u32 {
    run::<Inet6>(|work| answer(parse::ipv6::walk(&Ctx::new(skb), &mut work.packet, &mut work.cursor, end)))
}
