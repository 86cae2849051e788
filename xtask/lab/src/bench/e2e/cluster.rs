//! The cluster: as many services as wanted, of which one leads to the servers.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::network::{NODE, OUTSIDE, PODS, SERVERS};
use crate::bench::kube_proxy::{Cluster, ServicePort};

/// Where the servers listen.
pub(super) const PORT: u16 = 8000;
/// The port of the service that leads there.
pub(super) const SERVICE_PORT: u16 = 80;
/// Its port on the node.
pub(super) const NODE_PORT: u16 = 30080;
/// Its address.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 1);

const POD_RANGE: &str = "10.244.0.0/16";
const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The services' ports: `count` services, the last of which is the one that is used.
pub(super) fn ports(count: u32) -> Vec<ServicePort> {
    let filler = |number: u32| ServicePort {
        name: format!("filler-{number}"),
        protocol: "tcp",
        address: Ipv4Addr::from(0x0a60_0001 + number),
        port: 80,
        node_port: 0,
        endpoints: (0..2).map(|endpoint| Ipv4Addr::from(0x0af4_8001 + number * 2 + endpoint)).collect(),
        target: 8080,
    };
    let used = |protocol| ServicePort {
        name: "used".to_owned(),
        protocol,
        address: SERVICE,
        port: SERVICE_PORT,
        node_port: NODE_PORT,
        endpoints: SERVERS.to_vec(),
        target: PORT,
    };
    (0..count - 1).map(filler).chain([used("tcp"), used("udp")]).collect()
}

/// As kube-proxy knows it.
pub(super) const fn kube_proxy(ports: &[ServicePort]) -> Cluster<'_> {
    Cluster { node: NODE, pods: POD_RANGE, services: SERVICE_RANGE, ports }
}

/// As weir knows it.
pub(super) fn manifests(node: &str, ports: &[ServicePort], policies: u32) -> String {
    let mut text = format!(
        "---
apiVersion: v1
kind: Node
metadata: {{name: {node}}}
status: {{addresses: [{{type: InternalIP, address: {NODE}}}]}}
---
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {{name: cluster}}
spec: {{podCIDRs: [{POD_RANGE}], serviceCIDRs: [{SERVICE_RANGE}]}}
"
    );
    for (pod, address) in PODS {
        let app = pod.trim_end_matches(char::is_numeric);
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {pod}, namespace: bench, labels: {{app: {app}}}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: i}}]}}
status: {{phase: Running, podIPs: [{{ip: {address}}}]}}
"
        );
    }
    for (number, port) in ports.iter().enumerate() {
        // A service of two ports is one object.
        match ports.get(number + 1).filter(|next| next.name == port.name) {
            Some(next) => service(&mut text, &[port, next]),
            None if number > 0 && ports[number - 1].name == port.name => {}
            None => service(&mut text, &[port]),
        }
    }
    (0..policies).for_each(|number| policy(&mut text, number, policies));
    text
}

fn service(text: &mut String, ports: &[&ServicePort]) {
    let ServicePort { name, address, endpoints, .. } = ports[0];
    let each = |line: &dyn Fn(&ServicePort) -> String| {
        ports.iter().map(|port| line(port)).collect::<Vec<_>>().join(", ")
    };
    let front = each(&|port| {
        let ServicePort { protocol, port: number, node_port, target, .. } = port;
        let node_port = match node_port {
            0 => String::new(),
            number => format!(", nodePort: {number}"),
        };
        let upper = protocol.to_uppercase();
        format!("{{name: {protocol}, port: {number}, targetPort: {target}, protocol: {upper}{node_port}}}")
    });
    let back = each(&|port| {
        let protocol = port.protocol.to_uppercase();
        format!("{{name: {}, port: {}, protocol: {protocol}}}", port.protocol, port.target)
    });
    let kind = if ports[0].node_port == 0 { "ClusterIP" } else { "NodePort" };
    let addresses =
        endpoints.iter().map(|address| format!("{{addresses: [{address}]}}")).collect::<Vec<_>>().join(", ");
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: bench}}
spec: {{type: {kind}, clusterIP: {address}, clusterIPs: [{address}], ports: [{front}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: bench, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{back}]
endpoints: [{addresses}]
"
    );
}

/// One of so many policies, of which half are for what the client sends and half for what the servers
/// receive; the last of each half is the one that allows the traffic.
fn policy(text: &mut String, number: u32, count: u32) {
    let is_ingress = number < count / 2;
    let (direction, selected, list, other) = match is_ingress {
        true => ("Ingress", "server", "from", "client"),
        false => ("Egress", "client", "to", "server"),
    };
    let allows = number + 1 == count / 2 || number + 1 == count;
    // Clients outside are judged by their own addresses.
    let outside = if is_ingress { format!(", {{ipBlock: {{cidr: {OUTSIDE}/32}}}}") } else { String::new() };
    let (peer, port) = match allows {
        true => (format!("{{podSelector: {{matchLabels: {{app: {other}}}}}}}{outside}"), PORT),
        false => (format!("{{ipBlock: {{cidr: 172.16.{}.0/24}}}}", number % 256), 1000 + number as u16),
    };
    let field = direction.to_lowercase();
    let _ = write!(
        text,
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: policy-{number}, namespace: bench}}
spec:
  podSelector: {{matchLabels: {{app: {selected}}}}}
  policyTypes: [{direction}]
  {field}:
    - {list}: [{peer}]
      ports: [{{port: {port}, protocol: TCP}}, {{port: {port}, protocol: UDP}}]
"
    );
}
