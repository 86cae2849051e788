//! The loaded programs on packets made by hand, by `BPF_PROG_TEST_RUN`: on the running kernel, as root.
//!
//! Nothing is sent. The programs run on a copy of the packet as if it were at their hook, in a network
//! namespace that is made for the purpose.

pub mod action;
mod build;
mod check;
mod lab;
mod namespace;
mod node;
mod tap;

pub use build::{
    Ends, NODE_MAC, POD_MAC, crc32c, eth, fragment_v4, fragment_v6, ip, ip_chain_v6, ip_options_v4,
    l4_offset, mend_v4, set_ip_len, transport_check,
};
pub use check::{is_port_unreachable, read_tuple, wrong_answer, wrong_checksums, wrong_too_big};
pub use lab::{Answered, Lab, Passed, ROUTER_MAC, Verdict, in_lab, in_lab_of};
pub use namespace::{in_namespace, ip as ip_command};
pub use node::{At, Node, Programs, object};
pub use tap::Tap;
