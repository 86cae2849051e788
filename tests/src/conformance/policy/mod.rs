//! Policy cases: who reaches whom, step by step.

mod probe;
mod steps;

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::Deserialize;
use weir::{cluster::Cluster, datapath::Backend};

use self::{probe::Probe, steps::Steps};
use super::{Finding, Level, Observation, Outcome, report::Difference};

/// `expect.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    steps: Vec<Step>,
}

/// What is to be seen after a step; the first is `cluster.yaml` alone.
#[derive(Debug, Deserialize)]
struct Step {
    name: String,
    probes: Vec<Probe>,
}

pub(super) fn run(
    name: &str,
    directory: &Path,
    case: Case,
    level: &mut dyn Level,
) -> anyhow::Result<Vec<Finding>> {
    let mut steps = Steps::open(directory)?;
    let mut findings = Vec::new();
    for (number, step) in case.steps.into_iter().enumerate() {
        if number > 0 {
            steps.apply(&step.name)?;
        }
        let cluster = steps.cluster()?;
        level.enforce(&cluster, number == 0)?;
        for probe in step.probes {
            let outcome = run_probe(&probe, &cluster, level).with_context(|| probe.to_string())?;
            let (case, step, subject) = (name.to_owned(), step.name.clone(), probe.to_string());
            findings.push(Finding { case, step, subject, outcome });
        }
    }
    anyhow::ensure!(steps.is_done(), "steps.yaml has more steps than expect.json");
    Ok(findings)
}

fn run_probe(probe: &Probe, cluster: &Cluster, level: &mut dyn Level) -> anyhow::Result<Outcome> {
    let difference = match level.connect(&probe.connection(cluster)?)? {
        Observation::Skipped(reason) => return Ok(Outcome::Skipped { reason }),
        Observation::Direct(open, because) => direct(probe, open, because),
        Observation::Balanced(observed) => {
            let expected = probe.backends(cluster)?;
            balanced(probe, &expected, &observed)
        }
    };
    Ok(match difference {
        None => Outcome::Passed,
        Some(difference) if probe.is_grey() => Outcome::Grey(difference),
        Some(difference) => Outcome::Failed(difference),
    })
}

fn direct(probe: &Probe, open: bool, because: String) -> Option<Difference> {
    let text = |open| if open { "allowed" } else { "denied" };
    let expected = probe.allowed.map_or("one of its backends".to_owned(), |allowed| text(allowed).to_owned());
    (probe.allowed != Some(open)).then(|| Difference { expected, got: text(open).to_owned(), because })
}

/// Compares what each backend says, where the case tells them apart, or else what all of them say.
fn balanced(
    probe: &Probe,
    expected: &BTreeMap<Backend, bool>,
    observed: &BTreeMap<Backend, (bool, String)>,
) -> Option<Difference> {
    let found: BTreeMap<_, _> = observed.iter().map(|(backend, (open, _))| (*backend, *open)).collect();
    let same = if expected.is_empty() {
        found.values().all(|open| probe.allowed == Some(*open))
    } else {
        found == *expected
    };
    let text = |backends: &BTreeMap<Backend, bool>| {
        let texts =
            backends.iter().map(|(backend, open)| format!("{}:{} {open}", backend.address, backend.port));
        texts.collect::<Vec<_>>().join(", ")
    };
    let because = || observed.values().map(|(_, because)| because.clone()).collect::<Vec<_>>().join("; ");
    (!same).then(|| Difference { expected: text(expected), got: text(&found), because: because() })
}
