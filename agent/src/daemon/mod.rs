//! The agent: it owns the pins, watches manifests, enforces them, and answers on a socket.
//!
//! One thread runs the engine and makes every change, one after the other. Tasks beside it watch
//! manifests and interfaces and talk to clients; none of them can hold it up.

mod accepted;
mod announcements;
mod answer;
mod attachments;
mod describe;
mod difference;
mod enforcer;
mod engine;
mod event_log;
mod events;
pub mod explain;
mod flows;
mod health;
mod hits;
mod http;
mod interfaces;
mod kernel;
mod leftovers;
mod listing;
mod manifests;
mod memory;
mod metrics;
mod netlink;
mod overlay;
pub(crate) mod policy_report;
mod refusal;
mod report;
mod run;
mod simulate;
mod socket;
mod state;
#[cfg(test)]
mod tests;

pub use crate::kernel::XdpMode;

pub use self::{
    kernel::remove_pins,
    leftovers::{Leftovers, Places},
    refusal::refusal,
    run::{AttachMode, Options, RunError, default_bpffs, default_pins, run},
};
