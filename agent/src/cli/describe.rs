//! `weir describe service`.

use std::fmt::Write as _;

use super::{
    Error, args, client,
    output::{Style, Table, escape},
    report,
};
use crate::protocol::{BackendReport, Request, Response, ServiceReport, Slots};

/// Characters of a full bar.
const BAR: usize = 20;

/// `weir describe service`.
pub(super) fn service(args: &args::DescribeService) -> Result<u8, Error> {
    let agents = client::agents(&args.target)?;
    let request = Request::DescribeService(args.name.clone());
    let (answers, answered) = client::read_all(&agents, &request, |response| match response {
        Response::Service(report) => Ok(*report),
        other => Err(Error::unexpected(&other)),
    });
    let reports = report::merge(answers.into_iter().map(|(_, report)| report), without_own, add_own);
    report::show("ServiceReportList", &reports, args.output, render)?;
    answered.map(|()| 0)
}

fn without_own(report: &ServiceReport) -> ServiceReport {
    let mut plain = report.clone();
    plain.nodes.clear();
    plain.backends.iter_mut().for_each(|backend| backend.connections = 0);
    plain
}

fn add_own(into: &mut ServiceReport, from: ServiceReport) {
    into.nodes.extend(from.nodes);
    for (into, from) in into.backends.iter_mut().zip(from.backends) {
        into.connections += from.connections;
    }
}

fn render(report: &ServiceReport, style: Style) -> String {
    let ServiceReport { name, nodes, kind, source, frontends, settings, backends } = report;
    let title = format!("service {name}, {kind} ({source}), as node {} handles it", nodes.join(", "));
    let mut text = format!("{}\n", style.bold(escape(&title)));
    let _ = writeln!(text, "  answers on: {}", escape(&listed(frontends)));
    for setting in settings {
        let _ = writeln!(text, "  {}: {}", escape(&setting.name), escape(&setting.value));
    }
    if backends.is_empty() {
        text.push_str("  it has no endpoints\n");
        return text;
    }
    let outside = backends.iter().any(|backend| backend.outside != backend.inside);
    let mut headers = vec!["PORT", "BACKEND", "NODE", "ZONE", "STATE", "WEIGHT", "SLOTS"];
    headers.extend(outside.then_some("SLOTS OUTSIDE"));
    headers.extend(["CONNECTIONS", "SHARE", "NOT USED BECAUSE"]);
    let mut table = Table::new(headers);
    for backend in backends {
        let all: usize =
            backends.iter().filter(|other| is_beside(other, backend)).map(|other| other.connections).sum();
        let mut cells = vec![
            backend.port.clone(),
            backend.backend.to_string(),
            backend.node.clone().unwrap_or_default(),
            backend.zone.clone().unwrap_or_default(),
            backend.state.clone(),
            backend.weight.to_string(),
            slots(backend.inside),
        ];
        cells.extend(outside.then(|| slots(backend.outside)));
        cells.extend([
            backend.connections.to_string(),
            bar(backend.connections, all),
            backend.unused.clone().unwrap_or_default(),
        ]);
        table.row(cells);
    }
    let _ = write!(text, "\n{table}");
    text
}

/// Whether two backends share the connections of one port and family.
fn is_beside(one: &BackendReport, other: &BackendReport) -> bool {
    one.port == other.port && one.backend.address.is_ipv4() == other.backend.address.is_ipv4()
}

fn listed(frontends: &[String]) -> String {
    if frontends.is_empty() { "nothing".to_owned() } else { frontends.join(", ") }
}

fn slots(slots: Slots) -> String {
    if slots.own == 0 { String::new() } else { format!("{} of {}", slots.own, slots.all) }
}

/// A share as a bar and in per cent.
fn bar(part: usize, all: usize) -> String {
    if all == 0 {
        return String::new();
    }
    let full = (part * BAR + all / 2) / all;
    let percent = (part * 100 + all / 2) / all;
    format!("{}{} {percent:3} %", "█".repeat(full), "░".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_the_share() {
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(0, 7), "░░░░░░░░░░░░░░░░░░░░   0 %");
        assert_eq!(bar(1, 4), "█████░░░░░░░░░░░░░░░  25 %");
        assert_eq!(bar(7, 7), "████████████████████ 100 %");
    }
}
