//! What is said of changes that are refused.

use crate::manifest::Diagnostics;

/// What is said of manifests that are refused.
pub fn refusal(found: &Diagnostics, revision: u64) -> String {
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let mut tally = count(found.errors(), "error");
    if found.warnings() > 0 {
        tally = format!("{tally}, {}", count(found.warnings(), "warning"));
    }
    format!("{}{tally}; nothing was applied ({})", found.render(false), stays(revision))
}

/// What is in force after all.
pub(super) fn stays(revision: u64) -> String {
    match revision {
        0 => "no revision is active".to_owned(),
        revision => format!("revision {revision} stays active"),
    }
}
