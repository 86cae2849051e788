//! Services: described, and what a change would move.

use super::{flows::SERVICE, *};
use crate::{
    cluster::Name,
    protocol::{BackendReport, ServiceReport, Simulation},
};

fn describe(engine: &mut Engine<Fake, Fake>, name: &str) -> Result<ServiceReport, Failure> {
    let name = Name { namespace: "demo".into(), name: name.into() };
    match engine.answer(Request::DescribeService(name)) {
        Response::Service(report) => Ok(*report),
        Response::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn simulate(engine: &mut Engine<Fake, Fake>, text: &str) -> Simulation {
    match engine.answer(Request::Simulate { change: applied(text) }) {
        Response::Simulation(simulation) => simulation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_described_service_tells_shares_and_why_an_endpoint_is_not_used() {
    let host = flows::host();
    let more = "{addresses: [10.0.0.1], nodeName: a, zone: east, conditions: {ready: false}}, {addresses: [10.0.0.2]";
    host.write(&format!("{CLUSTER}---\n{}", SERVICE.replace("{addresses: [10.0.0.2]", more)));
    let mut engine = host.start().unwrap();

    let report = describe(&mut engine, "sql").unwrap();

    assert_eq!(report.frontends, ["10.96.0.1:53/UDP", "10.96.0.1:80/TCP"]);
    assert!(report.source.to_string().ends_with("cluster.yaml:18:1"), "{}", report.source);
    let of = |port: &str| -> Vec<&BackendReport> {
        report.backends.iter().filter(|backend| backend.port == port).collect()
    };
    let [web, db, far] = of("80/TCP")[..] else { panic!("{report:?}") };
    assert_eq!((web.state.as_str(), web.inside.own), ("not ready", 0));
    assert_eq!(web.unused.as_deref(), Some("it is not ready"));
    assert_eq!((web.node.as_deref(), web.zone.as_deref()), (Some("a"), Some("east")));
    assert_eq!((db.backend.to_string(), db.connections), ("demo/db:5432".to_owned(), 1));
    assert_eq!((db.inside.own + far.inside.own, db.inside.all), (251, 251));
    assert_eq!((far.connections, far.unused.as_deref()), (0, None));
    assert_eq!(of("53/UDP")[2].connections, 1);
    assert!(describe(&mut engine, "other").unwrap_err().message.contains("demo/other is not there"));
}

#[test]
fn a_simulated_change_counts_slots_and_live_flows_and_changes_nothing() {
    let host = flows::host();
    let mut engine = host.start().unwrap();
    let commits = host.world().commits;

    let less = simulate(&mut engine, &SERVICE.replace(", {addresses: [10.0.1.9], nodeName: b}", ""));
    let same = simulate(&mut engine, SERVICE);

    let [udp, tcp] = less.rings.as_slice() else { panic!("{less:?}") };
    assert_eq!((udp.port.as_str(), tcp.port.as_str()), ("53/UDP", "80/TCP"));
    assert_eq!((tcp.backends_before, tcp.backends_after), (2, 1));
    assert_eq!((tcp.slots_before, tcp.slots_after), (251, 1));
    assert!((45_000..55_000).contains(&tcp.moved) && tcp.moved_from_staying == 0, "{tcp:?}");
    // UDP leaves the backend that goes; TCP is at the other one.
    assert_eq!((udp.flows, udp.flows_moved, tcp.flows, tcp.flows_moved), (1, 1, 1, 0));
    assert_eq!((less.flows, less.flows_moved, less.flows_cut), (2, 1, 0));
    assert_eq!((same.rings.len(), same.unchanged, same.flows, same.flows_moved), (0, 2, 2, 0));
    assert_eq!(host.world().commits, commits);
}
