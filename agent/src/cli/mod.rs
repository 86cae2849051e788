//! The command line client.
//!
//! Data goes to standard output, everything else to standard error. Each command gives its exit status:
//! 0 done, 1 a negative answer, or that of its [`Error`].

mod agent;
mod apply;
mod args;
mod attach;
mod check;
mod client;
mod connections;
mod describe;
mod describe_policy;
mod diff;
#[cfg(test)]
mod documented;
mod explain;
mod get;
mod input;
mod lint;
mod observe;
mod output;
mod report;
mod simulate;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::{
    args::{Cli, Command, DescribeWhat, LbWhat},
    output::{Style, escape_lines},
};
use crate::protocol::{Failure, FailureKind, Response};

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Agent(args) => agent::run(args),
        Command::Apply(args) => apply::apply(&args),
        Command::Delete(args) => apply::delete(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Describe(args) => match args.what {
            DescribeWhat::Service(args) => describe::service(&args),
            DescribeWhat::Policy(args) => describe_policy::policy(&args),
        },
        Command::Lb(args) => match args.what {
            LbWhat::Simulate(args) => simulate::run(&args),
        },
        Command::Get(args) => get::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Observe(args) => observe::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Attach(args) => attach::attach(&args),
        Command::Detach(args) => attach::detach(&args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
            print(&String::from_utf8_lossy(&script)).map(|()| 0)
        }
        Command::Version => print(concat!("weir ", env!("CARGO_PKG_VERSION"), "\n")).map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error.message);
            ExitCode::from(error.status)
        }
    }
}

/// Why a command ends without having done what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Exit status.
    status: u8,
    /// For people; may be several lines.
    message: String,
}

impl Error {
    /// The command line makes no sense.
    fn usage(message: impl Into<String>) -> Self {
        Self { status: 2, message: message.into() }
    }

    /// The manifests are wrong.
    fn input(message: impl Into<String>) -> Self {
        Self { status: 3, message: message.into() }
    }

    /// No agent answers.
    fn unreachable(message: impl Into<String>) -> Self {
        Self { status: 4, message: message.into() }
    }

    /// The kernel refuses.
    fn kernel(message: impl Into<String>) -> Self {
        Self { status: 5, message: message.into() }
    }

    /// What was changed has been undone.
    fn rolled_back(message: impl Into<String>) -> Self {
        Self { status: 6, message: message.into() }
    }

    /// The agent answers something else than it was asked.
    fn unexpected(response: &Response) -> Self {
        Self::unreachable(format!("the agent gives an answer that does not fit the question: {response:?}"))
    }

    /// The same, with where it happened.
    fn on(self, agent: &client::Agent) -> Self {
        Self { message: format!("{}: {}", agent.name, self.message), ..self }
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

/// Writes data.
fn print(text: &str) -> Result<(), Error> {
    output::print(text).map_err(|error| Error { status: 1, message: format!("standard output: {error}") })
}

/// Writes an error to standard error. Diagnostics of manifests say `error:` themselves, after the place.
fn complain(message: &str) {
    let message = escape_lines(message);
    let style = Style::stderr();
    if !message.contains(": error: ") {
        eprintln!("{} {}", style.red("error:"), message.trim_end());
        return;
    }
    for line in message.lines() {
        match line.split_once(": error: ") {
            Some((place, what)) => eprintln!("{}: {} {what}", style.bold(place), style.red("error:")),
            None => eprintln!("{line}"),
        }
    }
}

/// Writes something worth knowing to standard error.
fn warn(message: &str) {
    eprintln!("{}", escape_lines(message).trim_end());
}
