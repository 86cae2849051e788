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
        (false, Err(found)) if found.iter().any(|found| names_field(&found.message)) => Outcome::Passed,
        (false, Err(found)) => {
            Outcome::failed("an error that names a field", "another", &found.render(false))
        }
    };
    Ok(vec![Finding {
        case: name.to_owned(),
        step: String::new(),
        subject: "object.yaml".to_owned(),
        outcome,
    }])
}

/// Whether a message begins with the path of a field.
fn names_field(message: &str) -> bool {
    ["metadata.", "spec.", "status."].iter().any(|path| message.starts_with(path))
}
