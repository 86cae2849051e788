//! Services of both families, as manifests.

/// A service at number `number` of the ClusterIPs; more of its spec are these lines.
pub(super) fn service(name: &str, number: u8, spec: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: t}}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.96.0.{number}
  clusterIPs: [10.96.0.{number}, \"fd00:10:96::{number}\"]
{spec}
"
    )
}

/// An endpoint of a service: number of its node, number of its address there, and conditions.
pub(super) type Endpoint<'a> = (u8, u8, &'a str);

/// The endpoints of a service, on these ports.
pub(super) fn slices(service: &str, ports: &str, endpoints: &[Endpoint<'_>]) -> String {
    let slice = |version: u8, block: &str, separator: &str| {
        let endpoint = |(node, host, conditions): &Endpoint<'_>| {
            let address = format!("{block}{node}{separator}{host}");
            format!("{{addresses: [\"{address}\"], nodeName: n{node}, conditions: {{{conditions}}}}}")
        };
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-v{version}, namespace: t, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv{version}
ports: [{ports}]
endpoints: [{}]
",
            endpoints.join(", ")
        )
    };
    slice(4, "10.244.", ".") + &slice(6, "fd00:10:244:", "::")
}
