//! Single properties of compiled policies, from manifests.

use std::collections::BTreeSet;

use weir::{
    cluster::{Cluster, Objects},
    compile::{CompileError, Numbers, compile},
    datapath::{
        Connection, Datapath, Direction, Judgement, Origin,
        explain::{Cause, Reason, rule_text},
    },
    manifest,
};
use weir_common::policy::{MAX_LINKS, MAX_RULES, Protocol, RULE_NONE, RULE_OWN_NODE, RULE_SELF};

/// Two nodes; pods shop/web and shop/db on n1, ops/monitor on n2.
const PODS: &str = "
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
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.244.1.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.244.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: monitor, namespace: ops, labels: {app: monitor}}
spec: {nodeName: n2, containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.244.2.1}]}
---
";

/// shop/db is open to shop/web at its SQL port, and to everybody in ops at port 9100.
const DB_POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: sql}]
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]
    ports: [{port: 9100}]
---
";

fn cluster(texts: &[&str]) -> Cluster {
    let mut objects = Objects::default();
    objects.insert_all(manifest::from_text("shop.yaml", &texts.concat()).unwrap());
    objects.build().unwrap()
}

fn on_n1(texts: &[&str]) -> Datapath {
    compile(&cluster(texts), "n1", &mut Numbers::default()).unwrap()
}

fn tcp(source: &str, destination: &str, port: u16) -> Connection {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Connection { source, destination, protocol: Protocol::Tcp, port }
}

#[test]
fn pods_without_policies_need_no_identity_and_no_rule_set() {
    let datapath = on_n1(&[PODS]);
    assert!(datapath.identities.is_empty() && datapath.rule_sets.is_empty() && datapath.rules.is_empty());
    assert_eq!(datapath.endpoints.len(), 2);
    assert!(
        datapath.endpoints.values().all(|endpoint| endpoint.ingress.is_none() && endpoint.egress.is_none())
    );
}

#[test]
fn what_only_other_nodes_need_to_know_is_not_compiled() {
    let of_monitor =
        DB_POLICY.replace("app: db", "app: monitor").replace("namespace: shop", "namespace: ops");
    assert!(on_n1(&[PODS, &of_monitor]).identities.is_empty());
}

#[test]
fn pods_that_policies_treat_alike_share_identity_and_rule_set() {
    let twins = "
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web, version: two}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.244.1.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-2, namespace: shop, labels: {app: db, version: two}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.244.1.4}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-3, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5433}]}]}
status: {podIPs: [{ip: 10.244.1.5}]}
---
";
    let datapath = on_n1(&[PODS, twins, DB_POLICY]);
    let identity = |address: &str| datapath.identity(address.parse().unwrap());
    assert_eq!(identity("10.244.1.1"), identity("10.244.1.3"));
    assert_eq!(identity("10.244.1.2"), identity("203.0.113.1"), "no policy distinguishes it");
    let ingress = |address: &str| datapath.endpoints[&address.parse().unwrap()].ingress;
    assert_eq!(ingress("10.244.1.2"), ingress("10.244.1.4"));
    assert_ne!(ingress("10.244.1.2"), ingress("10.244.1.5"), "its port name stands for another number");
}

#[test]
fn a_port_range_costs_two_boundaries_however_wide() {
    let wide = DB_POLICY.replace("{port: 9100}", "{port: 1000, endPort: 60000}");
    let datapath = on_n1(&[PODS, &wide]);
    let tcp = &datapath.rule_sets.values().next().unwrap().ports[Protocol::Tcp as usize];
    let starts: Vec<_> = tcp.keys().copied().collect();
    assert_eq!(starts, [0, 1000, 5432, 5433, 60001]);
}

#[test]
fn own_node_self_and_unselected_pods_need_no_rule() {
    let datapath = on_n1(&[PODS, DB_POLICY]);
    let from_node = datapath.path(Origin::Node, &tcp("192.168.50.11", "10.244.1.2", 1));
    assert_eq!(from_node.ingress.unwrap().rule, RULE_OWN_NODE);
    let to_itself = datapath.path(Origin::Pod, &tcp("10.244.1.2", "10.244.1.2", 1));
    assert_eq!(to_itself.egress.unwrap().rule, RULE_SELF);
    assert_eq!(to_itself.ingress.unwrap().rule, RULE_SELF);
    let unselected = datapath.path(Origin::Pod, &tcp("10.244.1.2", "10.244.1.1", 1));
    assert_eq!(unselected.ingress.unwrap().rule, RULE_NONE);
    let other_node = datapath.path(Origin::Outside, &tcp("192.168.50.12", "10.244.1.2", 1));
    assert!(!other_node.allowed());
}

#[test]
fn a_source_that_cannot_be_where_it_comes_from_is_not_judged() {
    let datapath = on_n1(&[PODS]);
    for (origin, source) in
        [(Origin::Pod, "10.244.2.1"), (Origin::Outside, "10.244.1.1"), (Origin::Outside, "192.168.50.11")]
    {
        let judgement = datapath.judge(origin, &tcp(source, "10.244.1.2", 80));
        assert_eq!(judgement, Judgement::InvalidSource, "{source} from {origin:?}");
    }
}

