//! The cluster whose node is measured: policy is in force on both ends of every flow between pods, and services
//! that the outside knows have their one backend on the other node.

use std::fmt::Write as _;

use super::case::{CLIENT, OTHER, REMOTE, SERVER};

/// The node that is measured.
pub(super) const NODE: &str = "n1";
/// Services of each kind, each of which leads to a port of its own.
pub(super) const SERVICES: u16 = 16;
/// First of the ports that the services lead to.
pub(super) const TARGETS: u16 = 8000;
/// First of the ports that are reached without a service.
pub(super) const DIRECT: u16 = 9000;
/// First of the ports of the services that the outside knows.
pub(super) const FRONTS: u16 = 7000;
/// Pods of the node, with their addresses.
pub(super) const PODS: [(&str, [u8; 4]); 3] = [("client", CLIENT), ("server", SERVER), ("other", OTHER)];

/// A service that the outside knows, with a backend on the other node.
pub(super) struct Exposed {
    name: &'static str,
    /// The address by which the outside knows it.
    pub(super) address: [u8; 4],
    annotations: &'static str,
    spec: &'static str,
}

/// Its packets go through a tunnel, as they are.
pub(super) const TUNNELLED: Exposed = Exposed {
    name: "tunnelled",
    address: [198, 51, 100, 1],
    annotations: ", annotations: {weir.dev/forwarding: dsr}",
    spec: "",
};
/// Its packets get the backend's address, and the node's as their source.
pub(super) const TRANSLATED: Exposed =
    Exposed { name: "translated", address: [198, 51, 100, 2], annotations: "", spec: "" };
/// Nobody who is measured may use it.
pub(super) const CLOSED: Exposed = Exposed {
    name: "closed",
    address: [198, 51, 100, 3],
    annotations: ", annotations: {weir.dev/forwarding: dsr}",
    spec: "\n  loadBalancerSourceRanges: [100.64.0.0/24, 100.64.2.0/24]",
};

/// All of it.
pub(super) fn manifests() -> String {
    let mut text = CLUSTER.to_owned();
    for (name, address) in PODS {
        pod(&mut text, name, NODE, address);
    }
    pod(&mut text, "remote", "n2", REMOTE);
    (0..SERVICES).for_each(|number| service(&mut text, number));
    for service in [TUNNELLED, TRANSLATED, CLOSED] {
        exposed(&mut text, &service);
    }
    text
}

fn pod(text: &mut String, name: &str, node: &str, address: [u8; 4]) {
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: t, labels: {{app: {name}}}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: i}}]}}
status: {{phase: Running, podIPs: [{{ip: {}}}]}}
",
        dotted(address)
    );
}

fn service(text: &mut String, number: u16) {
    let (name, address) = (format!("s{number}"), dotted([10, 96, 0, number as u8 + 1]));
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: t}}
spec: {{clusterIP: {address}, clusterIPs: [{address}], ports: [{{name: p, port: 80}}]}}
"
    );
    let ports = format!("{{name: p, port: {}, protocol: TCP}}", TARGETS + number);
    slice(text, &name, &ports, SERVER, NODE);
}

fn exposed(text: &mut String, service: &Exposed) {
    let Exposed { name, address, annotations, spec } = service;
    let each = |line: &dyn Fn(u16) -> String| (0..SERVICES).map(line).collect::<Vec<_>>().join(", ");
    let fronts = each(&|number| {
        format!("{{name: p{number}, port: {}, targetPort: {}}}", FRONTS + number, TARGETS + number)
    });
    let inside = dotted([10, 96, 1, address[3]]);
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: t{annotations}}}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  clusterIP: {inside}
  clusterIPs: [{inside}]
  ports: [{fronts}]{spec}
status: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}
",
        dotted(*address)
    );
    let ports = each(&|number| format!("{{name: p{number}, port: {}, protocol: TCP}}", TARGETS + number));
    slice(text, name, &ports, REMOTE, "n2");
}

/// The one endpoint of a service.
fn slice(text: &mut String, service: &str, ports: &str, address: [u8; 4], node: &str) {
    let _ = write!(
        text,
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}, namespace: t, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{ports}]
endpoints: [{{addresses: [{}], nodeName: {node}}}]
",
        dotted(address)
    );
}

fn dotted(address: [u8; 4]) -> std::net::Ipv4Addr {
    address.into()
}

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.50.11}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.50.12}]}
---
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {name: cluster}
spec: {podCIDRs: [10.244.0.0/16], serviceCIDRs: [10.96.0.0/16]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in, namespace: t}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [client, remote]}]}}]
      ports: [{port: 8000, endPort: 9100, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: t}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [server, remote]}]}}]
      ports: [{port: 8000, endPort: 9100, protocol: TCP}]
";
