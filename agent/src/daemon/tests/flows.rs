//! Live connections: listed, and what a change would do to them.

use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    connections::{Connection, State},
    datapath::Origin,
    protocol::{ConnectionFilter, Connections, Effect},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A service whose backends are the pod `db`, and one of another node.
pub(super) const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: sql, namespace: demo}
spec:
  clusterIP: 10.96.0.1
  ports: [{name: sql, port: 80}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sql, namespace: demo, labels: {kubernetes.io/service-name: sql}}
addressType: IPv4
ports: [{name: sql, port: 5432}, {name: dns, port: 5353, protocol: UDP}]
endpoints: [{addresses: [10.0.0.2], nodeName: a}, {addresses: [10.0.1.9], nodeName: b}]
";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A connection of the pod `web`.
fn from_web(protocol: u8, frontend: &str, server: &str) -> Connection {
    Connection {
        protocol,
        client: at("10.0.0.1:4000"),
        frontend: at(frontend),
        source: at("10.0.0.1:4000"),
        server: at(server),
        origin: Origin::Pod,
        state: State::Established,
        idle: Duration::from_secs(3),
        left: Duration::from_secs(60),
        egress_rule: 0,
        ingress_rule: 0,
        judged: true,
    }
}

/// A host whose pods speak to each other through a service and past it.
pub(super) fn host() -> Host {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{SERVICE}"));
    host.world().connections = vec![
        from_web(TCP, "10.96.0.1:80", "10.0.0.2:5432"),
        from_web(TCP, "10.0.0.2:5432", "10.0.0.2:5432"),
        from_web(UDP, "10.96.0.1:53", "10.0.1.9:5353"),
        from_web(TCP, "192.0.2.77:443", "192.0.2.77:443"),
    ];
    host
}

/// What a change would do, by protocol and frontend.
fn effects(engine: &mut Engine<Fake, Fake>, change: Change) -> Vec<(String, Effect)> {
    let Response::Difference(difference) = engine.answer(Request::Diff { change }) else { panic!() };
    let flow = |flow: crate::protocol::FlowDifference| {
        let connection = flow.connection;
        (format!("{} {}", connection.protocol, connection.frontend), flow.effect)
    };
    difference.flows.into_iter().map(flow).collect()
}

#[test]
fn connections_are_listed_by_names_and_filtered() {
    let host = host();
    let mut engine = host.start().unwrap();
    let mut list = |filter| match engine.answer(Request::Connections(filter)) {
        Response::Connections(connections) => connections,
        other => panic!("{other:?}"),
    };
    let service = Some(crate::cluster::Name { namespace: "demo".into(), name: "sql".into() });

    let Connections { items, total } = list(ConnectionFilter { service, ..ConnectionFilter::default() });
    let limited = list(ConnectionFilter { limit: Some(1), ..ConnectionFilter::default() });

    assert_eq!((total, items.len()), (2, 2));
    let one = &items[0];
    assert_eq!(one.client.to_string(), "demo/web:4000");
    assert_eq!(one.frontend.to_string(), "service demo/sql:80");
    assert_eq!(one.server.to_string(), "demo/db:5432");
    assert_eq!((one.state, one.idle, one.nodes.as_slice()), (State::Established, 3, &["a".to_owned()][..]));
    assert_eq!((limited.items.len(), limited.total), (1, 4));
}

#[test]
fn a_policy_cuts_the_live_connections_that_it_denies_and_only_those() {
    let host = host();
    let mut engine = host.start().unwrap();

    let found = effects(&mut engine, applied(DENY));

    let why = "ingress: isolated by demo/deny (cli.yaml:1:1)".to_owned();
    assert_eq!(
        found,
        [
            ("TCP service demo/sql:80".to_owned(), Effect::Cut(why.clone())),
            ("TCP demo/db:5432".to_owned(), Effect::Cut(why))
        ]
    );
    assert_eq!(effects(&mut engine, applied(ALLOW_WEB)), []);
}

#[test]
fn a_policy_that_goes_opens_what_it_has_denied() {
    let host = host();
    let mut engine = host.start().unwrap();
    engine.apply(DENY).unwrap();
    // The programs keep the entry of what they deny until it is stale.
    for connection in &mut host.world().connections {
        connection.judged = false;
    }

    let change = Change::Delete(vec![key(Kind::NetworkPolicy, "demo", "deny")]);
    let found = effects(&mut engine, change);

    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|(_, effect)| *effect == Effect::Opened), "{found:?}");
}

/// A connection through the service, and why it ends with its backend.
const SQL: &str = "TCP service demo/sql:80";
const GONE: &str = "the backend is no endpoint of the service any more: reset";

#[test]
fn udp_leaves_an_endpoint_that_goes_and_tcp_is_reset() {
    let host = host();
    host.world().connections.push(from_web(TCP, "10.96.0.1:80", "10.0.1.9:5432"));
    let mut engine = host.start().unwrap();

    let one_less = SERVICE.replace(", {addresses: [10.0.1.9], nodeName: b}", "");
    let none = Change::Delete(vec![key(Kind::Service, "demo", "sql")]);

    let found = effects(&mut engine, applied(&one_less));
    let [(flow, Effect::Moved(to)), reset] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((flow.as_str(), to.to_string()), ("UDP service demo/sql:53", "demo/db:5353".to_owned()));
    assert_eq!(*reset, (SQL.to_owned(), Effect::Cut(GONE.into())));
    // Without a range of services, the address is anybody's once the service is gone.
    let found = effects(&mut engine, none);
    let [(_, Effect::Moved(to))] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(to.socket(), at("10.96.0.1:53"));
}

#[test]
fn udp_without_an_endpoint_ends() {
    let host = host();
    let mut engine = host.start().unwrap();

    let found = effects(
        &mut engine,
        applied(&SERVICE.replace(
            "endpoints: [{addresses: [10.0.0.2], nodeName: a}, {addresses: [10.0.1.9], nodeName: b}]",
            "endpoints: []",
        )),
    );

    assert_eq!(
        found,
        [
            (SQL.to_owned(), Effect::Cut(GONE.into())),
            ("UDP service demo/sql:53".to_owned(), Effect::Cut("its service has no backend for it".into()))
        ]
    );
}

#[test]
fn what_a_pod_has_open_ends_with_it() {
    let host = host();
    let mut engine = host.start().unwrap();

    let of = |pod| Change::Delete(vec![key(Kind::Pod, "demo", pod)]);
    let client: Vec<_> = effects(&mut engine, of("web"));
    let server: Vec<_> = effects(&mut engine, of("db"));

    assert_eq!(client.len(), 4, "{client:?}");
    assert_eq!(client[0].1, Effect::Cut("the client's pod is gone".into()));
    assert_eq!(server.len(), 2, "{server:?}");
    assert_eq!(server[0].1, Effect::Cut("the server's pod is gone".into()));
}

#[test]
fn the_rules_of_a_connection_are_named_only_while_their_numbers_hold() {
    let host = host();
    let mut engine = host.start().unwrap();
    engine.apply(ALLOW_WEB).unwrap();
    let rule = *engine.active.as_ref().unwrap().datapath.rules.keys().next().unwrap();
    for (connection, judged) in host.world().connections.iter_mut().zip([true, false]) {
        (connection.ingress_rule, connection.judged) = (rule, judged);
    }

    let found = engine.connections(&ConnectionFilter::default()).unwrap().items;

    let decider = found[0].ingress.as_ref().unwrap();
    assert_eq!(decider.text, "demo/deny ingress[0] (cli.yaml:6:13)");
    assert_eq!(found[1].ingress, None);
}
