//! The command lines of `weir describe` and `weir lb`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Files, ReportOutput, Target, pod};
use crate::{cluster::Name, protocol::PolicyName};

/// `weir describe`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir describe service shop/api
  weir describe service shop/api -o json
  weir describe policy shop/api
  weir describe policy -f shop/ shop/api")]
pub(in crate::cli) struct Describe {
    /// What to describe.
    #[command(subcommand)]
    pub what: DescribeWhat,
}

/// What to describe.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DescribeWhat {
    /// A service: what it answers on, its backends, why one is not used, and who is connected.
    #[command(alias = "svc")]
    Service(DescribeService),
    /// A policy: whom it selects and isolates, what each rule says of the pods that are there, and what it has decided.
    #[command(aliases = ["netpol", "networkpolicy", "clusternetworkpolicy", "cnp"])]
    Policy(DescribePolicy),
}

/// `weir describe service`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DescribeService {
    /// The service, as NAMESPACE/NAME.
    #[arg(value_name = "NS/NAME", value_parser = pod)]
    pub name: Name,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportOutput,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir describe policy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DescribePolicy {
    /// The policy, as NAMESPACE/NAME, or as the NAME of a ClusterNetworkPolicy.
    #[arg(value_name = "[NS/]NAME")]
    pub name: PolicyName,
    /// Read these manifests rather than ask a running agent; nothing is counted then. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", conflicts_with_all = ["node", "state"])]
    pub files: Vec<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportOutput,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir lb`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Lb {
    /// What to do.
    #[command(subcommand)]
    pub what: LbWhat,
}

/// What to do about balancing.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LbWhat {
    /// Say which connections a change would send to other backends; change nothing.
    #[command(after_help = "\
Exit status: 0 nothing would move, 1 something would, 3 wrong manifests.

Example:
  weir lb simulate -f one-backend-less.yaml")]
    Simulate(Simulate),
}

/// `weir lb simulate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Simulate {
    /// Manifests.
    #[command(flatten)]
    pub files: Files,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportOutput,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}
