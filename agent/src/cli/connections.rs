//! `weir get connections`.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Error,
    args::{self, ListOutput},
    client,
    output::{Table, duration, json, list, yaml},
    print, warn,
};
use crate::protocol::{Connection, ConnectionFilter, Connections, Decider, Party, Request, Response};

/// Connections that are shown unless more are asked for.
const LIMIT: usize = 1000;

/// Connections that one of several agents is asked for: their answer has to fit into a line of the protocol.
const MOST: usize = 65_536;

/// `weir get connections`.
pub(super) fn run(args: &args::Get) -> Result<u8, Error> {
    if args.name.is_some() {
        return Err(Error::usage("connections have no names; choose them by --pod, --service and the like"));
    }
    if args.output == ListOutput::Name {
        return Err(Error::usage("connections have no names; list them with -o table, wide, json or yaml"));
    }
    let agents = client::agents(&args.target)?;
    let wanted = &args.connections;
    let limit = Some(wanted.limit.unwrap_or(LIMIT)).filter(|limit| *limit > 0);
    let filter = ConnectionFilter {
        pod: wanted.pod.clone(),
        service: wanted.service.clone(),
        namespace: args.namespace.clone(),
        protocol: wanted.protocol.clone(),
        state: wanted.in_state,
        address: wanted.address,
        limit,
    };
    let request = Request::Connections(match agents.len() {
        1 => filter.clone(),
        // The rest of what is asked for, only both ends together know.
        _ => ConnectionFilter {
            pod: filter.pod.clone(),
            protocol: filter.protocol.clone(),
            limit: Some(MOST),
            ..ConnectionFilter::default()
        },
    });
    let (answers, answered) = client::read_all(&agents, &request, |response| match response {
        Response::Connections(connections) => Ok(connections),
        other => Err(Error::unexpected(&other)),
    });
    let nodes = answers.len();
    let Connections { items, total } = match answers.len() {
        1 if agents.len() == 1 => answers.into_iter().next().map(|(_, found)| found).unwrap_or_default(),
        _ => merge(answers.into_iter().map(|(_, connections)| connections), &filter),
    };
    match args.output {
        ListOutput::Json => print(&json(&list("ConnectionList", &items)))?,
        ListOutput::Yaml => print(&yaml(&list("ConnectionList", &items)))?,
        _ if items.is_empty() => warn("no connections found"),
        output => print(&table(&items, nodes > 1, output == ListOutput::Wide).to_string())?,
    }
    if total > items.len() {
        warn(&format!("{} of {total} connections are shown; --limit 0 shows all", items.len()));
    }
    answered.map(|()| 0)
}

/// The connections of several nodes that are wanted, each once: what leaves one node for another is in the tables of both, by the
/// same source and server.
fn merge(lists: impl Iterator<Item = Connections>, filter: &ConnectionFilter) -> Connections {
    let mut merged = BTreeMap::new();
    for list in lists {
        for connection in list.items {
            let source = connection.masqueraded.as_ref().unwrap_or(&connection.client);
            let end = |party: &Party| (party.address, party.port);
            let key = (connection.protocol.clone(), end(source), end(&connection.server));
            match merged.entry(key) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(connection)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let other = entry.insert(connection);
                    unite(entry.get_mut(), other);
                }
            }
        }
    }
    let mut items: Vec<_> = merged.into_values().filter(|connection| filter.matches(connection)).collect();
    let total = items.len();
    items.sort_by_key(|connection| (connection.idle, Reverse(connection.expires_in)));
    items.truncate(filter.limit.unwrap_or(usize::MAX));
    Connections { items, total }
}

/// Adds what another node knows of the connection. Where it was translated, that node alone knows the client's side.
fn unite(into: &mut Connection, mut other: Connection) {
    let is_translated = |connection: &Connection| {
        connection.masqueraded.is_some() || connection.frontend != connection.server
    };
    if is_translated(&other) && !is_translated(into) {
        std::mem::swap(into, &mut other);
    }
    into.nodes.extend(other.nodes);
    into.nodes.sort();
    into.idle = into.idle.min(other.idle);
    into.expires_in = into.expires_in.max(other.expires_in);
    into.state = into.state.max(other.state);
    into.judged &= other.judged;
    into.egress = into.egress.take().or(other.egress);
    into.ingress = into.ingress.take().or(other.ingress);
}

