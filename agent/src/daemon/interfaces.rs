//! Which interface each pod of this node hangs on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use super::enforcer::Mac;
use crate::{
    cluster::{Cluster, Name, Node, Pod},
    plan::Interface,
};

/// Annotation of a Pod: its host-side interface.
const POD_INTERFACE: &str = "weir.dev/interface";
/// Annotation of a Node: its interface towards other nodes.
const NODE_UPLINK: &str = "weir.dev/uplink";

/// Interfaces and routes of this host at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Interface numbers by name.
    pub links: BTreeMap<String, u32>,
    /// Interfaces that a /32 or /128 unicast route leads to, by the route's address.
    pub host_routes: BTreeMap<IpAddr, u32>,
    /// Interfaces by the addresses they hold, but for loopback ones.
    pub addresses: BTreeMap<IpAddr, u32>,
}

/// This host's network, as far as the agent has to do with it.
pub(super) trait Network {
    /// What is there now; the very same value as before where nothing has changed.
    fn snapshot(&mut self) -> io::Result<Arc<Snapshot>>;

    /// MAC address of the other end of an interface of the last snapshot, of the pod behind it with one of `addresses`.
    fn peer_mac(&mut self, ifindex: u32, addresses: &[IpAddr]) -> io::Result<Option<Mac>>;

    /// Brings an interface up.
    fn bring_up(&mut self, ifindex: u32) -> io::Result<()>;

    /// Lets the loopback interface take in packets from this host's own addresses. When a client on the node asks a
    /// node port, its answers come from a pod, are translated, and so reach it.
    fn accept_own(&mut self) -> io::Result<()>;
}

/// An interface that `weir attach` named for a pod.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Attachment {
    /// Interface.
    pub interface: String,
    /// Its number then: another interface of the same name is not this one.
    pub ifindex: u32,
    /// MAC address of the pod's own end, when it was given.
    pub mac: Option<Mac>,
    /// The interface has still to be brought up, once its pod is enforced.
    pub bring_up: bool,
}

/// What clients said about interfaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    /// By `weir attach`, for which pod.
    pub attachments: &'a BTreeMap<Name, Attachment>,
    /// By `weir detach`, with their numbers.
    pub freed: &'a BTreeMap<String, u32>,
}

/// Where the pods of a node hang.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolution {
    /// Interface by pod address.
    pub interfaces: BTreeMap<IpAddr, Interface>,
    /// Interface name by pod.
    pub pods: BTreeMap<Name, String>,
    /// Pods of the node that cannot be enforced, and why.
    pub waiting: BTreeMap<Name, String>,
    /// The uplink, when there is one.
    pub uplink: Option<String>,
}

impl Resolution {
    /// Makes the pods on `interface` wait.
    pub(super) fn withdraw(&mut self, interface: &str, why: &str) {
        let pods: Vec<Name> =
            self.pods.iter().filter(|(_, name)| *name == interface).map(|(pod, _)| pod.clone()).collect();
        for pod in pods {
            self.pods.remove(&pod);
            self.waiting.insert(pod, why.to_owned());
        }
    }
}

/// Networked pods of a node.
pub(super) fn local_pods<'a>(cluster: &'a Cluster, node: &'a str) -> impl Iterator<Item = &'a Pod> {
    cluster
        .pods
        .values()
        .map(|pod| &**pod)
        .filter(move |pod| pod.node.as_deref() == Some(node) && pod.is_networked())
}

