//! The command lines of what needs neither root nor an agent.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `weir check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Expectations are documents of their own, in any of the files:

  apiVersion: weir.dev/v1alpha1
  kind: PolicyCheck
  metadata: {name: shop}
  expect:
  - {from: demo/web-0, to: demo/db-0, port: 5432, allowed: true}
  - {from: 203.0.113.9, to: svc/demo/dns, port: 53, protocol: UDP, allowed: false}

`from` and `to` are NAMESPACE/POD, an address, or node/NAME; `to` may be svc/NAMESPACE/NAME. An expectation has \
to hold for every address family that both ends have, and for every backend of a service.

Exit status: 0 all hold, 1 some fail, 3 wrong manifests or expectations.

Example:
  weir check shop/ checks/")]
pub(in crate::cli) struct Check {
    /// Manifest file, directory of manifests, or `-` for standard input.
    #[arg(value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: CheckOutput,
}

/// Form of `weir check`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CheckOutput {
    /// A line per failure, and a summary.
    #[default]
    Text,
    /// JUnit XML, for CI.
    Junit,
}

/// `weir lint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 nothing found, 1 something found, 3 wrong manifests.

Example:
  weir lint shop/")]
pub(in crate::cli) struct Lint {
    /// Manifest file, directory of manifests, or `-` for standard input.
    #[arg(value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
}
