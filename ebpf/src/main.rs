//! weir's kernel programs.
//!
//! A packet's way at TC: a program of [`hook`] → [`parse`] → [`flow`] (a hit decides everything) → on a miss
//! [`decide`] ([`service`], [`policy`]) → [`rewrite`] and [`deliver`]. One file per stage; both address
//! families run the same generic code, see [`family`]. Before it, at XDP, [`edge`] sends on what is for pods
//! of other nodes.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    missing_docs,
    reason = "the classifier macro does not carry documentation to the function it makes"
)]
#![expect(clippy::needless_pass_by_value, reason = "the signature that the classifier macro wants")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key that is passed by value is copied to a stack slot of the compiler's alignment"
)]
#![expect(internal_features, reason = "compare-and-swap on map memory has no stable form for this target")]

mod affinity;
mod ctx;
mod decide;
mod deliver;
mod early;
mod edge;
mod family;
mod flow;
mod fragment;
mod hook;
mod icmp_error;
mod maps;
mod masquerade;
mod neighbour;
mod parse;
mod policy;
mod reject;
mod report;
mod reset;
mod rewrite;
mod service;
mod slow;
mod tunnel;
mod words;
mod work;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use weir_common::reason::Hook;

use crate::ctx::Ctx;

/// What a pod sends: TCX ingress of the pod's host-side interface.
#[classifier]
#[inline(always)]
pub fn from_pod(tc: TcContext) -> i32 {
    let ctx = Ctx::new(tc.skb.skb);
    report::finish(&ctx, Hook::FromPod, hook::from_pod::run(&ctx))
}

/// What reaches a pod through the node's stack: TCX egress of the same interface.
#[classifier]
#[inline(always)]
pub fn to_pod(tc: TcContext) -> i32 {
    let ctx = Ctx::new(tc.skb.skb);
    report::finish(&ctx, Hook::ToPod, hook::to_pod::run(&ctx))
}

/// What comes from other nodes and from outside: TCX ingress of the uplink.
#[classifier]
#[inline(always)]
pub fn from_uplink(tc: TcContext) -> i32 {
    let ctx = Ctx::new(tc.skb.skb);
    report::finish(&ctx, Hook::FromUplink, hook::from_uplink::run(&ctx))
}

/// What goes to other nodes and outside: TCX egress of the uplink.
#[classifier]
#[inline(always)]
pub fn to_uplink(tc: TcContext) -> i32 {
    let ctx = Ctx::new(tc.skb.skb);
    report::finish(&ctx, Hook::ToUplink, hook::to_uplink::run(&ctx))
}

/// What comes from other nodes and from outside, before the stack: XDP on the uplink.
#[xdp]
#[inline(always)]
pub fn edge(xdp: XdpContext) -> u32 {
    edge::run(&Ctx::new(xdp.ctx))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
