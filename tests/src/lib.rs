//! Tests of weir from the outside, and the conformance cases.

pub mod conformance;
pub mod fuzz;
pub mod live;
mod packet_socket;
pub mod packets;
