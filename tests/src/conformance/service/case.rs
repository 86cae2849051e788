//! A service case as it stands in `expect.json`.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

/// What a file says and the runner does not know.
pub(super) type Others = BTreeMap<String, Value>;

/// `expect.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    pub(super) config: Config,
    pub(super) steps: Vec<Step>,
}

/// Cluster-wide configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(rename = "clusterCIDRs")]
    pub(super) cluster_cidrs: Vec<IpNet>,
    #[serde(rename = "serviceCIDRs")]
    pub(super) service_cidrs: Vec<IpNet>,
    #[serde(rename = "nodePortAddresses")]
    pub(super) node_port_addresses: NodePortAddresses,
    #[serde(rename = "masqueradeAll")]
    pub(super) masquerade_all: bool,
    /// Whether pods can be told apart from outside clients.
    #[serde(rename = "detectLocal")]
    pub(super) detect_local: bool,
    /// Addresses that nodes have besides those of their manifests.
    #[serde(rename = "localAddresses")]
    pub(super) local_addresses: BTreeMap<String, Vec<IpAddr>>,
}

/// `primary` or blocks.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum NodePortAddresses {
    Blocks(Vec<IpNet>),
    Primary(Primary),
}

/// The word `primary`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Primary {
    Primary,
}

/// A state of the cluster and what is to be seen in it.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    pub(super) title: String,
    pub(super) cluster: PathBuf,
    #[serde(default)]
    pub(super) packets: Vec<Packet>,
    #[serde(default)]
    pub(super) flows: Vec<Flow>,
    #[serde(default)]
    pub(super) healthz: Vec<Health>,
}

/// The verdict on the first packet of a new connection.
#[derive(Debug, Deserialize)]
pub(super) struct Packet {
    pub(super) node: String,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) expect: Verdict,
    #[serde(default)]
    pub(super) backends: Vec<String>,
    pub(super) snat: Option<bool>,
    #[serde(default)]
    pub(super) snat_by_backend: BTreeMap<String, bool>,
    pub(super) reject_with: Option<String>,
    pub(super) distribution: Option<String>,
    /// All connections of the client go to one backend.
    #[serde(default)]
    pub(super) sticky: bool,
    /// For this long after the last one.
    pub(super) sticky_timeout_s: Option<u32>,
    /// The answer depends on connections of earlier steps.
    #[serde(default)]
    pub(super) needs_state: bool,
    #[serde(flatten)]
    pub(super) others: Others,
}

/// What becomes of a connection opened in the step before.
#[derive(Debug, Deserialize)]
pub(super) struct Flow {
    pub(super) node: String,
    pub(super) from: IpAddr,
    pub(super) sport: u16,
    pub(super) to: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) established_with: String,
    /// Where its next packet may go; nowhere when empty.
    pub(super) after: Option<Vec<String>>,
    #[serde(flatten)]
    pub(super) others: Others,
}

/// The answer of a `healthCheckNodePort`.
#[derive(Debug, Deserialize)]
pub(super) struct Health {
    pub(super) node: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// HTTP status; `None`: nobody listens.
    pub(super) status: Option<u16>,
    #[serde(rename = "localEndpoints")]
    pub(super) local_endpoints: Option<usize>,
    #[serde(flatten)]
    pub(super) others: Others,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Dnat,
    Drop,
    Reject,
    Pass,
}

/// A protocol over IP.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

impl Protocol {
    /// Its number.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Sctp => 132,
        }
    }
}
