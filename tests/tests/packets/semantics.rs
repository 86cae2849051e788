//! What policies say, where a wrong reading would let somebody in: Attack 31, Attack 32, Attack 34.

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab};

use super::{
    CLIENT, CLUSTER, FAMILIES, Family, OTHER, SERVER, SYN, dropped, handed_over, on_node, through_stack,
};

/// Nodes, pods and services without any policy.
fn without_policies() -> String {
    let is_policy = |document: &&str| !document.contains("kind: NetworkPolicy");
    CLUSTER.split("---\n").filter(is_policy).collect::<Vec<_>>().join("---\n")
}

/// A policy of namespace `t` with this `spec`.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: t}}\n\
         spec: {spec}\n"
    )
}

fn pod(namespace: &str, name: &str, host: u8, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}\n\
         spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}\n\
         status: {{phase: Running, podIPs: [{{ip: 10.244.1.{host}}}, {{ip: \"fd00:10:244:1::{host}\"}}]}}\n"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
}

/// A packet of the pod whose last number is `host`, to the server, must be allowed, or denied.
#[track_caller]
fn check(lab: &Lab, pod: &str, host: u8, allowed: bool) {
    for (family, prefix) in FAMILIES.iter().zip(["10.244.1.", "fd00:10:244:1::"]) {
        let verdict = lab.send(pod, &Ends::new(&format!("{prefix}{host}"), family.server, 80).tcp(SYN));
        if allowed {
            handed_over(verdict, pod);
        } else {
            dropped(verdict, Reason::PolicyDenied, pod);
        }
    }
}

/// Whom an ingress list lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admits {
    Nobody,
    Everybody,
    /// Pods of the policy's own namespace.
    Own,
}

/// Attack 31: what is empty is not what is absent.
#[test]
fn an_empty_field_is_not_an_absent_one() {
    let types = [
        ("", true, false),
        ("policyTypes: [], ", true, false),
        ("policyTypes: [Ingress], ", true, false),
        ("policyTypes: [Egress], ", false, true),
    ];
    let rules = [
        ("", Admits::Nobody),
        ("ingress: [], ", Admits::Nobody),
        ("ingress: [{}], ", Admits::Everybody),
        ("ingress: [{from: []}], ", Admits::Everybody),
        ("ingress: [{from: [], ports: []}], ", Admits::Everybody),
        ("ingress: [{from: [{podSelector: {}}]}], ", Admits::Own),
        (
            "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1, 128.0.0.0/1]}}, \
             {ipBlock: {cidr: \"::/0\", except: [\"::/1\", \"8000::/1\"]}}]}], ",
            Admits::Nobody,
        ),
        ("ingress: [{ports: [{}]}], ", Admits::Everybody),
    ];
    let subjects = ["podSelector: {}", "podSelector: {matchLabels: {app: server}}"];
    on_node(|lab| {
        let mut shapes = 0;
        for (types, isolates_ingress, isolates_egress) in types {
            for (rule, admits) in rules {
                for subject in subjects {
                    let spec = format!("{{{types}{rule}{subject}}}");
                    lab.commit(&(without_policies() + &policy("shape", &spec)));
                    let admits = if isolates_ingress { admits } else { Admits::Everybody };
                    for family in FAMILIES {
                        check_shape(lab, family, admits, isolates_egress, &spec);
                    }
                    shapes += 1;
                }
            }
        }
        assert_eq!(shapes, 64);
    });
}

#[track_caller]
fn check_shape(lab: &Lab, family: Family, admits: Admits, isolates_egress: bool, spec: &str) {
    // Where every pod is selected, the client's egress is isolated too: so it comes from the other node.
    let from_pod = lab.receive(SERVER, &Ends::new(family.remote, family.server, 80).tcp(SYN));
    let from_outside = lab.receive(SERVER, &Ends::new(family.outside, family.server, 80).tcp(SYN));
    let to_outside = lab.send(SERVER, &Ends::new(family.server, family.outside, 80).tcp(SYN));
    let verdicts = [
        (from_pod, admits != Admits::Nobody),
        (from_outside, admits == Admits::Everybody),
        (to_outside, !isolates_egress),
    ];
    for (number, (verdict, allowed)) in verdicts.into_iter().enumerate() {
        let what = format!("{spec}, packet {number}");
        if allowed {
            through_stack(verdict, &what);
        } else {
            dropped(verdict, Reason::PolicyDenied, &what);
        }
    }
}

/// Attack 32: a longer prefix in one policy does not hide what another allows, and blocks hold pods too.
#[test]
fn blocks_of_several_policies_are_a_union_and_hold_pods() {
    let blocks = |v4: &str, v6: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{{ipBlock: {v4}}}, \
             {{ipBlock: {v6}}}]}}]}}"
        )
    };
    let wide = policy(
        "wide",
        &blocks("{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}", "{cidr: \"::/0\", except: [\"fd00::/8\"]}"),
    );
    let narrow = policy("narrow", &blocks("{cidr: 10.9.9.9/32}", "{cidr: \"fd00:9::9/128\"}"));
    let all = policy("all", &blocks("{cidr: 0.0.0.0/0}", "{cidr: \"::/0\"}"));
    let hosts = [["10.9.9.9", "10.9.9.8"], ["fd00:9::9", "fd00:9::8"]];
    on_node(|lab| {
        let receive =
            |lab: &Lab, from: &str, to: &str| lab.receive(SERVER, &Ends::new(from, to, 80).tcp(SYN));

        lab.commit(&(without_policies() + &wide));
        for (family, hosts) in FAMILIES.iter().zip(hosts) {
            through_stack(receive(lab, family.outside, family.server), "outside of the except");
            for host in hosts {
                dropped(receive(lab, host, family.server), Reason::PolicyDenied, host);
            }
        }
        check(lab, CLIENT, 10, false);

        lab.commit(&(without_policies() + &wide + &narrow));
        for (family, [named, beside]) in FAMILIES.iter().zip(hosts) {
            through_stack(receive(lab, family.outside, family.server), "outside of the except");
            through_stack(receive(lab, named, family.server), named);
            dropped(receive(lab, beside, family.server), Reason::PolicyDenied, beside);
        }
        check(lab, CLIENT, 10, false);

        lab.commit(&(without_policies() + &wide + &all));
        check(lab, CLIENT, 10, true);
    });
}

