//! Health: what this node tells load balancers about its endpoints, and what it finds out about backends.

mod checker;
mod engine;
mod probe;
mod server;
mod track;

pub(super) use self::{
    checker::{Checker, Finding},
    server::HealthServers,
};
