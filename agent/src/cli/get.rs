//! `weir get`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Error,
    args::{self, ListOutput, What},
    client::{self, Agent},
    connections,
    output::{Table, escape, json, yaml},
    print,
};
use crate::protocol::{Column, Kind, Listing, Request, Response, Row};

/// `weir get`.
pub(super) fn run(args: &args::Get) -> Result<u8, Error> {
    let What::Objects(kind) = args.kind else { return connections::run(args) };
    if args.connections != args::ConnectionArgs::default() {
        return Err(Error::usage(
            "--pod, --service, --protocol, --in-state, --address and --limit are for connections",
        ));
    }
    let agents = client::agents(&args.target)?;
    let (listing, answered) = ask(args, &agents, kind);
    let for_people = matches!(args.output, ListOutput::Table | ListOutput::Wide);
    match &args.name {
        Some(name) if listing.rows.is_empty() => {
            return Err(answered
                .err()
                .unwrap_or(Error { status: 1, message: format!("`{name}` is not there") }));
        }
        None if listing.rows.is_empty() && for_people => super::warn("no objects found"),
        _ => render(&listing, args.output)?,
    }
    if kind == Kind::Policies && args.output == ListOutput::Wide {
        let (rules, _) = ask(args, &agents, Kind::Rules);
        if !rules.rows.is_empty() {
            print(&format!("\n{}", table(&rules, true)))?;
        }
    }
    answered.map(|()| 0)
}

/// What those agents say that answer, as one list, and what the others say instead.
fn ask(args: &args::Get, agents: &[Agent], kind: Kind) -> (Listing, Result<(), Error>) {
    let request = Request::Get { kind, name: args.name.clone(), namespace: args.namespace.clone() };
    let (listings, answered) = client::read_all(agents, &request, |response| match response {
        Response::Listing(listing) => Ok(listing),
        other => Err(Error::unexpected(&other)),
    });
    (merge(listings), answered)
}

fn render(listing: &Listing, output: ListOutput) -> Result<(), Error> {
    let text = match output {
        ListOutput::Table => table(listing, false).to_string(),
        ListOutput::Wide => table(listing, true).to_string(),
        ListOutput::Name => listing.rows.iter().map(|row| format!("{}\n", escape(&row.object))).collect(),
        ListOutput::Json => json(&list(listing)),
        ListOutput::Yaml => yaml(&list(listing)),
    };
    print(&text)
}

