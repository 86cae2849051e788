//! `weir check`.

use std::fmt::Write as _;

use super::{
    Error,
    args::{self, CheckOutput},
    input,
    output::{Style, escape},
    print,
};
use crate::check::{self, Checked};

/// `weir check`.
pub(super) fn run(args: &args::Check) -> Result<u8, Error> {
    let (cluster, checks) = input::read_offline(&args.files)?;
    if checks.is_empty() {
        return Err(Error::input(
            "no PolicyCheck is among these manifests, so that nothing would be checked; see `weir check --help`",
        ));
    }
    let checked = check::run(&cluster, &checks).map_err(|error| Error::input(error.to_string()))?;
    let failed = checked.iter().filter(|checked| checked.failure.is_some()).count();
    print(&match args.output {
        CheckOutput::Text => text(&checked, failed, Style::stdout()),
        CheckOutput::Junit => junit(&checked, failed),
    })?;
    Ok(u8::from(failed > 0))
}

fn text(checked: &[Checked<'_>], failed: usize, style: Style) -> String {
    let mut text = String::new();
    for one in checked {
        if let Some(line) = failure(one) {
            let place = escape(&one.expectation.source.to_string()).into_owned();
            let _ = writeln!(text, "{}: {} {}", style.bold(place), style.red("failed:"), escape(&line));
        }
    }
    let _ = writeln!(text, "{} passed, {failed} failed", checked.len() - failed);
    text
}

/// The format that CI systems read: a suite per document, a case per expectation.
fn junit(checked: &[Checked<'_>], failed: usize) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites tests=\"{}\" failures=\"{failed}\">", checked.len());
    for suite in checked.chunk_by(|one, next| one.check.source == next.check.source) {
        let failures = suite.iter().filter(|one| one.failure.is_some()).count();
        let check = suite[0].check;
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" file=\"{}\" tests=\"{}\" failures=\"{failures}\">",
            attribute(&check.name),
            attribute(&check.source.file),
            suite.len()
        );
        for one in suite {
            let source = &one.expectation.source;
            let word = if one.expectation.allowed { "allowed" } else { "denied" };
            let _ = write!(
                xml,
                "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
                attribute(&check.name),
                attribute(&format!("{} {word}", one.expectation)),
                attribute(&source.file),
                source.line
            );
            match failure(one) {
                None => xml.push_str("/>\n"),
                Some(line) => {
                    let message = attribute(&format!("{source}: {line}"));
                    let _ = writeln!(xml, ">\n      <failure message=\"{message}\"/>\n    </testcase>");
                }
            }
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn failure(checked: &Checked<'_>) -> Option<String> {
    let word = |allowed| if allowed { "allowed" } else { "denied" };
    let outcome = checked.failure.as_ref()?;
    let (expected, got) = (word(checked.expectation.allowed), word(outcome.allowed));
    Some(format!("{}: expected {expected}, got {got}: {}", checked.expectation, outcome.why))
}

/// Text for an XML attribute. XML has no way to write most control characters: they are escaped as on a terminal.
fn attribute(text: &str) -> String {
    let text = escape(text).replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
