//! More rules for a pod than one rule set holds.

use std::fmt::Write as _;

use weir::datapath::{Connection, Direction, Origin, RuleOrigin};
use weir_common::{
    policy::{MAX_RULES, Protocol},
    reason::Reason,
};

use super::{CLIENT, SYN, V4, dropped, handed_over};
use weir_tests::packets::{Lab, in_lab};

/// A node with a client and a server, whose ingress is for the caller to say.
const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.50.11}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: t, labels: {app: client}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.244.1.10, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: t, labels: {app: server}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.244.1.20, phase: Running}
---
";

/// Rules of three rule sets, the last of which is not full.
const RULES: u32 = 2 * MAX_RULES + 100;

/// Those that are asked: the first and the last of each rule set, and others beside them.
const ASKED: [u32; 8] =
    [0, 1, MAX_RULES - 2, MAX_RULES - 1, MAX_RULES, 2 * MAX_RULES - 1, 2 * MAX_RULES, RULES - 1];

/// The port that a rule allows: one of its own where it is asked.
fn port_of(rule: u32) -> u16 {
    ASKED.iter().position(|asked| *asked == rule).map_or(9999, |position| 1000 + position as u16)
}

fn send(lab: &Lab, port: u16) -> Result<weir_tests::packets::Passed, Reason> {
    lab.send(CLIENT, &V4.to_server(port).tcp(SYN))
}

/// The number of the rule that a datapath in user space names.
fn explained(lab: &Lab, port: u16) -> Option<usize> {
    let (source, destination) = (V4.client.parse().unwrap(), V4.server.parse().unwrap());
    let connection = Connection { source, destination, protocol: Protocol::Tcp, port };
    let explanation = lab.datapath().explain(Origin::Pod, &connection, Direction::Ingress).unwrap();
    match lab.datapath().rules.get(&explanation.decision.rule)? {
        RuleOrigin::Policy { index, .. } => Some(*index),
        _ => None,
    }
}

#[test]
fn the_first_and_the_last_rule_of_each_rule_set_decide() {
    let mut policy = String::from(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: many, namespace: t}\n\
         spec:\n  podSelector: {matchLabels: {app: server}}\n  ingress:\n",
    );
    for rule in 0..RULES {
        let _ = writeln!(
            policy,
            "  - {{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}], ports: [{{port: {}}}]}}",
            port_of(rule)
        );
    }
    in_lab("n1", &format!("{NODE}{policy}"), |lab| {
        let mut expected = Vec::new();
        for rule in ASKED {
            handed_over(send(lab, port_of(rule)), &format!("rule {rule}"));
            assert_eq!(explained(lab, port_of(rule)), Some(rule as usize));
            expected.push(rule as usize);
        }
        dropped(send(lab, 9998), Reason::PolicyDenied, "no rule");
        assert_eq!(explained(lab, 9998), None);

        let decided = lab.hits().into_iter().filter_map(|(origin, hits)| match origin {
            RuleOrigin::Policy { index, .. } => Some((index, hits.connections)),
            _ => None,
        });
        let mut decided: Vec<_> = decided.collect();
        decided.sort_unstable();
        assert_eq!(decided, expected.into_iter().map(|rule| (rule, 1)).collect::<Vec<_>>());
    });
}

#[test]
fn a_pass_rule_leads_into_a_later_rule_set_and_past_what_stands_between() {
    // The first rule passes port 80 on; thousands behind it deny it, and so would fall before its policy.
    let mut policies = String::from(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: t}\n\
         spec:\n  podSelector: {matchLabels: {app: server}}\n  ingress: [{ports: [{port: 80}, {port: 81}]}]\n---\n",
    );
    let subject = "subject: {namespaces: {}}";
    let from = "from: [{namespaces: {}}]";
    for number in 0..200 {
        let _ = writeln!(
            policies,
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
             metadata: {{name: p{number}}}\nspec:\n  tier: Admin\n  priority: {number}\n  {subject}\n  ingress:"
        );
        for rule in 0..25 {
            let (action, port) =
                if (number, rule) == (0, 0) { ("Pass", 80) } else { ("Deny", 80 + rule % 2) };
            let _ = writeln!(
                policies,
                "  - {{action: {action}, {from}, protocols: [{{tcp: {{destinationPort: {{number: {port}}}}}}}]}}"
            );
        }
        policies += "---\n";
    }
    in_lab("n1", &format!("{NODE}{policies}"), |lab| {
        handed_over(send(lab, 80), "passed on to the policy");
        assert_eq!(explained(lab, 80), Some(0));
        dropped(send(lab, 81), Reason::PolicyDeny, "denied before it");
    });
}
