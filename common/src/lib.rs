//! What weir's kernel programs and its agent share.
//!
//! One definition of every map key, map value, verdict and reason, of the packet headers and of the
//! checksum arithmetic. The kernel side writes these structures straight into BPF maps and the agent
//! reads the same bytes, so every type that crosses is `repr(C)`, has no padding, and its size is
//! asserted at compile time by [`plain!`](crate::plain!).
//!
//! Addresses and ports are kept in network byte order everywhere; the newtypes in [`addr`] say so.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod answer;
pub mod checksum;
pub mod crc32c;
pub mod early;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod header;
pub mod plain;
pub mod policy;
pub mod reason;
pub mod service;
pub mod state;
