//! The command line.

mod agent;
mod get;
mod observe;
mod offline;
mod service;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(super) use self::{
    agent::{Agent, AttachMode, LogFormat, LogLevel, XdpMode},
    get::{ConnectionArgs, Get, ListOutput, What},
    observe::{Observe, ObserveOutput},
    offline::{Check, CheckOutput, Lint},
    service::{Describe, DescribePolicy, DescribeService, DescribeWhat, Lb, LbWhat, Simulate},
};

use crate::cluster::Name;

/// Kubernetes network policy and service load balancing in eBPF, with no API server.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 110
)]
#[command(after_help = "\
Exit status: 0 done, 1 a negative answer, 2 usage, 3 wrong manifests, 4 no agent answers, 5 kernel or \
permission, 6 rolled back.")]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent of a node: enforce manifests and watch them.
    Agent(Agent),
    /// Create or change objects from manifests, all of them or none.
    Apply(Apply),
    /// Delete objects.
    Delete(Delete),
    /// Show what `apply` would change: objects, and connections whose verdict changes.
    Diff(Diff),
    /// List objects as they are in force.
    Get(Get),
    /// Describe one object in full.
    Describe(Describe),
    /// Ask about the balancing of services.
    Lb(Lb),
    /// Show how the agents and their datapaths are.
    Status(Status),
    /// Say why a connection is allowed or denied.
    Explain(Explain),
    /// Follow dropped packets and new flows.
    Observe(Observe),
    /// Hold manifests against the expectations kept beside them; asks no agent.
    Check(Check),
    /// Name the classical mistakes in policies; asks no agent.
    Lint(Lint),
    /// Enforce a pod on an interface, and bring the interface up once it is enforced.
    Attach(Attach),
    /// Take weir off a pod, an interface, or this host.
    Detach(Detach),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print the version.
    Version,
}

/// Which agents to talk to: by default all that run on this host.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Target {
    /// Only the agent of this node.
    #[arg(long, value_name = "NAME", conflicts_with = "state")]
    pub node: Option<String>,
    /// Only the agent with this state directory.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// Manifests on the command line.
#[derive(Clone, Debug, Args)]
pub(super) struct Files {
    /// Manifest file, directory of manifests, or `-` for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
}

/// `weir apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir apply -f deny.yaml
  kubectl get networkpolicy -A -o yaml | weir apply -f -
  weir apply -f policies/ --dry-run")]
pub(super) struct Apply {
    /// Manifests.
    #[command(flatten)]
    pub files: Files,
    /// Validate and compile, and say what would change; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir delete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir delete -f deny.yaml
  weir delete networkpolicy/deny-all -n demo
  weir delete netpol deny-all -n demo")]
pub(super) struct Delete {
    /// Manifests that name the objects: file, directory, or `-`. May be repeated.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR|-",
        conflicts_with = "object",
        required_unless_present = "object"
    )]
    pub files: Vec<PathBuf>,
    /// The object: `KIND/NAME` or `KIND NAME`.
    #[arg(value_name = "KIND/NAME", num_args = 1..=2)]
    pub object: Vec<String>,
    /// Namespace of the object.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Say what would be deleted; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 nothing would change, 1 something would, 3 wrong manifests.

Example:
  weir diff -f deny.yaml")]
pub(super) struct Diff {
    /// Manifests.
    #[command(flatten)]
    pub files: Files,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir status`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 all is well, 1 something is wrong.")]
pub(super) struct Status {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportOutput,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportOutput {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `weir explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 allowed, 1 denied.

Examples:
  weir explain demo/web-0 demo/db-0:5432
  weir explain 203.0.113.9 demo/web-0:80/TCP
  weir explain -f shop/ demo/web-0 demo/db-0:5432")]
pub(super) struct Explain {
    /// Who sends: NS/POD or an address.
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Who is to receive: NS/POD or an address, with port and protocol.
    #[arg(value_name = "DST:PORT[/PROTO]")]
    pub destination: String,
    /// Ask these manifests rather than a running agent. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", conflicts_with_all = ["node", "state"])]
    pub files: Vec<PathBuf>,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
Returns once the pod is enforced. While no manifest knows the pod, everything on the interface is dropped.

Example:
  weir attach --pod demo/web-0 --interface veth-web-0")]
pub(super) struct Attach {
    /// The pod, as NAMESPACE/NAME.
    #[arg(long, value_name = "NS/NAME")]
    pub pod: String,
    /// Host-side interface of the pod; best still down.
    #[arg(long, value_name = "DEV")]
    pub interface: String,
    /// MAC address of the pod's own end, for interfaces whose other end the kernel does not know.
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `weir detach`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
#[command(after_help = "\
`--all` removes every program, map and pin, ends the agent, and works without one too.

Examples:
  weir detach --pod demo/web-0
  weir detach --all")]
pub(super) struct Detach {
    /// The interface of this pod.
    #[arg(long, value_name = "NS/NAME", group = "what")]
    pub pod: Option<String>,
    /// This interface.
    #[arg(long, value_name = "DEV", group = "what")]
    pub interface: Option<String>,
    /// Everything.
    #[arg(long, group = "what")]
    pub all: bool,
    /// Directory of pinned programs and maps, where there is no agent to say [default: all below /sys/fs/bpf/weir]
    #[arg(long, value_name = "DIR", requires = "all")]
    pub bpffs: Option<PathBuf>,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// `NAMESPACE/NAME`.
fn pod(text: &str) -> Result<Name, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Name { namespace: namespace.into(), name: name.into() })
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::protocol::Kind;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kinds_go_by_their_short_names() {
        for (short, kind) in [
            ("po", Kind::Pods),
            ("svc", Kind::Services),
            ("netpol", Kind::Policies),
            ("ns", Kind::Namespaces),
        ] {
            let cli = Cli::try_parse_from(["weir", "get", short]).unwrap();
            assert!(matches!(cli.command, Command::Get(get) if get.kind == What::Objects(kind)));
        }
    }

    #[test]
    fn detach_needs_exactly_one_target() {
        assert!(Cli::try_parse_from(["weir", "detach"]).is_err());
        assert!(Cli::try_parse_from(["weir", "detach", "--all", "--interface", "veth0"]).is_err());
        assert!(Cli::try_parse_from(["weir", "detach", "--pod", "demo/web"]).is_ok());
    }
}
