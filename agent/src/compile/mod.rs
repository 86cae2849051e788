//! From a cluster to the desired datapath of one node: a pure function.

pub mod services;
