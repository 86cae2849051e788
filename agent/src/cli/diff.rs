//! `weir diff`.

use std::collections::BTreeSet;

use similar::{ChangeTag, TextDiff};

use super::{
    Error, args, client, input,
    output::{Style, Table, escape, escape_lines},
    print, warn,
};
use crate::protocol::{
    Change, Difference, FlowDifference, ObjectDifference, Request, Response, VerdictDifference,
};

/// Live connections that are shown.
const MOST_FLOWS: usize = 200;

/// `weir diff`.
pub(super) fn run(args: &args::Diff) -> Result<u8, Error> {
    let documents = input::read_for(&args.target, &args.files.files)?;
    let agents = client::agents(&args.target)?;
    let texts = documents.objects.iter().map(|object| object.text().clone()).collect();
    let request = Request::Diff { change: Change::Apply(texts) };
    let mut differences = Vec::new();
    for agent in &agents {
        match agent.ask(&request)? {
            Response::Difference(difference) => differences.push(difference),
            other => return Err(Error::unexpected(&other)),
        }
    }
    let text = render(&merge(differences), Style::stdout());
    print(&text)?;
    Ok(u8::from(!text.is_empty()))
}

/// Agents see the same cluster; what several say is said once.
fn merge(differences: Vec<Difference>) -> Difference {
    let mut merged = Difference::default();
    let mut notes = BTreeSet::new();
    for difference in differences {
        notes.extend(difference.note);
        for object in difference.objects {
            if !merged.objects.contains(&object) {
                merged.objects.push(object);
            }
        }
        for flow in difference.flows {
            // Both ends of a connection may be asked.
            if !merged.flows.iter().any(|other| is_same(other, &flow)) {
                merged.flows.push(flow);
            }
        }
        for verdict in difference.verdicts {
            if !merged.verdicts.contains(&verdict) {
                merged.verdicts.push(verdict);
            }
        }
    }
    notes.iter().for_each(|note| warn(note));
    merged
}

fn is_same(one: &FlowDifference, other: &FlowDifference) -> bool {
    let key = |flow: &FlowDifference| {
        let connection = &flow.connection;
        (connection.protocol.clone(), connection.client.socket(), connection.server.socket())
    };
    key(one) == key(other) && one.effect == other.effect
}

fn render(difference: &Difference, style: Style) -> String {
    let mut text: String = difference.objects.iter().map(|object| render_object(object, style)).collect();
    if !difference.verdicts.is_empty() {
        text.push_str(&render_verdicts(&difference.verdicts));
    }
    if !difference.flows.is_empty() {
        text.push_str(&render_flows(&difference.flows));
    }
    text
}

fn render_object(object: &ObjectDifference, style: Style) -> String {
    let name = escape(&object.object);
    let side = |text: &str, label: &str| {
        if text.is_empty() { "/dev/null".to_owned() } else { format!("{name} ({label})") }
    };
    let mut text = style.bold(format!(
        "--- {}\n+++ {}\n",
        side(&object.before, "in force"),
        side(&object.after, "after")
    ));
    let diff = TextDiff::from_lines(&object.before, &object.after);
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        text.push_str(&format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let line = format!("{}{}", change.tag(), escape_lines(change.value()).trim_end_matches('\n'));
            let line = match change.tag() {
                ChangeTag::Delete => style.red(line),
                ChangeTag::Insert => style.green(line),
                ChangeTag::Equal => line,
            };
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

fn render_verdicts(verdicts: &[VerdictDifference]) -> String {
    let word = |allowed| if allowed { "allowed" } else { "denied" };
    let mut table = Table::new(["SOURCE", "DESTINATION", "PORT", "BEFORE", "AFTER"]);
    for verdict in verdicts {
        table.row([
            &verdict.source,
            &verdict.destination,
            &verdict.port,
            word(verdict.before),
            word(verdict.after),
        ]);
    }
    table.to_string()
}

/// The live connections that would not go on, and how.
fn render_flows(flows: &[FlowDifference]) -> String {
    let mut table = Table::new(["LIVE CONNECTION", "SERVER", "PROTOCOL", "EFFECT"]);
    for FlowDifference { connection, effect } in flows.iter().take(MOST_FLOWS) {
        let (client, server) = (connection.client.to_string(), connection.server.to_string());
        table.row([&client, &server, &connection.protocol, &effect.to_string()]);
    }
    let mut text = table.to_string();
    if flows.len() > MOST_FLOWS {
        text.push_str(&format!("and {} more live connections\n", flows.len() - MOST_FLOWS));
    }
    text
}
