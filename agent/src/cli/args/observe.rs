//! The command line of `weir observe`.

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use weir_common::reason::Reason;

use super::{Target, pod};
use crate::{cluster::Name, protocol::Verdict};

/// `weir observe`.
#[derive(Debug, Args)]
#[command(after_help = "\
Shows what happens from now on, until Ctrl-C; with --last, what has happened. Conditions are combined by AND.

Examples:
  weir observe --verdict dropped
  weir observe --to-pod demo/db-0 --reason POLICY_DENIED
  weir observe --last 20
  weir observe -o json | jq .ingress.sources")]
pub(in crate::cli) struct Observe {
    /// Only what this pod sends or receives.
    #[arg(long, value_name = "NS/NAME", value_parser = pod)]
    pub pod: Option<Name>,
    /// Only what this pod sends.
    #[arg(long, value_name = "NS/NAME", value_parser = pod)]
    pub from_pod: Option<Name>,
    /// Only what this pod receives, also as a backend of a service.
    #[arg(long, value_name = "NS/NAME", value_parser = pod)]
    pub to_pod: Option<Name>,
    /// Only new flows, or only dropped packets.
    #[arg(long, value_enum)]
    pub verdict: Option<Verdict>,
    /// Only packets dropped for this reason.
    #[arg(
        long,
        value_name = "NAME",
        ignore_case = true,
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
    )]
    pub reason: Option<String>,
    /// The last N events that the agents remember, and no more unless --follow is given.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// What happens from now on, until Ctrl-C (the default without --last).
    #[arg(short, long)]
    pub follow: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ObserveOutput,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// Form of `weir observe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ObserveOutput {
    /// A line for people.
    #[default]
    Compact,
    /// A JSON object a line.
    Json,
}
