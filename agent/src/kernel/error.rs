//! What can go wrong between the agent and the kernel.

use std::{io, path::PathBuf};

use crate::plan::{CommitError, TooLarge};

/// The kernel side failed. The message says what failed, what is still in force, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The pins are not on a BPF file system.
    #[error("{path} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NoBpffs {
        /// Where the pins were to be.
        path: PathBuf,
    },
    /// Another agent holds the pins.
    #[error("another weir agent runs on {path}; it stays in charge")]
    Locked {
        /// The pins.
        path: PathBuf,
    },
    /// A file operation on a pin failed.
    #[error("cannot {action} {path}: {error}{}", permission_hint(.error))]
    Pin {
        /// What was to be done.
        action: &'static str,
        /// The pin.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A pinned map is not what this version of weir expects.
    #[error(
        "the pinned map {path} has {found}, this weir expects {expected}; what is pinned stays in force. \
         `weir detach --all` removes it"
    )]
    Mismatch {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The object could not be loaded.
    #[error("cannot load the eBPF object: {error}; what was attached before stays in force{hint}")]
    Load {
        /// Why not.
        error: String,
        /// What to do.
        hint: &'static str,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refused the program {program}: {error}; what was attached before stays in force\n{log}"
    )]
    Verifier {
        /// The program.
        program: &'static str,
        /// Why.
        error: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A map could not be read or written.
    #[error("map {map}: {error}")]
    Map {
        /// The map.
        map: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A program could not be attached to an interface, or detached from it.
    #[error("cannot {action} interface {interface}: {error}{}", permission_hint(.error))]
    Attach {
        /// What was to be done.
        action: &'static str,
        /// The interface.
        interface: String,
        /// Why not.
        error: io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {interface} in this network namespace")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// Netlink failed.
    #[error("cannot {action}: {error}{}", permission_hint(.error))]
    Netlink {
        /// What was to be done.
        action: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A change does not fit into the maps.
    #[error(
        "{0}; nothing was applied, the active revision stays. Larger maps take `weir detach --all` and a restart"
    )]
    TooLarge(#[from] TooLarge),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError<WriteError>),
}

/// A write to a map failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WriteError(#[from] pub io::Error);

/// What to do about a lack of privilege.
fn permission_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; weir needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        }
        _ => "",
    }
}
