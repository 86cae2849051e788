//! Connections from outside, as text.

use std::{collections::BTreeSet, fmt::Write as _};

use weir::cluster::Forwarding;
use xtask::style::Style;

use super::{
    edge::{Entrance, Visit},
    outside::CLIENT,
    plan::Plan,
};

/// Length of a bar that stands for all connections.
const BAR: usize = 20;

/// Draws a line for each backend, with a bar for each node that takes connections to it.
pub(crate) fn draw(plan: &Plan, entrances: &[Entrance], style: Style) -> String {
    let nodes: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let names = entrances.iter().flat_map(backends).map(|name| name.len() + 2);
    let width = names.chain(entrances.iter().map(|entrance| head(entrance).len())).max().unwrap_or_default();
    let mut text = String::new();
    for entrance in entrances {
        let _ = write!(text, "  {}", style.bold(&format!("{:<width$}", head(entrance))));
        for node in &nodes {
            let _ = write!(text, "  {:<1$}", format!("by {node}"), BAR + 6);
        }
        text += "  it sees\n";
        for backend in backends(entrance) {
            let _ = write!(text, "    {backend:<0$}", width - 2);
            for node in &nodes {
                text += &bar(entrance, node, backend, style);
            }
            let _ = writeln!(text, "  {}", seen(plan, entrance, backend));
        }
        for fault in entrance.faults() {
            let _ = writeln!(text, "    {}", style.alarm(&format!("! {fault}")));
        }
    }
    text
}

fn head(entrance: &Entrance) -> String {
    let forwarding = match entrance.forwarding {
        None => "",
        Some(Forwarding::Snat) => ", snat",
        Some(Forwarding::Dsr) => ", dsr",
    };
    format!("{} {}/{}{forwarding}", entrance.service, entrance.port, entrance.protocol)
}

fn backends(entrance: &Entrance) -> BTreeSet<&str> {
    entrance.doors.iter().flat_map(|door| door.ways.keys()).map(|(_, backend)| backend.as_str()).collect()
}

fn visits<'a>(entrance: &'a Entrance, backend: &'a str) -> impl Iterator<Item = &'a Visit> {
    entrance.doors.iter().flat_map(|door| &door.visits).filter(move |visit| visit.backend == backend)
}

fn bar(entrance: &Entrance, node: &str, backend: &str, style: Style) -> String {
    let count = visits(entrance, backend).filter(|visit| visit.node == node).count();
    let total = entrance.doors.iter().map(|door| door.visits.len() + door.silent).sum::<usize>().max(1);
    let way = (node.to_owned(), backend.to_owned());
    let denied = entrance.doors.iter().filter_map(|door| door.ways.get(&way)).all(|(_, allowed)| !allowed);
    let (bar, paint): (String, fn(Style, &str) -> String) = if denied && count == 0 {
        ("denied by policy".to_owned(), Style::red)
    } else {
        ("#".repeat((count * BAR).div_ceil(total)), Style::green)
    };
    format!("  {count:>3} {}", paint(style, &format!("{bar:<0$}", BAR + 2)))
}

/// Whom a backend sees as its client.
fn seen(plan: &Plan, entrance: &Entrance, backend: &str) -> String {
    let name = |visit: &Visit| {
        let node = plan.nodes.iter().find(|node| node.addresses.contains(&visit.source));
        match node {
            Some(node) => node.name.clone(),
            None if CLIENT.contains(&visit.source) => "the client".to_owned(),
            None => visit.source.to_string(),
        }
    };
    let names: BTreeSet<_> = visits(entrance, backend).map(name).collect();
    if names.is_empty() { "nobody".to_owned() } else { Vec::from_iter(names).join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir::cluster::{Name, Protocol};

    use super::*;
    use crate::demo::{edge::Door, plan};

    const BACKENDS: [&str; 2] = ["test/one", "test/three"];

    /// Connections to a DSR service of which each node took the same ones.
    fn entrance(allowed: bool, visits: &[(&str, &str, &str)]) -> Entrance {
        let ways: BTreeMap<_, _> = ["test-a", "test-b"]
            .into_iter()
            .flat_map(|node| {
                BACKENDS.map(|backend| ((node.to_owned(), backend.to_owned()), (CLIENT[0], allowed)))
            })
            .collect();
        let visits: Vec<_> = visits
            .iter()
            .map(|(node, backend, source)| Visit {
                node: (*node).to_owned(),
                backend: (*backend).to_owned(),
                source: source.parse().unwrap(),
            })
            .collect();
        Entrance {
            service: Name { namespace: "test".into(), name: "web".into() },
            port: 80,
            protocol: Protocol::Tcp,
            forwarding: Some(Forwarding::Dsr),
            doors: vec![Door {
                frontend: "198.51.100.10:80".parse().unwrap(),
                silent: if allowed { 0 } else { 30 },
                ways,
                visits,
                refused: BTreeSet::new(),
            }],
        }
    }

    fn drawn(entrance: Entrance) -> Vec<String> {
        let plan = Plan::new(&plan::tests::sample()).unwrap();
        let text = draw(&plan, &[entrance], Style::plain());
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn who_took_a_connection_who_answered_and_whom_that_saw() {
        let client = "203.0.113.9";
        let visits = [
            ("test-a", "test/one", client),
            ("test-a", "test/three", client),
            ("test-a", "test/three", client),
            ("test-b", "test/one", client),
        ];
        assert_eq!(
            drawn(entrance(true, &visits)),
            [
                "  test/web 80/TCP, dsr  by test-a                   by test-b                   it sees",
                "    test/one              1 #####                     1 #####                   the client",
                "    test/three            2 ##########                0                         the client",
            ]
        );
    }

    #[test]
    fn what_policy_denies_is_seen_by_nobody() {
        let lines = drawn(entrance(false, &[]));
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert_eq!(
            lines[1],
            "    test/one              0 denied by policy          0 denied by policy        nobody"
        );
    }

    #[test]
    fn a_node_or_a_backend_without_connections_and_a_wrong_client_are_faults() {
        let faults = entrance(true, &[("test-a", "test/one", "192.0.2.2")]).faults();
        let to = "from outside to 198.51.100.10:80";
        assert_eq!(
            faults,
            [
                format!("{to}: test-b took no connection"),
                format!("{to}: test/one saw 192.0.2.2 by test-a, not 203.0.113.9"),
                format!("{to}: test/three never answered"),
            ]
        );
    }

    #[test]
    fn an_answer_that_policy_denies_or_from_no_backend_is_a_fault() {
        let client = "203.0.113.9";
        let faults =
            entrance(false, &[("test-a", "test/one", client), ("test-a", "test/two", client)]).faults();
        let to = "from outside to 198.51.100.10:80";
        assert_eq!(
            faults,
            [
                format!("{to}: test/one answered, which policy denies"),
                format!("{to}: test/two answered by test-a, which is no way there"),
            ]
        );
    }
}
