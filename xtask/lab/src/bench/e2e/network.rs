//! The network that every way of forwarding gets: a node, a client, two servers, and a client outside.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::demo::netns;

/// The client's address.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
/// The servers' addresses.
pub(super) const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 20), Ipv4Addr::new(10, 244, 1, 21)];
/// The node's address.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 11);
/// The address of the client outside.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 100);
/// The pods' router.
const GATEWAY: &str = "169.254.1.1";

/// Pods by the name of their interface on the node.
pub(super) const PODS: [(&str, Ipv4Addr); 3] =
    [("client", CLIENT), ("server1", SERVERS[0]), ("server2", SERVERS[1])];

const ROUTER: [(&str, &str); 3] =
    [("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")];
/// Ports for all the connections that are opened in a round.
const SENDER: [(&str, &str); 1] = [("ipv4/ip_local_port_range", "1024 65535")];

/// The namespaces of one way of forwarding.
#[derive(Clone, Debug)]
pub(super) struct Network {
    name: String,
}

impl Network {
    /// A network whose servers are reached over the node.
    pub(super) fn routed(name: &str) -> Result<Self> {
        let network = Self::namespaces(name)?;
        let node = network.node();
        netns::sysctl(&node, &ROUTER)?;
        for (pod, address) in PODS {
            let there = network.netns(pod);
            netns::ip(
                Some(&node),
                &[
                    format!("link add name {pod} type veth peer name eth0 netns {there}"),
                    format!("address add {GATEWAY}/32 dev {pod}"),
                ],
            )?;
            netns::ip(
                Some(&there),
                &[
                    format!("address add {address}/32 dev eth0"),
                    "link set eth0 up".to_owned(),
                    format!("route add {GATEWAY} dev eth0 scope link"),
                    format!("route add default via {GATEWAY} dev eth0"),
                ],
            )?;
        }
        let outside = network.outside();
        netns::ip(
            Some(&node),
            &[
                format!("link add name uplink type veth peer name eth0 netns {outside}"),
                format!("address add {NODE}/24 dev uplink"),
                "link set uplink up".to_owned(),
                format!("route add default via {OUTSIDE} dev uplink"),
            ],
        )?;
        netns::ip(
            Some(&outside),
            &[
                format!("address add {OUTSIDE}/24 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add default via {NODE} dev eth0"),
            ],
        )?;
        Ok(network)
    }

    /// A network in which a pair of interfaces joins the client to each server, and nothing stands between.
    pub(super) fn direct(name: &str) -> Result<Self> {
        let network = Self::namespaces(name)?;
        let client = network.netns(PODS[0].0);
        for (number, (pod, address)) in PODS.into_iter().enumerate().skip(1) {
            let there = network.netns(pod);
            netns::ip(
                Some(&client),
                &[
                    format!("link add name eth{number} type veth peer name eth0 netns {there}"),
                    format!("address add {CLIENT}/32 dev eth{number}"),
                    format!("link set eth{number} up"),
                    format!("route add {address} dev eth{number} src {CLIENT}"),
                ],
            )?;
            netns::ip(
                Some(&there),
                &[
                    format!("address add {address}/32 dev eth0"),
                    "link set eth0 up".to_owned(),
                    format!("route add {CLIENT} dev eth0"),
                ],
            )?;
        }
        Ok(network)
    }

    /// Brings the pods' interfaces up, and routes to them.
    pub(super) fn bring_up(&self) -> Result<()> {
        let lines = PODS.iter().flat_map(|(pod, address)| {
            [format!("link set {pod} up"), format!("route replace {address} dev {pod} scope link")]
        });
        netns::ip(Some(&self.node()), &lines.collect::<Vec<_>>())
    }

    /// The node's namespace.
    pub(super) fn node(&self) -> String {
        self.netns("node")
    }

    /// The namespace outside.
    pub(super) fn outside(&self) -> String {
        self.netns("outside")
    }

    /// A pod's namespace.
    pub(super) fn netns(&self, pod: &str) -> String {
        format!("{}-{pod}", self.name)
    }

    fn namespaces(name: &str) -> Result<Self> {
        let network = Self { name: name.to_owned() };
        for namespace in network.all() {
            netns::ip(None, &[format!("netns add {namespace}")])?;
            netns::ip(Some(&namespace), &["link set lo up".to_owned()])?;
            netns::sysctl(&namespace, &SENDER)?;
        }
        Ok(network)
    }

    fn all(&self) -> Vec<String> {
        let pods = PODS.iter().map(|(pod, _)| self.netns(pod));
        pods.chain([self.node(), self.outside()]).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.all() {
            if let Err(error) = netns::remove(&namespace) {
                eprintln!("left behind: {error:#}");
            }
        }
    }
}
