//! Yardsticks for weir's kernel programs, measured beside them by `cargo xtask bench prog`.
//!
//! `BPF_PROG_TEST_RUN` runs a program many times on one packet and does not restore it in between: a program
//! that rewrites would see its own output, and all would see one flow. So a **feeder** runs first, puts the
//! next frame of a table into the packet, and tail-calls the program that is measured. What the feeder itself
//! costs is measured in the same round, with the null program behind it, and subtracted.
//!
//! The **floors** are programs that do one thing: nothing, parse, and parse with one look-up or update in a map
//! of the kernel's. They say what a packet's way would cost if it were made of those.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the program macros do not carry documentation to the functions they make")]
#![expect(clippy::needless_pass_by_value, reason = "the signature that the program macros want")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key that is passed by value is copied to a stack slot of the compiler's alignment"
)]

mod floor;

use aya_ebpf::{
    helpers::bpf_xdp_adjust_head,
    macros::{classifier, map, xdp},
    maps::{Array, HashMap, LruHashMap, ProgramArray},
    programs::{TcContext, XdpContext},
};

use crate::floor::Key;

/// Words of a frame: 64 bytes.
const WORDS: usize = 8;

/// Where the feeder is in its table.
#[repr(C)]
#[derive(Clone, Copy)]
struct Turn {
    /// The next frame.
    next: u32,
    /// How many there are.
    frames: u32,
}

#[map]
static TURN: Array<Turn> = Array::with_max_entries(1, 0);
#[map]
static FRAMES: Array<[u64; WORDS]> = Array::with_max_entries(1, 0);
/// The program behind the TC feeder.
#[map]
static MEASURED_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The program behind the XDP feeder. A program array holds programs of one type.
#[map]
static MEASURED_XDP: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
static HASH: HashMap<Key, u64> = HashMap::with_max_entries(1, 0);
#[map]
static LRU: LruHashMap<Key, u64> = LruHashMap::with_max_entries(1, 0);
/// Look-ups that found nothing, which none should.
#[map]
static MISSES: Array<u64> = Array::with_max_entries(1, 0);

/// The next frame of the table.
#[inline(always)]
fn next_frame() -> Option<*const [u64; WORDS]> {
    let turn = TURN.get_ptr_mut(0)?;
    // SAFETY: an element of the map, which only this feeder changes; rounds run one after the other.
    unsafe {
        let at = (*turn).next;
        (*turn).next = if at + 1 < (*turn).frames { at + 1 } else { 0 };
        FRAMES.get_ptr(at)
    }
}

/// Puts a frame into the packet.
#[inline(always)]
fn restore(data: usize, end: usize, frame: *const [u64; WORDS]) -> bool {
    if data + WORDS * 8 > end {
        return false;
    }
    for word in 0..WORDS {
        // SAFETY: in bounds of the packet, as checked, and of the element.
        unsafe { (data as *mut Unaligned).add(word).write_volatile(Unaligned((*frame)[word])) };
    }
    true
}

#[repr(C, packed)]
struct Unaligned(u64);

/// `TC_ACT_SHOT`: the feeder came to its end, which it does not when all is well.
const FAILED_TC: i32 = 2;
/// `XDP_ABORTED`.
const FAILED_XDP: u32 = 0;

#[classifier]
pub fn feed_tc(ctx: TcContext) -> i32 {
    let Some(frame) = next_frame() else { return FAILED_TC };
    if restore(ctx.data(), ctx.data_end(), frame) {
        // SAFETY: nothing here needs to be dropped.
        unsafe { MEASURED_TC.tail_call(&ctx, 0) };
    }
    FAILED_TC
}

#[xdp]
pub fn feed_xdp(ctx: XdpContext) -> u32 {
    let Some(frame) = next_frame() else { return FAILED_XDP };
    // What the last run put in front of the packet goes, and what it took off comes back.
    let excess = (ctx.data_end() - ctx.data()) as i32 - (WORDS * 8) as i32;
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, excess) } == 0 && restore(ctx.data(), ctx.data_end(), frame) {
        // SAFETY: nothing here needs to be dropped.
        unsafe { MEASURED_XDP.tail_call(&ctx, 0) };
    }
    FAILED_XDP
}

/// Makes a floor a program at TC and one at XDP.
macro_rules! floor {
    ($($tc:ident $xdp:ident $floor:path;)*) => {$(
        #[classifier]
        pub fn $tc(ctx: TcContext) -> i32 {
            $floor(ctx.data(), ctx.data_end());
            0
        }

        #[xdp]
        pub fn $xdp(ctx: XdpContext) -> u32 {
            $floor(ctx.data(), ctx.data_end());
            aya_ebpf::bindings::xdp_action::XDP_PASS
        }
    )*};
}

floor! {
    null_tc null_xdp floor::null;
    parse_tc parse_xdp floor::parse_only;
    hash_tc hash_xdp floor::hash;
    lru_tc lru_xdp floor::lru;
    update_tc update_xdp floor::update;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
