//! The command line client.
pub mod args;
pub mod client;
pub mod output;

use crate::protocol::{Failure, FailureKind};

/// Why a command ends without having done what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Exit status.
    pub status: u8,
    /// For people; may be several lines.
    pub message: String,
}

impl Error {
    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: 2, message: message.into() }
    }

    /// What was given is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self { status: 3, message: message.into() }
    }

    /// No agent answers.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { status: 4, message: message.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::NotFound => 1,
            FailureKind::Usage => 2,
            FailureKind::Input => 3,
            FailureKind::Kernel => 5,
            FailureKind::RolledBack => 6,
        };
        Self { status, message: failure.message }
    }
}
