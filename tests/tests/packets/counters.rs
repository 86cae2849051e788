//! What rules count: the connections and packets that they decided.

use weir::datapath::RuleOrigin;
use weir_common::{policy::RuleHits, reason::Reason};
use weir_tests::packets::{Ends, Lab};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, FIN, Family, SERVER, SYN, dropped, handed_over, manifests::service,
    on_node, through_stack,
};

/// How [`counted`] calls it that a pod is isolated and no rule matches.
const ISOLATION: &str = "no rule matches";

/// What the rules of this policy, or isolation, have decided: connections and packets.
fn counted(lab: &Lab, wanted: &str) -> (u64, u64) {
    let is_wanted = |origin: &RuleOrigin| match origin {
        RuleOrigin::Policy { policy, .. } => *policy.name == *wanted,
        RuleOrigin::ClusterPolicy { policy, .. } => policy == wanted,
        RuleOrigin::Isolation { .. } => wanted == ISOLATION,
    };
    let hits = lab.hits().into_iter().filter(|(origin, _)| is_wanted(origin));
    let RuleHits { connections, packets } = hits.fold(RuleHits::default(), |sum, (_, hits)| sum.plus(hits));
    (connections, packets)
}

/// Two families' worth of so many connections and packets of each.
const fn both(connections: u64, packets: u64) -> (u64, u64) {
    (2 * connections, 2 * packets)
}

/// A connection of the client to the server's port 80, and so many more packets in each direction.
fn talk(lab: &Lab, family: Family, more: usize) -> Ends {
    let there = family.to_server(80);
    let back = there.back();
    handed_over(lab.send(CLIENT, &there.tcp(SYN)), "SYN");
    handed_over(lab.send(SERVER, &back.tcp(SYN | ACK)), "SYN+ACK");
    for _ in 0..more {
        handed_over(lab.send(CLIENT, &there.tcp(ACK)), "there");
        handed_over(lab.send(SERVER, &back.tcp(ACK)), "back");
    }
    there
}

#[test]
fn a_rule_counts_a_connection_once_and_every_packet_of_both_directions() {
    on_node(|lab| {
        for family in FAMILIES {
            talk(lab, family, 9);
        }
        assert_eq!(counted(lab, "tcp"), both(1, 20));
        assert_eq!((counted(lab, "datagrams"), counted(lab, ISOLATION)), ((0, 0), (0, 0)));
    });
}

#[test]
fn what_is_denied_counts_at_once_a_tcp_connection_at_its_syns() {
    on_node(|lab| {
        for family in FAMILIES {
            let denied = family.to_server(9999);
            for flags in [SYN, SYN, ACK, FIN | ACK] {
                dropped(lab.send(CLIENT, &denied.tcp(flags)), Reason::PolicyDenied, "TCP");
            }
            for _ in 0..3 {
                dropped(lab.send(CLIENT, &denied.udp(b"q")), Reason::PolicyDenied, "UDP");
            }
            let from_outside = Ends::new(family.outside, family.server, 80).tcp(SYN);
            dropped(lab.receive(SERVER, &from_outside), Reason::PolicyDenied, "from outside");
            talk(lab, family, 0);
        }
        assert_eq!(counted(lab, ISOLATION), both(2 + 3 + 1, 4 + 3 + 1));
        assert_eq!(counted(lab, "tcp"), both(1, 2));
    });
}

#[test]
fn the_rules_of_both_ends_count() {
    let egress = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: t}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {}}]}]
";
    on_node(|lab| {
        lab.commit(&format!("{CLUSTER}{egress}"));
        for family in FAMILIES {
            talk(lab, family, 4);
            // Let out by the one, and not in by the other.
            dropped(lab.send(CLIENT, &family.to_server(9999).tcp(SYN)), Reason::PolicyDenied, "9999");
            // A pod that nobody protects, on another node.
            through_stack(lab.send(CLIENT, &Ends::new(family.client, family.remote, 1).tcp(SYN)), "remote");
        }
        assert_eq!(counted(lab, "out"), both(3, 12));
        assert_eq!(counted(lab, "tcp"), both(1, 10));
    });
}

#[test]
fn a_change_that_leaves_a_rule_leaves_its_counts_and_counts_no_connection_twice() {
    on_node(|lab| {
        let open = FAMILIES.map(|family| talk(lab, family, 4));
        // The rule moves in its file, and live flows are decided again: they are after every change.
        let more = service("more", 77, "  ports: [{port: 80}]");
        lab.commit(&format!("# A line.\n{CLUSTER}{more}"));
        for there in open {
            handed_over(lab.send(SERVER, &there.back().tcp(ACK)), "back first");
            handed_over(lab.send(CLIENT, &there.tcp(ACK)), "there");
        }
        assert_eq!(counted(lab, "tcp"), both(1, 12));
    });
}

#[test]
fn a_live_connection_counts_for_the_rule_that_takes_it_over_and_not_for_one_that_cuts_it() {
    let admin = |action: &str| {
        format!(
            "{CLUSTER}---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: admin}}
spec:
  tier: Admin
  priority: 1
  subject: {{namespaces: {{}}}}
  ingress: [{{name: all, action: {action}, from: [{{namespaces: {{}}}}]}}]
"
        )
    };
    on_node(|lab| {
        let open = FAMILIES.map(|family| talk(lab, family, 0));
        lab.commit(&admin("Accept"));
        let packets = |lab: &Lab, verdict: fn(&Lab, &[u8])| {
            for there in &open {
                (0..5).for_each(|_| verdict(lab, &there.tcp(ACK)));
            }
        };
        packets(lab, |lab, frame| _ = handed_over(lab.send(CLIENT, frame), "taken over"));
        assert_eq!(counted(lab, "admin"), both(1, 5));
        assert_eq!(counted(lab, "tcp"), both(1, 2));
        lab.commit(CLUSTER);
        lab.commit(&admin("Deny"));
        packets(lab, |lab, frame| dropped(lab.send(CLIENT, frame), Reason::PolicyDeny, "cut"));
        assert_eq!(counted(lab, "admin"), both(0, 5), "counters of a rule that was away start anew");
        for family in FAMILIES {
            let unprotected = Ends::new(family.client, family.remote, 80);
            through_stack(lab.send(CLIENT, &unprotected.tcp(SYN)), "the twin");
            dropped(lab.send(CLIENT, &family.to_server(80).tcp(SYN)), Reason::PolicyDeny, "a new one");
        }
        assert_eq!(counted(lab, "admin"), both(1, 6));
    });
}