/// Attack 34: labels of pods and of namespaces, and keys and values that look alike, are not mixed up.
#[test]
fn a_pod_cannot_pass_for_another_namespace_or_label() {
    let attackers = [
        ("t/forged", 41, "{kubernetes.io/metadata.name: prod}"),
        ("t/keyless", 42, "{x: y}"),
        ("t/dotted", 43, "{a/b.c: \"1\"}"),
    ];
    let twins = [
        ("prod/real", 51, "{x: y}"),
        ("t/empty", 52, "{note: \"\"}"),
        ("t/slashed", 53, "{a.b/c: \"1\"}"),
        ("t/red", 54, "{team: red}"),
    ];
    let pods = attackers.iter().chain(&twins).map(|(name, host, labels)| {
        let (namespace, name) = name.split_once('/').unwrap();
        pod(namespace, name, *host, labels)
    });
    let namespaces = namespace("t", "{kubernetes.io/metadata.name: t, team: red, app: server}")
        + &namespace("prod", "{kubernetes.io/metadata.name: prod}");
    let pods: String = pods.collect();
    let peers = [
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}}",
        "{podSelector: {matchLabels: {note: \"\"}}}",
        "{podSelector: {matchLabels: {a.b/c: \"1\"}}}",
        "{podSelector: {matchLabels: {team: red}}}",
    ];
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{}]}}]}}",
        peers.join(", ")
    );
    on_node(|lab| {
        lab.commit(&(without_policies() + &namespaces + &pods + &policy("labels", &spec)));
        for (pod, host, _) in attackers {
            check(lab, pod, host, false);
        }
        // Its namespace is red, it is not.
        check(lab, OTHER, 30, false);
        for (pod, host, _) in twins {
            check(lab, pod, host, true);
        }
    });
}