fn table(connections: &[Connection], several: bool, wide: bool) -> Table {
    let shown = |headers: &[(&'static str, bool)]| -> Vec<&'static str> {
        headers.iter().filter(|(_, shown)| *shown).map(|(header, _)| *header).collect()
    };
    let mut table = Table::new(shown(&[
        ("NODES", several),
        ("PROTOCOL", true),
        ("CLIENT", true),
        ("FRONTEND", true),
        ("SERVER", true),
        ("STATE", true),
        ("IDLE", true),
        ("EXPIRES", wide),
        ("MASQUERADED", wide),
        ("ADDRESSES", wide),
        ("EGRESS", wide),
        ("INGRESS", wide),
    ]));
    for connection in connections {
        let Connection { client, frontend, server, masqueraded, .. } = connection;
        let through = Some(frontend).filter(|frontend| *frontend != server);
        let text = |party: Option<&Party>| party.map(ToString::to_string).unwrap_or_default();
        let rule = |decider: &Option<Decider>| match decider {
            Some(decider) => decider.text.clone(),
            None if !connection.judged => "judged at the next packet".to_owned(),
            None => String::new(),
        };
        let cells = [
            (connection.nodes.join(","), several),
            (connection.protocol.clone(), true),
            (client.to_string(), true),
            (text(through), true),
            (server.to_string(), true),
            (connection.state.to_string(), true),
            (duration(connection.idle), true),
            (duration(connection.expires_in), wide),
            (text(masqueraded.as_ref()), wide),
            (format!("{} -> {}", client.socket(), server.socket()), wide),
            (rule(&connection.egress), wide),
            (rule(&connection.ingress), wide),
        ];
        table.row(cells.into_iter().filter(|(_, shown)| *shown).map(|(cell, _)| cell));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::Name,
        protocol::{Owner, OwnerKind, State},
    };

    fn party(address: &str, owner: Option<(OwnerKind, &str)>) -> Party {
        let owner = owner.map(|(kind, name)| Owner { kind, name: name.to_owned() });
        Party { address: address.parse().unwrap(), port: 80, owner }
    }

    /// A connection from demo/web on node a through a service to demo/db on node b, as one of the nodes knows it.
    fn seen_by(node: &str) -> Connection {
        let server = party("10.0.1.1", Some((OwnerKind::Pod, "demo/db")));
        let service = party("10.96.0.1", Some((OwnerKind::Service, "demo/sql")));
        let rule =
            |text: &str| Some(Decider { text: text.into(), policies: vec![], rule: None, sources: vec![] });
        let at_client = node == "a";
        Connection {
            nodes: vec![node.into()],
            protocol: "TCP".into(),
            client: party("10.0.0.1", Some((OwnerKind::Pod, "demo/web"))),
            frontend: if at_client { service } else { server.clone() },
            masqueraded: None,
            server,
            state: if at_client { State::Opening } else { State::Established },
            idle: if at_client { 70 } else { 71 },
            expires_in: 60,
            judged: true,
            egress: at_client.then(|| rule("out")).flatten(),
            ingress: (!at_client).then(|| rule("in")).flatten(),
        }
    }

    fn connections(items: Vec<Connection>) -> Connections {
        Connections { total: items.len(), items }
    }

    #[test]
    fn what_two_nodes_know_of_one_connection_is_one_row() {
        // Only the client's node knows that it goes through the service.
        let sql = Name { namespace: "demo".into(), name: "sql".into() };
        let through_sql = ConnectionFilter { service: Some(sql), ..ConnectionFilter::default() };
        for nodes in [["a", "b"], ["b", "a"]] {
            let merged = merge(nodes.map(|node| connections(vec![seen_by(node)])).into_iter(), &through_sql);

            assert_eq!((merged.total, merged.items.len()), (1, 1));
            let text = table(&merged.items, true, true).to_string();
            let row: Vec<_> = text
                .lines()
                .nth(1)
                .unwrap()
                .split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect();
            assert_eq!(
                row,
                [
                    "a,b",
                    "TCP",
                    "demo/web:80",
                    "service demo/sql:80",
                    "demo/db:80",
                    "established",
                    "1m10s",
                    "1m0s",
                    "-",
                    "10.0.0.1:80 -> 10.0.1.1:80",
                    "out",
                    "in"
                ]
            );
        }
    }

    #[test]
    fn the_latest_are_shown_and_all_are_counted() {
        let items: Vec<_> = (0..5)
            .map(|number| {
                let mut one = seen_by("a");
                one.client.port = 100 + number;
                one.idle = 10 - u64::from(number);
                one
            })
            .collect();

        let merged = merge(
            std::iter::once(connections(items)),
            &ConnectionFilter { limit: Some(2), ..ConnectionFilter::default() },
        );

        assert_eq!(merged.total, 5);
        assert_eq!(merged.items.iter().map(|one| one.client.port).collect::<Vec<_>>(), [104, 103]);
    }
}
