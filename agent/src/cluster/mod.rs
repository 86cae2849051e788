//! The cluster: validated objects, with the defaults of the Kubernetes API filled in.

mod model;

pub use model::*;