fn list(listing: &Listing) -> Value {
    // Agents may have one object each in another state; the same object is listed once.
    let mut items: Vec<&Value> = Vec::new();
    for row in &listing.rows {
        // What is only mentioned by others, as a namespace may be, has no manifest.
        if !row.manifest.is_null() && !items.contains(&&row.manifest) {
            items.push(&row.manifest);
        }
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn table(listing: &Listing, wide: bool) -> Table {
    let namespaced = listing.rows.iter().any(|row| row.namespace.is_some());
    let shown: Vec<bool> = listing.columns.iter().map(|column| wide || !column.wide).collect();
    let headers = listing
        .columns
        .iter()
        .zip(&shown)
        .filter(|(_, shown)| **shown)
        .map(|(column, _)| column.header.as_str());
    let mut table = Table::new(namespaced.then_some("NAMESPACE").into_iter().chain(["NAME"]).chain(headers));
    for row in &listing.rows {
        let cells = row.cells.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell.as_str());
        let namespace = namespaced.then(|| row.namespace.as_deref().unwrap_or_default());
        table.row(namespace.into_iter().chain([row.name.as_str()]).chain(cells));
    }
    table
}

/// One list of those of several agents. They see the same cluster: rows that do not contradict each other
/// become one, where an empty cell says nothing. What differs from node to node is told apart by a column.
fn merge(listings: Vec<(String, Listing)>) -> Listing {
    let agents = listings.len();
    let mut columns: Vec<Column> = Vec::new();
    let mut merged = BTreeMap::<(Option<String>, String), Vec<Seen>>::new();
    for (agent, listing) in listings {
        columns = listing.columns;
        for row in listing.rows {
            let same = merged.entry((row.namespace.clone(), row.name.clone())).or_default();
            match same.iter_mut().find(|seen| agree(&columns, &seen.row, &row)) {
                Some(seen) => {
                    seen.agents.push(agent.clone());
                    unite(&columns, &mut seen.row, row);
                }
                None => same.push(Seen { agents: vec![agent.clone()], row }),
            }
        }
    }
    let rows = merged.into_values().flatten();
    if agents < 2 || columns.iter().any(|column| column.header == "NODE") {
        return Listing { columns, rows: rows.map(|seen| seen.row).collect() };
    }
    columns.insert(0, Column { header: "NODE".to_owned(), wide: false, sum: false });
    let rows = rows.map(|Seen { agents: names, mut row }| {
        let everywhere = names.len() == agents;
        row.cells.insert(0, if everywhere { "*".to_owned() } else { names.join(",") });
        row
    });
    Listing { columns, rows: rows.collect() }
}

/// A row, and the agents that list it.
struct Seen {
    agents: Vec<String>,
    row: Row,
}

fn agree(columns: &[Column], a: &Row, b: &Row) -> bool {
    let mut cells = columns.iter().zip(a.cells.iter().zip(&b.cells));
    a.manifest == b.manifest
        && cells.all(|(column, (a, b))| column.sum || a.is_empty() || b.is_empty() || a == b)
}

fn unite(columns: &[Column], into: &mut Row, from: Row) {
    for (column, (cell, other)) in columns.iter().zip(into.cells.iter_mut().zip(from.cells)) {
        if cell.is_empty() {
            *cell = other;
        } else if let (true, Ok(a), Ok(b)) = (column.sum, cell.parse::<u64>(), other.parse::<u64>()) {
            *cell = a.saturating_add(b).to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(headers: &[&str], rows: &[(&str, &[&str])]) -> Listing {
        Listing {
            columns: headers
                .iter()
                .map(|&header| Column { header: header.into(), wide: false, sum: header == "CONNECTIONS" })
                .collect(),
            rows: rows
                .iter()
                .map(|(name, cells)| Row {
                    namespace: Some("demo".into()),
                    name: (*name).into(),
                    object: format!("pod/demo/{name}"),
                    cells: cells.iter().map(|&cell| cell.into()).collect(),
                    manifest: json!({ "name": name }),
                })
                .collect(),
        }
    }

    #[test]
    fn a_pod_that_two_agents_list_is_one_row_with_what_either_knows() {
        let a = listing(&["NODE", "STATE"], &[("db", &["a", "enforced"]), ("web", &["b", ""])]);
        let b = listing(&["NODE", "STATE"], &[("db", &["a", ""]), ("web", &["b", "waiting"])]);

        let merged = merge(vec![("a".into(), a), ("b".into(), b)]);

        assert_eq!(
            table(&merged, false).to_string(),
            "NAMESPACE   NAME   NODE   STATE\ndemo        db     a      enforced\ndemo        web    b      waiting\n"
        );
        assert_eq!(list(&merged)["items"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_differs_between_nodes_is_told_apart() {
        let a = listing(&["BACKENDS"], &[("db", &["3"]), ("local", &["1"])]);
        let b = listing(&["BACKENDS"], &[("db", &["3"]), ("local", &["2"])]);

        let merged = merge(vec![("a".into(), a), ("b".into(), b)]);

        let nodes: Vec<_> = merged.rows.iter().map(|row| (row.name.as_str(), row.cells.join(" "))).collect();
        assert_eq!(nodes, [("db", "* 3".into()), ("local", "a 1".into()), ("local", "b 2".into())]);
    }

    #[test]
    fn what_each_node_counts_for_itself_is_added_up() {
        let a = listing(&["PODS", "CONNECTIONS"], &[("db", &["3", "40"]), ("web", &["1", ""])]);
        let b = listing(&["PODS", "CONNECTIONS"], &[("db", &["3", "2"]), ("web", &["1", "7"])]);

        let merged = merge(vec![("a".into(), a), ("b".into(), b)]);

        let rows: Vec<_> = merged.rows.iter().map(|row| (row.name.as_str(), row.cells.join(" "))).collect();
        assert_eq!(rows, [("db", "* 3 42".into()), ("web", "* 1 7".into())]);
    }
}
