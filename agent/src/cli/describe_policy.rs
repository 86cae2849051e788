//! `weir describe policy`.

use std::fmt::Write as _;

use super::{
    Error, args, client, input,
    output::{Style, count, escape, grouped},
    report,
};
use crate::{
    daemon::policy_report,
    protocol::{NamedPortReport, PeerReport, PolicyReport, PortReport, Request, Response, RuleReport},
};

/// Pods that a line names; of more, it says how many there are.
const NAMED: usize = 10;

/// `weir describe policy`.
pub(super) fn policy(args: &args::DescribePolicy) -> Result<u8, Error> {
    let (reports, answered) = if args.files.is_empty() { ask(args)? } else { (vec![offline(args)?], Ok(())) };
    report::show("PolicyReportList", &reports, args.output, render)?;
    answered.map(|()| 0)
}

/// The reports of the agents that answer, and what the others say instead.
fn ask(args: &args::DescribePolicy) -> Result<(Vec<PolicyReport>, Result<(), Error>), Error> {
    let agents = client::agents(&args.target)?;
    let request = Request::DescribePolicy(args.name.clone());
    let (answers, answered) = client::read_all(&agents, &request, |response| match response {
        Response::Policy(report) => Ok(*report),
        other => Err(Error::unexpected(&other)),
    });
    let reports = report::merge(answers.into_iter().map(|(_, report)| report), without_own, add_own);
    Ok((reports, answered))
}

fn offline(args: &args::DescribePolicy) -> Result<PolicyReport, Error> {
    let (cluster, _) = input::read_offline(&args.files)?;
    policy_report::describe(&cluster, &args.name, &|_| None)
        .ok_or_else(|| Error { status: 1, message: format!("{} is not there", args.name) })
}

fn without_own(report: &PolicyReport) -> PolicyReport {
    let mut plain = report.clone();
    plain.nodes.clear();
    plain.rules.iter_mut().for_each(|rule| rule.counts = None);
    plain
}

fn add_own(into: &mut PolicyReport, from: PolicyReport) {
    into.nodes.extend(from.nodes);
    for (into, from) in into.rules.iter_mut().zip(from.rules) {
        into.counts = match (into.counts, from.counts) {
            (Some(one), Some(other)) => Some(one.plus(other)),
            (one, other) => one.or(other),
        };
    }
}

fn render(report: &PolicyReport, style: Style) -> String {
    let PolicyReport { name, kind, nodes, source, tier, priority, pods, isolates, rules } = report;
    let rank = match (tier, priority) {
        (Some(tier), Some(priority)) => format!(", tier {tier}, priority {priority}"),
        _ => String::new(),
    };
    let mut text = format!("{}\n", style.bold(escape(&format!("{kind} {name}{rank} ({source})"))));
    let _ = writeln!(text, "  selects {}", escape(&pods_text(pods)));
    if !isolates.is_empty() {
        let _ = writeln!(text, "  isolates them for {}", isolates.join(" and "));
    }
    if !nodes.is_empty() {
        let _ = writeln!(text, "  counted on {}", escape(&nodes.join(", ")));
    }
    for rule in rules {
        text.push_str(&rule_text(rule, style));
    }
    text
}

fn rule_text(report: &RuleReport, style: Style) -> String {
    let RuleReport { rule, name, action, source, idle, peers, ports, counts } = report;
    let name = name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    let action = if action == "Deny" { style.red(action) } else { style.green(action) };
    let mut text =
        format!("\n  {}{} ({}): {action}", escape(rule), escape(&name), escape(&source.to_string()));
    if let Some(counts) = counts {
        let (connections, packets) = (grouped(counts.connections), grouped(counts.packets));
        let _ = write!(text, ", {connections} connections, {packets} packets");
    }
    text.push('\n');
    if let Some(why) = idle {
        let _ = writeln!(text, "    has no effect: {}", escape(why));
    }
    // What is said of the isolation is all there is to it.
    let Some((direction, _)) = rule.split_once('[') else { return text };
    let side = if direction == "ingress" { "from" } else { "to" };
    let peers =
        peers.as_ref().map_or(vec!["everyone".to_owned()], |peers| peers.iter().map(peer_text).collect());
    let ports = ports.as_ref().map_or(vec!["every port".to_owned()], |ports| {
        ports.iter().map(|port| format!("port {}", port_text(port))).collect()
    });
    for line in peers.into_iter().map(|peer| format!("{side} {peer}")).chain(ports) {
        let _ = writeln!(text, "    {line}");
    }
    text
}

fn peer_text(PeerReport { peer, source, pods, nodes }: &PeerReport) -> String {
    let nodes = (!nodes.is_empty()).then(|| format!("{}: {}", count(nodes.len(), "node"), listed(nodes)));
    let found: Vec<_> = [pods_text(pods)].into_iter().chain(nodes).collect();
    escape(&format!("{peer} ({source}): {}", found.join("; "))).into_owned()
}

fn port_text(PortReport { port, numbers, .. }: &PortReport) -> String {
    let text = match numbers.as_deref() {
        None => port.clone(),
        Some([]) => format!("{port}: no receiver has a port of this name"),
        Some(numbers) => {
            let number = |found: &NamedPortReport| format!("{} at {}", found.port, listed(&found.pods));
            format!("{port}: {}", numbers.iter().map(number).collect::<Vec<_>>().join("; "))
        }
    };
    escape(&text).into_owned()
}

/// How many pods there are, and which.
fn pods_text(pods: &[String]) -> String {
    match pods.len() {
        0 => "no pod".to_owned(),
        number => format!("{}: {}", count(number, "pod"), listed(pods)),
    }
}

fn listed(names: &[String]) -> String {
    let shown = names.len().min(NAMED);
    let rest = names.len() - shown;
    names[..shown].join(", ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}
