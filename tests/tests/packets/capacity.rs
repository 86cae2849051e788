//! More than fits: Attack 33. It is refused whole and says how much it was, and what was in force stays.

use weir_common::reason::Reason;
use weir_tests::packets::Lab;

use super::{CLIENT, CLUSTER, FAMILIES, SYN, dropped, handed_over, on_node};

/// Intervals that the ports of one rule set are cut into.
const MOST_INTERVALS: usize = 4096;
/// Rules of one pod in one direction.
const MOST_RULES: usize = 65_536;

/// A policy that lets the client into the server by each of `rules`.
fn policy(rules: impl Iterator<Item = String>) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: many, namespace: t}}\n\
         spec: {{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{}]}}\n",
        rules.collect::<Vec<_>>().join(", ")
    )
}

/// A rule with so many ports, none beside another.
fn ports(count: usize) -> String {
    let ports: Vec<_> = (0..count).map(|number| format!("{{port: {}}}", 9001 + 2 * number)).collect();
    policy([format!("{{from: [{{podSelector: {{}}}}], ports: [{}]}}", ports.join(", "))].into_iter())
}

/// So many rules, each for a block and a port of its own.
fn rules(count: usize) -> String {
    policy((0..count).map(|number| {
        let (high, low) = (number / 250, number % 250);
        format!(
            "{{from: [{{ipBlock: {{cidr: 198.{}.{}.{low}/32}}}}, {{podSelector: {{}}}}], \
             ports: [{{port: {}}}]}}",
            18 + high / 250,
            high % 250,
            9001 + number % 1000
        )
    }))
}

/// What `CLUSTER` says, and no more.
#[track_caller]
fn check_unchanged(lab: &Lab) {
    for family in FAMILIES {
        handed_over(lab.send(CLIENT, &family.to_server(80).tcp(SYN)), "as before");
        dropped(lab.send(CLIENT, &family.to_server(9001).tcp(SYN)), Reason::PolicyDenied, "not in force");
    }
}

/// Commits more than fits, and then as much as does, whose last rule is for `port`.
#[track_caller]
fn check(too_many: &str, (limit, what): (usize, &str), fitting: &str, port: u16) {
    on_node(|lab| {
        let refused = lab.try_commit(&(CLUSTER.to_owned() + too_many)).expect_err("it does not fit");
        let message = refused.to_string();
        assert!(
            message.contains(what) && message.contains(&limit.to_string()) && message.contains("t/many"),
            "{message}"
        );
        check_unchanged(lab);

        lab.commit(&(CLUSTER.to_owned() + fitting));
        for family in FAMILIES {
            handed_over(lab.send(CLIENT, &family.to_server(port).tcp(SYN)), "the last rule");
            let beside = family.to_server(port + 1);
            dropped(lab.send(CLIENT, &beside.tcp(SYN)), Reason::PolicyDenied, "beside the last rule");
        }
    });
}

#[test]
fn more_port_intervals_than_fit_are_refused_and_what_was_in_force_stays() {
    let fitting = MOST_INTERVALS / 2 - 20;
    check(
        &ports(MOST_INTERVALS),
        (MOST_INTERVALS, "intervals"),
        &ports(fitting),
        9001 + 2 * (fitting as u16 - 1),
    );
}

#[test]
fn more_rules_than_fit_are_refused_and_what_was_in_force_stays() {
    check(&rules(MOST_RULES + 1), (MOST_RULES, "rules"), &rules(1000), 9001 + 999);
}
