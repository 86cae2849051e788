//! `weir lint`.

use std::fmt::Write as _;

use super::{
    Error, args, input,
    output::{Style, count, escape},
    print, warn,
};
use crate::lint::{Finding, lint};

/// `weir lint`.
pub(super) fn run(args: &args::Lint) -> Result<u8, Error> {
    let (cluster, _) = input::read_offline(&args.files)?;
    if cluster.pods.is_empty() {
        warn("no pods are among these manifests: whom selectors and port names stand for is not judged");
    }
    let findings = lint(&cluster);
    print(&text(&findings, Style::stdout()))?;
    Ok(u8::from(!findings.is_empty()))
}

fn text(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for Finding { source, code, message } in findings {
        let place = style.bold(escape(&source.to_string()));
        let _ = writeln!(text, "{place}: [{}] {}: {}", code.name(), escape(message), code.meaning());
    }
    let _ = writeln!(text, "{} found", count(findings.len(), "mistake"));
    text
}
