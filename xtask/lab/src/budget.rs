//! The verifier's budgets: how much each kernel program costs to verify, and how long it is.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use aya::{EbpfLoader, programs::Program};
use serde::{Deserialize, Serialize};
use xtask::{build, machine, shell};

/// No program may make the verifier look at more instructions than this. It was 20,000 before fragments waited for
/// their first, which takes 2,100 in each of the four programs at TC.
const LIMIT: u32 = 24_000;
const FILE: &str = "ebpf/budget.toml";

/// What one program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cost {
    /// Instructions that the verifier looked at, along all paths.
    pub(crate) verified: u32,
    /// Instructions of the program, after the verifier's rewriting.
    pub(crate) translated: u32,
}

/// Of each program, by its name.
pub(crate) type Costs = BTreeMap<String, Cost>;

/// Compares the costs with the file, or writes it.
pub(crate) fn run(update: bool) -> Result<ExitCode> {
    machine::prepare()?;
    let costs = measure(&build::object())?;
    let path = shell::root().join(FILE);
    if update {
        fs::write(&path, format(&costs)).with_context(|| format!("cannot write {FILE}"))?;
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let budget: Costs = toml::from_str(&text).with_context(|| format!("cannot understand {FILE}"))?;
    println!("{:<24} {:>9} {:>9} {:>11} {:>9}", "PROGRAM", "VERIFIED", "BUDGET", "TRANSLATED", "BUDGET");
    for (name, cost) in &costs {
        let known = budget
            .get(name)
            .map_or([String::new(), String::new()], |b| [b.verified.to_string(), b.translated.to_string()]);
        println!("{name:<24} {:>9} {:>9} {:>11} {:>9}", cost.verified, known[0], cost.translated, known[1]);
    }
    let complaints = compare(&costs, &budget);
    for complaint in &complaints {
        eprintln!("error: {complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Loads every program of the object as an agent does that has their log off, and asks the kernel.
pub(crate) fn measure(object: &Path) -> Result<Costs> {
    let mut loader = EbpfLoader::new();
    loader.override_global("AYA_LOG_LEVEL", &0_u8, false);
    let mut ebpf = loader.load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
    let mut costs = Costs::new();
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            other => bail!("{name} is a {:?} program, which weir has no use for", other.prog_type()),
        }
        .with_context(|| format!("the kernel refuses {name}"))?;
        let info = program.info()?;
        let verified =
            info.verified_instruction_count().context("this kernel does not count (Linux 5.16 does)")?;
        let translated = info.size_translated().context("this kernel does not tell a program's size")? / 8;
        costs.insert(name.to_owned(), Cost { verified, translated });
    }
    Ok(costs)
}

/// What is wrong with these costs.
fn compare(costs: &Costs, budget: &Costs) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, cost) in costs {
        if cost.verified > LIMIT {
            complaints.push(format!("{name}: {} verified instructions, more than {LIMIT}", cost.verified));
        }
        match budget.get(name) {
            None => complaints.push(format!("{name}: not in {FILE}; run `cargo xtask budget --update`")),
            Some(old) if cost.verified > old.verified || cost.translated > old.translated => {
                complaints.push(format!(
                    "{name}: grew from {}/{} to {}/{} verified/translated instructions; if it must, say why in \
                     the commit that runs `cargo xtask budget --update`",
                    old.verified, old.translated, cost.verified, cost.translated
                ));
            }
            Some(_) => {}
        }
    }
    for name in budget.keys().filter(|name| !costs.contains_key(*name)) {
        complaints.push(format!("{name}: in {FILE}, but no such program; run `cargo xtask budget --update`"));
    }
    complaints
}

fn format(costs: &Costs) -> String {
    let head = "# What each kernel program costs: instructions that the verifier looks at, instructions that it leaves.\n\
                # Written by `cargo xtask budget --update`; CI fails when a program grows past it.\n";
    costs.iter().fold(head.to_owned(), |mut text, (name, cost)| {
        let Cost { verified, translated } = cost;
        let _ = writeln!(text, "{name} = {{ verified = {verified}, translated = {translated} }}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(verified: u32, translated: u32) -> Costs {
        Costs::from([("from_pod".to_owned(), Cost { verified, translated })])
    }

    #[test]
    fn the_file_reads_back_as_it_was_written() {
        let budget: Costs = toml::from_str(&format(&costs(1200, 800))).unwrap();
        assert_eq!(budget, costs(1200, 800));
    }

    #[test]
    fn a_program_within_its_budget_is_fine() {
        assert!(compare(&costs(1200, 800), &costs(1200, 800)).is_empty());
        assert!(compare(&costs(1000, 700), &costs(1200, 800)).is_empty());
    }

    #[test]
    fn a_program_that_grew_in_either_count_is_named() {
        for grown in [costs(1201, 800), costs(1200, 801)] {
            let complaints = compare(&grown, &costs(1200, 800));
            assert_eq!(complaints.len(), 1);
            assert!(complaints[0].starts_with("from_pod: grew from 1200/800"), "{complaints:?}");
        }
    }

    #[test]
    fn no_budget_allows_more_than_the_limit() {
        let costs = costs(LIMIT + 1, 800);
        assert_eq!(compare(&costs, &costs).len(), 1);
    }

    #[test]
    fn programs_and_file_must_name_each_other() {
        assert_eq!(compare(&costs(1, 1), &Costs::new()).len(), 1);
        assert_eq!(compare(&Costs::new(), &costs(1, 1)).len(), 1);
    }
}
