//! weir's agent as a library: manifests in, enforced datapath out.
//!
//! Data runs one way: [`manifest`] reads files into a [`cluster`], [`compile`] turns that into the desired
//! [`datapath`] of one node, and the kernel side brings the BPF maps there. The [`daemon`] does this whenever
//! something changes, and the [`cli`] talks to it by the [`protocol`].
#![deny(unsafe_code)]

pub mod check;
pub mod cli;
pub mod cluster;
pub mod compile;
pub mod connections;
pub mod daemon;
pub mod datapath;
pub mod kernel;
pub mod lint;
pub mod manifest;
pub mod plan;
mod processors;
pub mod protocol;
pub mod shared_map;
pub mod source;
mod uses;
