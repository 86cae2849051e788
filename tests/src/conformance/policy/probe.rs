//! A probe: a connection by the names of its ends.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use anyhow::Context as _;
use serde::Deserialize;
use weir::{
    cluster::{Cluster, Name, Protocol},
    datapath::{Backend, Connection},
};
use weir_common::policy::Protocol as Judged;

/// Opening a connection and getting its reply.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Probe {
    from: String,
    to: String,
    port: u16,
    protocol: Protocol,
    family: Option<Family>,
    /// Whether it opens; `None`: that depends on the backend.
    pub(super) allowed: Option<bool>,
    /// Whether it opens, by backend.
    #[serde(default)]
    backends: BTreeMap<String, bool>,
    class: Option<String>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

/// Which addresses of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Family {
    IPv4,
    IPv6,
}

impl Probe {
    /// Whether upstream leaves the answer open.
    pub(super) fn is_grey(&self) -> bool {
        self.class.as_deref() == Some("grey")
    }

    /// The connection, by addresses: of the probe's family, or else of the destination's first that the
    /// source has too.
    pub(super) fn connection(&self, cluster: &Cluster) -> anyhow::Result<Connection> {
        let (sources, destinations) = (addresses(&self.from, cluster)?, addresses(&self.to, cluster)?);
        let fits = |address: &IpAddr| self.family.is_none_or(|family| family == family_of(*address));
        let pairs = destinations.into_iter().filter(fits).flat_map(|destination| {
            let same = sources.iter().filter(move |source| family_of(**source) == family_of(destination));
            same.map(move |source| (*source, destination))
        });
        let (source, destination) = { pairs }.next().context("no addresses of one family")?;
        let protocol = match self.protocol {
            Protocol::Tcp => Judged::Tcp,
            Protocol::Udp => Judged::Udp,
            Protocol::Sctp => Judged::Sctp,
        };
        Ok(Connection { source, destination, protocol, port: self.port })
    }

    /// What is expected of each backend.
    pub(super) fn backends(&self, cluster: &Cluster) -> anyhow::Result<BTreeMap<Backend, bool>> {
        let ipv6 = self.connection(cluster)?.destination.is_ipv6();
        let backends = self.backends.iter().map(|(text, allowed)| {
            let (pod, port) = text.rsplit_once(':').with_context(|| format!("{text} has no port"))?;
            let addresses = addresses(pod, cluster)?;
            let address = addresses.into_iter().find(|address| address.is_ipv6() == ipv6);
            let address = address.with_context(|| format!("{pod} has no address of the family"))?;
            Ok((Backend { address, port: port.parse()? }, *allowed))
        });
        backends.collect()
    }
}

/// The addresses of `NS/POD`, `node/NAME` or `svc/NS/NAME`, or an address itself.
fn addresses(place: &str, cluster: &Cluster) -> anyhow::Result<Vec<IpAddr>> {
    let name = |namespace: &str, name: &str| Name { namespace: namespace.into(), name: name.into() };
    let parts: Vec<_> = place.split('/').collect();
    let found = match parts[..] {
        [address] => Some(vec![address.parse().with_context(|| format!("{place} is not an address"))?]),
        ["node", node] => cluster.nodes.get(node).map(|node| node.addresses.clone()),
        [namespace, pod] => cluster.pods.get(&name(namespace, pod)).map(|pod| pod.addresses.clone()),
        ["svc", namespace, service] => {
            cluster.services.get(&name(namespace, service)).map(|service| service.cluster_ips.clone())
        }
        _ => None,
    };
    found.with_context(|| format!("there is no {place}"))
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::IPv4 } else { Family::IPv6 }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} port {}/{}", self.from, self.to, self.port, self.protocol)?;
        self.family.map_or(Ok(()), |family| write!(f, " {family:?}"))
    }
}
