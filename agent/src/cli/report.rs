//! Reports of agents.

use serde::Serialize;

use super::{
    Error,
    args::ReportOutput,
    output::{Style, json, list},
    print,
};

/// Prints what each agent reports.
pub(super) fn show<R: Serialize>(
    kind: &str,
    reports: &[R],
    output: ReportOutput,
    render: impl Fn(&R, Style) -> String,
) -> Result<(), Error> {
    match output {
        ReportOutput::Json => print(&json(&list(kind, reports))),
        ReportOutput::Text => {
            let texts: Vec<_> = reports.iter().map(|report| render(report, Style::stdout())).collect();
            print(&texts.join("\n"))
        }
    }
}

/// Makes one report of those that are the same without what each node has for itself.
pub(super) fn merge<R: PartialEq>(
    reports: impl Iterator<Item = R>,
    without_own: impl Fn(&R) -> R,
    add_own: impl Fn(&mut R, R),
) -> Vec<R> {
    let mut merged: Vec<R> = Vec::new();
    for report in reports {
        match merged.iter_mut().find(|other| without_own(other) == without_own(&report)) {
            Some(other) => add_own(other, report),
            None => merged.push(report),
        }
    }
    merged
}
