//! What was found.

use std::fmt;

use serde::Serialize;

use super::service;

/// What became of one expectation.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The case.
    pub case: String,
    /// The step of it.
    pub step: String,
    /// What was tried: source, destination, port and protocol.
    pub subject: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How an expectation ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Otherwise.
    Failed(Difference),
    /// Otherwise, where upstream leaves it open.
    Grey(Difference),
    /// Not tried.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// What was expected, and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub got: String,
    /// The rule that decided, or whatever else tells why.
    pub because: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The level.
    pub level: &'static str,
    /// Number of expectations that were met.
    pub passed: usize,
    /// Number of those that were not.
    pub failed: usize,
    /// Number of those that were not tried.
    pub skipped: usize,
    /// Number of those that were not met where upstream leaves it open.
    pub grey: usize,
    /// All but those that were met.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// Not as expected.
    pub(super) fn failed(expected: &str, got: &str, because: &str) -> Self {
        let [expected, got, because] = [expected, got, because].map(str::to_owned);
        Self::Failed(Difference { expected, got, because })
    }
}

impl Report {
    pub(super) fn new(level: &'static str) -> Self {
        Self { level, passed: 0, failed: 0, skipped: 0, grey: 0, findings: Vec::new() }
    }

    pub(super) fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            match finding.outcome {
                Outcome::Passed => {
                    self.passed += 1;
                    continue;
                }
                Outcome::Failed(_) => self.failed += 1,
                Outcome::Grey(_) => self.grey += 1,
                Outcome::Skipped { .. } => self.skipped += 1,
            }
            self.findings.push(finding);
        }
    }
}

/// The findings of a service case.
pub(super) fn of_service(case: &str, report: Option<service::Report>) -> Vec<Finding> {
    let finding = |subject: &str, outcome| Finding {
        case: case.to_owned(),
        step: String::new(),
        subject: subject.to_owned(),
        outcome,
    };
    let Some(report) = report else {
        let reason = "services are not tried at this level".to_owned();
        return vec![finding("", Outcome::Skipped { reason })];
    };
    let unknown = report.unknown.iter().map(|field| format!("nothing is done with `{field}`"));
    let failures = report.failures.iter().cloned().chain(unknown);
    let mut findings: Vec<_> = failures
        .map(|failure| finding(&failure, Outcome::failed("as the case says", "not so", "")))
        .collect();
    let passed = report.checks.saturating_sub(report.failures.len());
    findings.extend((0..passed).map(|_| finding("", Outcome::Passed)));
    findings
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, step, subject, outcome } = self;
        let (word, rest) = match outcome {
            Outcome::Passed => ("ok", String::new()),
            Outcome::Failed(difference) => ("FAIL", difference.to_string()),
            Outcome::Grey(difference) => ("grey", difference.to_string()),
            Outcome::Skipped { reason } => ("skip", format!(": {reason}")),
        };
        let step = if step.is_empty() { String::new() } else { format!(" [{step}]") };
        write!(f, "{word} {case}{step} {subject}{rest}")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ": expected {}, got {}", self.expected, self.got)?;
        if self.because.is_empty() { Ok(()) } else { write!(f, "; {}", self.because) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}
