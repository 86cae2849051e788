//! The manifests of the tests: two nodes, and what each test puts on them.

/// The namespace of everything.
pub const NAMESPACE: &str = "shop";
/// Every pod listens here over TCP.
pub const TCP: u16 = 8080;
/// And here over UDP.
pub const UDP: u16 = 5353;

/// Node 1 is `node-1`, and so on.
pub fn nodes(count: u8) -> String {
    let node = |number: u8| {
        format!(
            "---
apiVersion: v1
kind: Node
metadata: {{name: node-{number}}}
spec: {{podCIDRs: [10.244.{number}.0/24, \"fd00:10:244:{number}::/64\"]}}
status:
  addresses:
    - {{type: InternalIP, address: 172.18.0.{number}0}}
    - {{type: InternalIP, address: \"fd00:172:18::{number}0\"}}
"
        )
    };
    let nodes: String = (1..=count).map(node).collect();
    format!(
        "{nodes}---
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {{name: cluster}}
spec:
  podCIDRs: [10.244.0.0/16, \"fd00:10:244::/48\"]
  serviceCIDRs: [10.96.0.0/16, \"fd00:10:96::/112\"]
---
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
"
    )
}

/// A pod with the label `app: NAME`, address number `host` of its node.
pub fn pod(name: &str, node: u8, host: u8) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {name}}}}}
spec:
  nodeName: node-{node}
  containers:
    - name: main
      image: registry.example/main
      ports: [{{containerPort: {TCP}}}, {{containerPort: {UDP}, protocol: UDP}}]
status:
  phase: Running
  podIPs: [{{ip: 10.244.{node}.{host}}}, {{ip: \"fd00:10:244:{node}::{host}\"}}]
"
    )
}

/// A policy that lets only `peers` into the pods `app`.
pub fn ingress(name: &str, app: &str, peers: &[&str]) -> String {
    let from: Vec<_> =
        peers.iter().map(|app| format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}")).collect();
    let rules = if from.is_empty() { String::new() } else { format!("{{from: [{}]}}", from.join(", ")) };
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  policyTypes: [Ingress]
  ingress: [{rules}]
"
    )
}

/// Service number `number` without a selector: port 80 over TCP leads to `tcp`, port 53 over UDP to `udp`.
pub fn service(name: &str, number: u8) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  type: ClusterIP
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.96.0.{number}
  clusterIPs: [10.96.0.{number}, \"fd00:10:96::{number}\"]
  ports:
    - {{name: tcp, port: 80, protocol: TCP}}
    - {{name: udp, port: 53, protocol: UDP}}
"
    )
}

/// The endpoints of a service: node and host number of each, on ports `tcp` and `udp`.
pub fn endpoints(service: &str, pods: &[(u8, u8)], tcp: u16, udp: u16) -> String {
    let slice = |family: &str, address: &dyn Fn(u8, u8) -> String| {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|&(node, host)| {
                let address = address(node, host);
                format!("{{addresses: [\"{address}\"], nodeName: node-{node}, conditions: {{ready: true}}}}")
            })
            .collect();
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-{name}
  namespace: {NAMESPACE}
  labels: {{kubernetes.io/service-name: {service}}}
addressType: {family}
endpoints: [{}]
ports:
  - {{name: tcp, port: {tcp}, protocol: TCP}}
  - {{name: udp, port: {udp}, protocol: UDP}}
",
            endpoints.join(", "),
            name = family.to_lowercase(),
        )
    };
    let ipv4 = slice("IPv4", &|node, host| format!("10.244.{node}.{host}"));
    ipv4 + &slice("IPv6", &|node, host| format!("fd00:10:244:{node}::{host}"))
}

/// Two nodes. `server` (node 1) lets in `client` (node 1) and `far` (node 2); `far` lets in `client` and `server`.
/// Nobody lets in `denied` (node 1). `client` and `denied` are open to all.
pub fn cluster() -> String {
    [
        nodes(2),
        pod("client", 1, 10),
        pod("server", 1, 20),
        pod("denied", 1, 30),
        pod("far", 2, 10),
        ingress("server", "server", &["client", "far"]),
        ingress("far", "far", &["client", "server"]),
    ]
    .concat()
}
