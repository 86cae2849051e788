//! The agent: it owns the pins, watches manifests, enforces them, and answers on a socket.
pub mod enforcer;
pub mod interfaces;
pub mod netlink;
pub mod socket;
pub mod state;
pub mod watch;
