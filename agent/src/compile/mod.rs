//! From a cluster to the desired datapath of one node: a pure function.

mod numbers;
pub mod services;

pub use numbers::{Interner, Numbers, RuleKey, ServicePortKey};
