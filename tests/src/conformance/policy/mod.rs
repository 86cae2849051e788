//! Policy cases: who reaches whom, step by step.

mod probe;
mod steps;

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::Deserialize;
use weir::{
    cluster::Cluster,
    datapath::{Backend, Connection},
};

use self::{probe::Probe, steps::Steps};
use super::{Change, Finding, Level, Observation, Outcome, report::Difference};

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
    let mut before = Vec::new();
    for (number, step) in case.steps.into_iter().enumerate() {
        if number > 0 {
            steps.apply(&step.name)?;
        }
        let cluster = steps.cluster()?;
        let tried = step.probes.into_iter().map(|probe| {
            let connection = probe.connection(&cluster).with_context(|| probe.to_string())?;
            Ok((probe, connection))
        });
        let tried: Vec<_> = tried.collect::<anyhow::Result<_>>()?;
        let mut find = |probe: &Probe, outcome| {
            let (case, step, subject) = (name.to_owned(), step.name.clone(), probe.to_string());
            findings.push(Finding { case, step, subject, outcome });
        };

        let steady: Vec<_> = tried.iter().filter(|now| is_steady(&before, now)).collect();
        let expected: Vec<_> =
            steady.iter().map(|(probe, connection)| (*connection, probe.allowed == Some(true))).collect();
        let objects = steps.objects();
        let change = Change { objects, cluster: &cluster, first: number == 0, steady: &expected };
        for (flipped, because) in level.enforce(&change)? {
            find(&steady[flipped].0, Outcome::failed("the same all the way", "a flip", &because));
        }

        let connections: Vec<_> = tried.iter().map(|(_, connection)| *connection).collect();
        for ((probe, _), seen) in tried.iter().zip(level.connect_all(&connections)?) {
            find(probe, compare(probe, &cluster, seen)?);
        }
        before = tried;
    }
    anyhow::ensure!(steps.is_done(), "steps.yaml has more steps than expect.json");
    Ok(findings)
}

/// Whether a probe had the same ends, addresses and answer before.
fn is_steady(before: &[(Probe, Connection)], (now, connection): &(Probe, Connection)) -> bool {
    let same = |(probe, earlier): &&(Probe, Connection)| {
        earlier == connection && probe.to_string() == now.to_string()
    };
    let earlier = before.iter().find(same);
    let is_certain = !now.is_grey() && now.allowed.is_some();
    is_certain && earlier.is_some_and(|(probe, _)| !probe.is_grey() && probe.allowed == now.allowed)
}

fn compare(probe: &Probe, cluster: &Cluster, seen: Observation) -> anyhow::Result<Outcome> {
    let difference = match seen {
        Observation::Skipped(reason) => return Ok(Outcome::Skipped { reason }),
        Observation::Direct(open, because) => direct(probe, open, because),
        Observation::Neither(because) => {
            Some(Difference { expected: expected(probe), got: "neither".to_owned(), because })
        }
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
    let got = word(open).to_owned();
    (probe.allowed != Some(open)).then(|| Difference { expected: expected(probe), got, because })
}

fn expected(probe: &Probe) -> String {
    probe.allowed.map_or("one of its backends", word).to_owned()
}

const fn word(open: bool) -> &'static str {
    if open { "allowed" } else { "denied" }
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
