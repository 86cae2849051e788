//! The stages off the fast path, as functions of their own.
//!
//! A call costs a few nanoseconds and saves the verifier from walking a stage once for every way to it: it
//! takes such a function, known by its exported name and its plain arguments, by itself. What goes in and
//! out beside the numbers is in [`Work`].

use core::arch::asm;

use aya_ebpf::bindings::__sk_buff;
use weir_common::{crc32c, reason::Reason};

use crate::{
    ctx::Ctx,
    decide, deliver,
    family::{Family, Inet, Inet6},
    flow, fragment, icmp_error, masquerade, neighbour, parse, report, service, words,
    work::{Refused, Work},
};

/// Answer of a stage: the packet may go on; where there is a way to be found, it is in [`Work::path`].
pub const GO_ON: u32 = 1 << 16;
/// Answer of a stage: the packet is no concern of this hook's. Every other answer is a [`Refused`].
pub const NOT_OURS: u32 = 1 << 17;

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
    ($family:ty: $choose:ident $judge:ident $serve:ident $allot:ident $free:ident $peek:ident $record:ident $insert:ident $keep_alive:ident $icmp:ident $fragment:ident $icmp_error:ident $expired:ident $dropped:ident) => {
        /// [`decide::choose`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $choose(skb: *mut __sk_buff, hook: u32, is_known: u32) -> u32 {
            let (hook, is_known) = (hear(hook), hear(is_known));
            run::<$family>(|work| decide::choose::<$family>(&Ctx::new(skb), hook, work, is_known != 0))
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
            run::<$family>(|work| service::serve::<$family>(hook, &work.packet, &mut work.path))
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
        pub extern "C" fn $free() -> u32 {
            run::<$family>(|work| if masquerade::is_free::<$family>(work) { GO_ON } else { NOT_OURS })
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
        pub extern "C" fn $fragment() -> u32 {
            run::<$family>(|work| answer(fragment::resolve::<$family>(&mut work.packet)))
        }

        /// [`icmp_error::resolve`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $icmp_error(skb: *mut __sk_buff, hook: u32) -> u32 {
            run::<$family>(|work| answer(icmp_error::resolve::<$family>(&Ctx::new(skb), hook, work)))
        }

        /// [`deliver::expired`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $expired() -> u32 {
            run::<$family>(|work| answer(deliver::expired::<$family>(&work.packet)))
        }

        /// [`report::dropped`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $dropped(skb: *mut __sk_buff, hook: u32, reason: u32) -> u32 {
            run::<$family>(|work| {
                report::dropped::<$family>(&Ctx::new(skb), hook, reason, work);
                GO_ON
            })
        }
    };
}

stages!(Inet: choose_v4 judge_v4 serve_v4 allot_v4 free_v4 peek_v4 record_v4 insert_v4 keep_alive_v4 icmp_v4 fragment_v4 icmp_error_v4 expired_v4 dropped_v4);
stages!(Inet6: choose_v6 judge_v6 serve_v6 allot_v6 free_v6 peek_v6 record_v6 insert_v6 keep_alive_v6 icmp_v6 fragment_v6 icmp_error_v6 expired_v6 dropped_v6);

/// [`crc32c::difference`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_difference(change: u32, bytes: u32) -> u32 {
    let (change, bytes) = (hear(change), hear(bytes));
    run::<Inet>(|work| {
        crc32c::difference(change, bytes, |mask| {
            work.cursor.set(mask);
            work.cursor.get()
        })
    })
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
