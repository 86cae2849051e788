//! The cluster: validated objects, with the defaults of the Kubernetes API filled in.

mod build;
mod model;
mod objects;

pub use self::{build::Built, model::*, objects::Objects};
