//! The command line of `weir get`.

use std::net::IpAddr;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _},
};
use ipnet::IpNet;

use super::{Target, pod};
use crate::{
    cluster::Name,
    protocol::{Kind, State},
};

/// `weir get`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir get pods
  weir get services -n demo -o wide
  weir get policy db -n demo -o yaml
  weir get connections --pod demo/web-0 --in-state established")]
pub(in crate::cli) struct Get {
    /// What to list.
    #[arg(value_enum)]
    pub kind: What,
    /// Only the object of this name.
    pub name: Option<String>,
    /// Only objects of this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Objects of all namespaces (the default).
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ListOutput,
    /// Which connections.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// Agents.
    #[command(flatten)]
    pub target: Target,
}

/// Which connections to list.
#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Connections")]
pub(in crate::cli) struct ConnectionArgs {
    /// Only connections of this pod.
    #[arg(long, value_name = "NS/NAME", value_parser = pod)]
    pub pod: Option<Name>,
    /// Only connections through this service.
    #[arg(long, value_name = "NS/NAME", value_parser = pod)]
    pub service: Option<Name>,
    /// Only connections over this protocol: tcp, udp, sctp, icmp, icmpv6.
    #[arg(long, value_name = "PROTO", ignore_case = true, value_parser = protocol())]
    pub protocol: Option<String>,
    /// Only connections in this state.
    #[arg(long, value_name = "STATE", value_enum)]
    pub in_state: Option<State>,
    /// Only connections with an address of this block.
    #[arg(long, value_name = "ADDRESS[/LENGTH]", value_parser = block)]
    pub address: Option<IpNet>,
    /// At most so many, those with the latest packet first; 0: all [default: 1000]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// What `weir get` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum What {
    /// Objects of a kind.
    Objects(Kind),
    /// Live connections.
    Connections,
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Objects(Kind::Pods),
            Self::Objects(Kind::Services),
            Self::Objects(Kind::Policies),
            Self::Objects(Kind::Endpoints),
            Self::Objects(Kind::Nodes),
            Self::Objects(Kind::Namespaces),
            Self::Connections,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Objects(kind) => kind.to_possible_value(),
            Self::Connections => Some(
                PossibleValue::new("connections")
                    .aliases(["connection", "conn", "flows"])
                    .help("Live connections of the nodes"),
            ),
        }
    }
}

/// Form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ListOutput {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// The objects, as a JSON list.
    Json,
    /// The objects, as a YAML list.
    Yaml,
    /// Names alone.
    Name,
}

/// Protocols by the names that connections have.
fn protocol() -> impl clap::builder::TypedValueParser<Value = String> {
    let names = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"];
    PossibleValuesParser::new(names).map(move |given| {
        names.iter().find(|name| name.eq_ignore_ascii_case(&given)).map_or(given, |name| (*name).to_owned())
    })
}

fn block(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    let block = address.or_else(|| text.parse::<IpNet>().ok());
    block.map(|block| block.trunc()).ok_or_else(|| "expected an address or a block".to_owned())
}
