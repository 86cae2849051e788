//! Services for the outside, as manifests: each of them on a node port, an external address and a load
//! balancer's, in both families.

use super::{CLUSTER, Family, manifests};

/// A service by its number.
#[derive(Clone, Copy)]
pub struct Exposed {
    name: &'static str,
    number: u8,
    /// More of its spec.
    spec: &'static str,
    /// Host parts of its endpoints; from 100 on on the other node.
    endpoints: &'static [u8],
}

/// Cluster, with a local endpoint.
pub const NEAR: Exposed = Exposed { name: "near", number: 1, spec: "", endpoints: &[30] };
/// Cluster, with an endpoint on the other node.
pub const AWAY: Exposed = Exposed { name: "away", number: 2, spec: "", endpoints: &[110] };
/// Local, with an endpoint on each node.
pub const KEPT: Exposed =
    Exposed { name: "kept", number: 3, spec: ", externalTrafficPolicy: Local", endpoints: &[30, 110] };
/// Local, with an endpoint on the other node only.
pub const ELSEWHERE: Exposed =
    Exposed { name: "elsewhere", number: 4, spec: ", externalTrafficPolicy: Local", endpoints: &[110] };
/// Without an endpoint.
pub const EMPTY: Exposed = Exposed { name: "empty", number: 5, spec: "", endpoints: &[] };
/// For some clients only.
pub const RANGED: Exposed = Exposed {
    name: "ranged",
    number: 6,
    spec: ", loadBalancerSourceRanges: [203.0.113.0/24, \"2001:db8::/64\"]",
    endpoints: &[30],
};
/// In front of a pod that only takes what its policy says.
pub const GUARDED: Exposed = Exposed { name: "guarded", number: 7, spec: "", endpoints: &[20] };
/// With the endpoint of [`NEAR`].
pub const TWIN: Exposed = Exposed { name: "twin", number: 8, spec: "", endpoints: &[30] };

const ALL: [Exposed; 8] = [NEAR, AWAY, KEPT, ELSEWHERE, EMPTY, RANGED, GUARDED, TWIN];

/// The service port of HTTP, and where it leads.
pub const HTTP: u16 = 80;
/// Where it leads.
pub const TARGET: u16 = 8080;

impl Exposed {
    /// Its addresses and ports: those outside clients use, and its ClusterIP.
    pub fn doors(self, family: Family) -> [(String, u16); 4] {
        let number = self.number;
        let is_v4 = !family.node.contains(':');
        let of = |v4: String, v6: String| if is_v4 { v4 } else { v6 };
        [
            (family.node.to_owned(), 30000 + u16::from(number)),
            (of(format!("198.51.100.{number}"), format!("2001:db8:1::{number}")), HTTP),
            (of(format!("198.51.100.10{number}"), format!("2001:db8:1::10{number}")), HTTP),
            (of(format!("10.96.1.{number}"), format!("fd00:10:96::10{number}")), HTTP),
        ]
    }

    /// Its node port.
    pub fn node_port(self, family: Family) -> (String, u16) {
        self.doors(family)[0].clone()
    }

    /// Its address of a load balancer.
    pub fn balancer(self, family: Family) -> (String, u16) {
        self.doors(family)[2].clone()
    }

    fn manifest(self) -> String {
        let Self { name, number, spec, .. } = self;
        let service = format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: t}}
spec: {{type: LoadBalancer, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6],
  clusterIP: 10.96.1.{number}, clusterIPs: [10.96.1.{number}, 'fd00:10:96::10{number}'],
  externalIPs: [198.51.100.{number}, '2001:db8:1::{number}'], ports: [
    {{name: http, port: {HTTP}, targetPort: {TARGET}, nodePort: 3000{number}}},
    {{name: dns, port: 53, targetPort: 5353, protocol: UDP, nodePort: 3000{number}}},
    {{name: signal, port: {HTTP}, targetPort: {TARGET}, protocol: SCTP, nodePort: 3000{number}}}]{spec}}}
status: {{loadBalancer: {{ingress: [{{ip: 198.51.100.10{number}}}, {{ip: '2001:db8:1::10{number}'}}]}}}}
"
        );
        let ports = format!(
            "{{name: http, port: {TARGET}, protocol: TCP}}, {{name: dns, port: 5353, protocol: UDP}}, \
             {{name: signal, port: {TARGET}, protocol: SCTP}}"
        );
        let endpoint = |host: &u8| if *host < 100 { (1, *host, "") } else { (2, *host - 100, "") };
        let endpoints: Vec<_> = self.endpoints.iter().map(endpoint).collect();
        service + &manifests::slices(name, &ports, &endpoints)
    }
}

/// The cluster with all of these services.
pub fn cluster() -> String {
    let services: String = ALL.into_iter().map(Exposed::manifest).collect();
    format!("{CLUSTER}{services}")
}