#[test]
fn an_explanation_names_what_came_near_and_why_not() {
    let cluster = cluster(&[PODS, DB_POLICY]);
    let datapath = compile(&cluster, "n1", &mut Numbers::default()).unwrap();
    let why = |source, port| {
        let end = datapath.explain(Origin::Pod, &tcp(source, "10.244.1.2", port), Direction::Ingress);
        end.unwrap()
    };

    let allowed = why("10.244.1.1", 5432);
    let Cause::Rule(origin) = allowed.cause else { panic!("{allowed:?}") };
    assert_eq!(rule_text(&cluster, origin).unwrap(), "from pods app=web; port sql/TCP");

    let wrong_port = why("10.244.1.1", 80);
    assert!(!wrong_port.decision.allowed);
    assert_eq!(
        wrong_port.others.iter().map(|other| other.reason).collect::<Vec<_>>(),
        [Reason::Port, Reason::PeerAndPort]
    );
    let text = wrong_port.text(&cluster);
    assert!(text.starts_with("ingress shop/db: denied: isolated by shop/db (shop.yaml:"), "{text}");
    assert!(text.contains("shop/db ingress[0] (shop.yaml:"), "{text}");
    assert!(!text.contains("ingress[1]"), "{text}");

    assert_eq!(why("10.244.1.1", 9100).others[1].reason, Reason::Peer);
}

#[test]
fn an_explanation_follows_a_pass_and_stops_at_the_decision() {
    let tiers = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  ingress:
  - {action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}
  - {action: Deny, from: [{namespaces: {}}]}
  - {action: Pass, from: [{namespaces: {}}]}
---
";
    let datapath = on_n1(&[PODS, DB_POLICY, tiers]);
    let reasons = |source, port| {
        let end = datapath.explain(Origin::Outside, &tcp(source, "10.244.1.2", port), Direction::Ingress);
        let end = end.unwrap();
        (end.decision.allowed, end.others.iter().map(|other| other.reason).collect::<Vec<_>>())
    };
    use Reason::{Passed, Peer, PeerAndPort, Unreached};
    // Passed by the first rule to the NetworkPolicy, past the two others.
    assert_eq!(reasons("10.244.1.1", 5432), (true, vec![Passed, Unreached, Unreached, PeerAndPort]));
    // Denied by the second.
    assert_eq!(reasons("10.244.2.1", 9100), (false, vec![Peer, Unreached, PeerAndPort, Unreached]));
}

#[test]
fn more_rules_than_fit_are_refused_with_the_numbers() {
    const LIMIT: usize = (MAX_RULES * MAX_LINKS) as usize;
    let per_policy = LIMIT / 10 + 1;
    let mut policies = String::new();
    for policy in 0..10 {
        policies += &format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: p{policy}, namespace: shop}}\nspec:\n  podSelector: {{}}\n  ingress:\n"
        );
        policies += &"  - {ports: [{port: 80}]}\n".repeat(per_policy);
        policies += "---\n";
    }
    let error = compile(&cluster(&[PODS, &policies]), "n1", &mut Numbers::default()).unwrap_err();
    let CompileError::TooManyRules { rules, limit, .. } = &error else { panic!("{error}") };
    assert_eq!((*rules, *limit), (10 * per_policy + 1, LIMIT));
    let message = error.to_string();
    assert!(
        message.ends_with("policies: shop/p0, shop/p1, shop/p2, shop/p3, shop/p4 and 5 more"),
        "{message}"
    );
}

#[test]
fn more_port_intervals_than_fit_are_refused_with_the_numbers() {
    let mut policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
        metadata: {name: p, namespace: shop}\nspec:\n  podSelector: {}\n  ingress:\n  - ports:\n"
        .to_owned();
    for port in 0..2100 {
        policy += &format!("    - {{port: {}}}\n", 2 * port + 2);
    }
    let error = compile(&cluster(&[PODS, &policy]), "n1", &mut Numbers::default()).unwrap_err();
    let CompileError::TooManyPorts { protocol, intervals, limit, .. } = &error else { panic!("{error}") };
    assert_eq!((*protocol, *intervals, *limit), ("TCP", 4201, 4096));
}

#[test]
fn a_moved_line_changes_no_number() {
    let mut numbers = Numbers::default();
    let before = compile(&cluster(&[PODS, DB_POLICY]), "n1", &mut numbers).unwrap();
    let after = compile(&cluster(&["# a remark\n", PODS, DB_POLICY]), "n1", &mut numbers).unwrap();
    assert_ne!(before.rules, after.rules, "the places have moved");
    assert_eq!(before.rule_sets, after.rule_sets);
    assert_eq!(before.endpoints, after.endpoints);
    assert_eq!(before.rules.keys().collect::<BTreeSet<_>>(), after.rules.keys().collect());
}

#[test]
fn addresses_of_services_are_no_peers_but_those_of_pods_and_nodes_are() {
    let services = "
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {name: cluster}
spec: {serviceCIDRs: [10.96.0.0/16]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.10, externalIPs: [192.168.50.12], ports: [{port: 5432}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 10.96.0.0/24}}, {ipBlock: {cidr: 192.168.50.0/24}}]}]
---
";
    let datapath = on_n1(&[PODS, services]);
    let judge = |to, port| datapath.judge(Origin::Pod, &tcp("10.244.1.1", to, port));
    assert_eq!(judge("10.96.0.10", 5432), Judgement::Rejected, "no endpoint");
    assert_eq!(judge("10.96.0.10", 1), Judgement::Rejected, "no such port");
    assert_eq!(judge("10.96.0.11", 1), Judgement::Dropped, "in a block of the policy and no service");
    let Judgement::Direct(path) = judge("192.168.50.12", 22) else { panic!("a node's address") };
    assert!(path.allowed());
}