/// Finds the interface of every pod of `node`: named by `weir attach`, else by annotation, else by a host
/// route to one of its addresses.
pub(super) fn resolve(
    cluster: &Cluster,
    node: &str,
    uplink: Option<&str>,
    named: Named<'_>,
    snapshot: &Snapshot,
    network: &mut impl Network,
) -> Resolution {
    let Named { attachments, freed } = named;
    let uplink = find_uplink(cluster.nodes.get(node).map(|node| &**node), uplink, snapshot);
    let mut resolution = Resolution { uplink, ..Resolution::default() };
    let mut taken = BTreeMap::<u32, &Name>::new();
    let attached_to: BTreeSet<u32> = attachments.values().map(|attachment| attachment.ifindex).collect();
    // Those that `weir attach` named come first: no annotation takes an interface from them.
    let (first, others): (Vec<&Pod>, Vec<&Pod>) =
        local_pods(cluster, node).partition(|pod| attachments.contains_key(&pod.name));
    for pod in first.into_iter().chain(others) {
        let attachment = attachments.get(&pod.name);
        let found = find(pod, attachment, snapshot).and_then(|(name, ifindex)| {
            if resolution.uplink.as_ref() == Some(&name) {
                return Err(format!("interface {name} is the uplink"));
            }
            if attachment.is_none() && attached_to.contains(&ifindex) {
                return Err(format!("interface {name} was attached for another pod"));
            }
            if freed.get(&name) == Some(&ifindex) {
                return Err(format!(
                    "interface {name} was freed by `weir detach`; `weir attach` takes it back"
                ));
            }
            if let Some(owner) = taken.get(&ifindex) {
                return Err(format!("interface {name} belongs to pod {owner}"));
            }
            let mac = match attachment.and_then(|attachment| attachment.mac) {
                Some(mac) => Some(mac),
                None => network
                    .peer_mac(ifindex, &pod.addresses)
                    .map_err(|error| format!("interface {name}: {error}"))?,
            };
            let mac = mac.ok_or_else(|| {
                format!(
                    "the MAC address behind interface {name} is not known; give it with `weir attach --mac`"
                )
            })?;
            Ok((name, Interface { ifindex, mac: mac.0 }))
        });
        match found {
            Ok((name, interface)) => {
                taken.insert(interface.ifindex, &pod.name);
                resolution.interfaces.extend(pod.addresses.iter().map(|&address| (address, interface)));
                resolution.pods.insert(pod.name.clone(), name);
            }
            Err(why) => {
                resolution.waiting.insert(pod.name.clone(), why);
            }
        }
    }
    resolution
}

fn find(pod: &Pod, attachment: Option<&Attachment>, snapshot: &Snapshot) -> Result<(String, u32), String> {
    let by_index = |ifindex: u32| {
        snapshot
            .links
            .iter()
            .find(|(_, index)| **index == ifindex)
            .map(|(name, index)| (name.clone(), *index))
    };
    if let Some(attachment) = attachment {
        // By number: the interface may have been renamed since.
        return by_index(attachment.ifindex)
            .ok_or_else(|| format!("interface {} that was attached for it is gone", attachment.interface));
    }
    if let Some(name) = pod.annotations.get(POD_INTERFACE) {
        let index = snapshot.links.get(name);
        return index
            .map(|&index| (name.clone(), index))
            .ok_or_else(|| format!("interface {name} of its annotation {POD_INTERFACE} is not there"));
    }
    let route = pod.addresses.iter().find_map(|address| snapshot.host_routes.get(address));
    route.and_then(|&index| by_index(index)).ok_or_else(|| {
        format!("no interface found: neither annotation {POD_INTERFACE}, nor a host route to its address, nor `weir attach`")
    })
}

/// The annotation wins over the option, the option over the interface that holds the node's address.
fn find_uplink(node: Option<&Node>, option: Option<&str>, snapshot: &Snapshot) -> Option<String> {
    let annotation = node.and_then(|node| node.annotations.get(NODE_UPLINK));
    if let Some(name) = annotation.map(String::as_str).or(option) {
        return snapshot.links.contains_key(name).then(|| name.to_owned());
    }
    let index = node?.addresses.iter().find_map(|address| snapshot.addresses.get(address))?;
    snapshot.links.iter().find(|(_, number)| *number == index).map(|(name, _)| name.clone())
}
