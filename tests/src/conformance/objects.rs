//! Cases about one object that an API server refuses, or takes though it looks odd.

use std::path::Path;

use serde::Deserialize;
use weir::manifest;

use super::{Finding, Outcome};

/// `expect.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    valid: bool,
    reason: String,
}

pub(super) fn run(name: &str, directory: &Path, case: &Case) -> anyhow::Result<Vec<Finding>> {
    let text = std::fs::read_to_string(directory.join("object.yaml"))?;
    let read = manifest::from_text("object.yaml", &text);
    let outcome = match (case.valid, read) {
        (true, Ok(_)) => Outcome::Passed,
        (true, Err(found)) => Outcome::failed("accepted", "refused", &found.render(false)),
        (false, Ok(_)) => Outcome::failed(&format!("refused: {}", case.reason), "accepted", ""),
        // What is wrong is a value or a field, so the first error must not stand at the object's first line.
        (false, Err(found)) => match found.iter().find(|found| found.source.line > 1) {
            Some(_) => Outcome::Passed,
            None => Outcome::failed("an error at the field", "an error elsewhere", &found.render(false)),
        },
    };
    Ok(vec![Finding {
        case: name.to_owned(),
        step: String::new(),
        subject: "object.yaml".to_owned(),
        outcome,
    }])
}
