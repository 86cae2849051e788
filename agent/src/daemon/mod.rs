//! The agent: it owns the pins, watches manifests, enforces them, and answers on a socket.
//!
//! One thread runs the engine and makes every change, one after the other. Tasks beside it watch
//! manifests and interfaces and talk to clients; none of them can hold it up.

mod accepted;
mod answer;
mod attachments;
mod difference;
mod enforcer;
mod engine;
mod events;
pub mod explain;
mod hits;
mod interfaces;
mod kernel;
mod leftovers;
mod listing;
mod manifests;
mod netlink;
mod observers;
mod overlay;
mod report;
mod run;
mod socket;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    engine::refusal,
    kernel::remove_pins,
    leftovers::{Leftovers, Places},
    run::{AttachMode, Options, RunError, default_bpffs, default_pins, run},
};
