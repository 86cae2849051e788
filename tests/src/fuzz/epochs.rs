//! Changes of the cluster in the middle of it all, for flows to be judged again.

/// The cluster that the packets are judged by first.
pub const CLUSTER: &str = include_str!("cluster.yaml");

/// Nobody may go into pod a any more.
const SHUT: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut, namespace: t}
spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress]}
";

/// Pod a may go nowhere but to one port.
const CLOSED: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: t}
spec:
  podSelector: {matchLabels: {app: a}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 8080}]}]
";

/// The cluster and others like it, in the order in which they come into force, again and again.
pub(super) fn clusters() -> Vec<String> {
    let first = || CLUSTER.to_owned();
    let without_policies = || {
        let documents = CLUSTER.split("---\n").filter(|text| !text.contains("kind: NetworkPolicy"));
        documents.collect::<Vec<_>>().join("---\n")
    };
    vec![
        first(),
        first() + SHUT,
        moved(CLUSTER),
        first(),
        draining(CLUSTER) + CLOSED,
        without_policies(),
        moved(&draining(CLUSTER)),
        first().replace("masquerade: true", "masquerade: true\n  resetGoneBackends: false"),
        moved(CLUSTER).replace("masquerade: true", "masquerade: true\n  resetGoneBackends: false"),
    ]
}

/// Pod b is no endpoint of any service; a pod of the other node is in its place.
fn moved(cluster: &str) -> String {
    each_endpoint(cluster, |line| {
        let away =
            line.replace("10.244.1.20", "10.244.2.20").replace("fd00:10:244:1::20", "fd00:10:244:2::20");
        if away == line { away } else { away.replacen("nodeName: n1", "nodeName: n2", 1) }
    })
}

/// The other node's pod serves no more, but is an endpoint still.
fn draining(cluster: &str) -> String {
    const STATE: &str = "nodeName: n2, conditions: {ready: false, serving: false, terminating: true}";
    each_endpoint(cluster, |line| line.replace("nodeName: n2", STATE))
}

fn each_endpoint(cluster: &str, change: impl Fn(&str) -> String) -> String {
    let change = |line: &str| if line.contains("addresses: [") { change(line) } else { line.to_owned() };
    cluster.split_inclusive('\n').map(change).collect()
}
