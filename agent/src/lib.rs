//! weir's agent as a library: manifests in, enforced datapath out.
//!
//! Data runs one way: [`manifest`] reads files into a [`cluster`], [`compile`] turns that into the desired
//! [`datapath`] of one node, and the kernel side brings the BPF maps there.
#![deny(unsafe_code)]

pub mod cluster;
pub mod compile;
pub mod datapath;
pub mod kernel;
pub mod manifest;
pub mod plan;
pub mod source;
