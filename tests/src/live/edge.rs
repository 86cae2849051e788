//! A service at the edge of a live cluster: a client outside, and a router that knows ways to the service.

use std::{net::SocketAddr, ops::Range};

use weir_lab::demo::outside;

use super::{Live, manifests::NAMESPACE};

/// The service's addresses for the outside.
const VIPS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// Service `edge`, without a selector, forwarded so: for the outside and inside, port 80 over TCP and UDP.
pub fn service(forwarding: &str) -> String {
    let [ipv4, ipv6] = VIPS;
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: edge, namespace: {NAMESPACE}, annotations: {{weir.dev/forwarding: {forwarding}}}}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.96.0.50
  clusterIPs: [10.96.0.50, \"fd00:10:96::50\"]
  ports:
    - {{name: tcp, port: 80, nodePort: 30080, protocol: TCP}}
    - {{name: udp, port: 80, nodePort: 30080, protocol: UDP}}
status: {{loadBalancer: {{ingress: [{{ip: {ipv4}}}, {{ip: \"{ipv6}\"}}]}}}}
"
    )
}

/// Where it answers the outside: over IPv4 and over IPv6.
pub fn frontends() -> [SocketAddr; 2] {
    VIPS.map(|vip| SocketAddr::new(vip.parse().unwrap(), 80))
}

/// A cluster with the edge in this mode, a client outside, and a way from it to the service by each of these nodes.
pub fn start(manifests: &str, mode: &str, edges: Range<usize>) -> Live {
    let live = Live::with_options(manifests, &["--xdp-mode", mode]);
    outside::build().unwrap();
    route(&live, edges);
    live
}

/// Leads the outside to the service by these nodes, and by no others.
pub fn route(live: &Live, edges: Range<usize>) {
    outside::route(&frontends().map(|frontend| frontend.ip()), &live.plan.nodes[edges]).unwrap();
}
