//! The mutation run: faults put into the sources one by one, each of which the project's own tests must notice.
//!
//! The faults stand in `tests/mutants.toml` as text to replace. They are made in a copy of the workspace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    build, machine,
    shell::{self, step},
    toolchain,
};

const LIST: &str = "tests/mutants.toml";
const TABLE: &str = "docs/mutants.md";
/// The head of its columns.
const HEAD: (&str, &str) = ("fault", "caught by");
/// The line below it.
const RULE: (&str, &str) = ("---", "---");
/// A fault may make a test wait for ever.
const PATIENCE: Duration = Duration::from_mins(20);
/// What a copy of the sources does not need.
const LEFT_OUT: [&str; 2] = ["./target", "./.git"];

/// One fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What goes wrong, in a few words.
    fault: String,
    /// The source file.
    file: PathBuf,
    /// Text that stands there exactly once.
    old: String,
    /// What is put in its place.
    new: String,
    /// The module of the packet tests that looks there: it is asked first.
    packets: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// A test: package, target, and the part of its name that those have which are run; empty: all.
type Test<'a> = (&'a str, &'a str, &'a str);
/// Tests that may notice a fault, the quickest first.
const OF_AGENT: &[Test<'_>] = &[
    ("weir-tests", "conformance", ""),
    ("weir-tests", "service_conformance", ""),
    ("weir", "policy", ""),
    ("weir", "manifests", ""),
];
const OF_KERNEL: &[Test<'_>] =
    &[("weir-tests", "fuzz", ""), ("weir-tests", "kernel_conformance", ""), ("weir-tests", "packets", "")];

/// Makes the faults whose text or file contains `only`, one by one; with `quick` only the first test of
/// each suite is asked, and what it does not notice is still to be tried. With `update`, what was found is written
/// down.
pub(crate) fn run(only: Option<&str>, quick: bool, update: bool) -> Result<ExitCode> {
    let mutants = read()?;
    machine::prepare()?;
    let copy = Copy::new()?;
    let is_chosen = |mutant: &&Mutant| {
        only.is_none_or(|only| mutant.fault.contains(only) || mutant.file.to_string_lossy().contains(only))
    };
    let chosen: Vec<_> = mutants.iter().filter(is_chosen).collect();
    step("Building", "the sources without a fault, and testing them");
    let object = copy.kernel_programs()?;
    let sound = copy.root.join("target/sound");
    fs::copy(object, &sound).context("cannot keep the kernel programs")?;
    let most = if quick { 1 } else { usize::MAX };
    let tests: BTreeSet<_> = chosen.iter().flat_map(|mutant| mutant.suite().take(most)).collect();
    if let Some(test) = copy.noticed_by(tests, &sound, &sound)? {
        bail!("`{test}` fails without any fault");
    }
    let mut noticed = noticed_before()?;
    let (mut tried, mut missed) = (0, 0);
    for (number, mutant) in (1..).zip(&chosen) {
        step(
            "Mutating",
            format!("{number} of {}: {}: {}", chosen.len(), mutant.file.display(), mutant.fault),
        );
        let test = copy.with(mutant, |copy| {
            let object = if mutant.is_of_kernel() { copy.kernel_programs()? } else { sound.clone() };
            copy.noticed_by(mutant.suite().take(most), &object, &sound)
        })?;
        match &test {
            Some(test) => println!("caught  {}  ({test})", mutant.fault),
            None if quick => {
                println!("not by the first test  {}", mutant.fault);
                continue;
            }
            None => {
                missed += 1;
                println!("MISSED  {}  ({})", mutant.fault, mutant.file.display());
            }
        }
        tried += 1;
        noticed.insert(mutant.name(), test);
        // Each at once: a run takes long, and may be ended.
        if update {
            fs::write(shell::root().join(TABLE), table(&mutants, &noticed))
                .with_context(|| format!("cannot write {TABLE}"))?;
        }
    }
    println!("{} caught, {missed} missed, {} left", tried - missed, chosen.len() - tried);
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The test that noticed each fault, if one did.
type Noticed = BTreeMap<(PathBuf, String), Option<String>>;

/// What the table says of earlier runs.
fn noticed_before() -> Result<Noticed> {
    let path = shell::root().join(TABLE);
    if !path.exists() {
        return Ok(Noticed::new());
    }
    Ok(noticed_in(&fs::read_to_string(&path).with_context(|| format!("cannot read {TABLE}"))?))
}

fn noticed_in(table: &str) -> Noticed {
    let mut file = PathBuf::new();
    let mut noticed = Noticed::new();
    for line in table.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            file = name.into();
        } else if let Some((fault, test)) = line
            .strip_prefix("| ")
            .and_then(|line| line.strip_suffix(" |")?.split_once(" | "))
            .filter(|row| ![HEAD, RULE].contains(row))
        {
            let test = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
            noticed.insert((file.clone(), fault.to_owned()), test.map(str::to_owned));
        }
    }
    noticed
}

fn read() -> Result<Vec<Mutant>> {
    let path = shell::root().join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {LIST}"))?;
    let list: List = toml::from_str(&text).with_context(|| format!("cannot understand {LIST}"))?;
    Ok(list.mutant)
}

impl Mutant {
    /// Whether the kernel programs are built from its file.
    fn is_of_kernel(&self) -> bool {
        self.file.starts_with("ebpf") || self.file.starts_with("common")
    }

    fn name(&self) -> (PathBuf, String) {
        (self.file.clone(), self.fault.clone())
    }

    fn suite(&self) -> impl Iterator<Item = Test<'_>> {
        let first = self.packets.iter().map(|module| ("weir-tests", "packets", &**module));
        first.chain(if self.is_of_kernel() { OF_KERNEL } else { OF_AGENT }.iter().copied())
    }

    /// The sources with the fault.
    fn applied(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.old).count();
        ensure!(
            found == 1,
            "{}: the text of \"{}\" stands there {found} times",
            self.file.display(),
            self.fault
        );
        ensure!(self.old != self.new, "{}: \"{}\" changes nothing", self.file.display(), self.fault);
        Ok(text.replacen(&self.old, &self.new, 1))
    }
}

/// A copy of the sources with a target directory of its own, kept between runs for what is built there.
struct Copy {
    root: PathBuf,
}

impl Copy {
    fn new() -> Result<Self> {
        let root = build::target_dir().join("mutants");
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        // What an earlier run left of a file that has been moved would be built too.
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name() != "target" {
                let path = entry.path();
                if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        let mut tar = Command::new("tar");
        tar.current_dir(shell::root()).args(["--create", "--file=-"]);
        tar.args(LEFT_OUT.map(|name| format!("--exclude={name}"))).arg(".").stdout(Stdio::piped());
        let mut packing = tar.spawn().context("cannot start tar")?;
        let packed = packing.stdout.take().context("tar has no output")?;
        shell::run(
            Command::new("tar").args(["--extract", "--touch", "--directory"]).arg(&root).stdin(packed),
        )?;
        ensure!(packing.wait()?.success(), "tar could not read the sources");
        Ok(Self { root })
    }

    /// Does something while the fault is in the sources.
    fn with<T>(&self, mutant: &Mutant, act: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let path = self.root.join(&mutant.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, mutant.applied(&text)?)?;
        let result = act(self);
        fs::write(&path, text)?;
        result
    }

    /// Builds the kernel programs as they are now. A fault that does not compile is none.
    fn kernel_programs(&self) -> Result<PathBuf> {
        build::kernel_programs_of(&self.root, &toolchain::find_or_install()?)
    }

    /// The first of the tests that fails with the kernel programs in `object`; each is built when its turn comes.
    fn noticed_by<'t>(
        &self,
        tests: impl IntoIterator<Item = Test<'t>>,
        object: &Path,
        sound: &Path,
    ) -> Result<Option<String>> {
        for (package, target, part) in tests {
            let executable = self.build(package, target, sound)?;
            let mut command = Command::new("timeout");
            command.arg("--kill-after=5").arg(PATIENCE.as_secs().to_string()).arg(&executable);
            command.arg(part);
            command.current_dir(self.root.join(if package == "weir" { "agent" } else { "tests" }));
            command.envs([
                ("RUST_TEST_THREADS", "1"),
                ("RUST_BACKTRACE", "0"),
                ("WEIR_FUZZ_PACKETS", "20000"),
            ]);
            command.env("WEIR_EBPF_OBJECT", object);
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !status.with_context(|| format!("cannot start {}", executable.display()))?.success() {
                return Ok(Some(format!("{package} --test {target} {part}").trim_end().to_owned()));
            }
        }
        Ok(None)
    }

    /// Builds a test, in an agent that carries the programs in `object`.
    fn build(&self, package: &str, target: &str, object: &Path) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--quiet", "--no-run", "--message-format=json", "--package", package]);
        cargo.args(["--test", target]).env("WEIR_EBPF_OBJECT", object).env_remove("CARGO_TARGET_DIR");
        // Nobody debugs these, and most of the time would go into linking.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
        let messages = shell::output(cargo.current_dir(&self.root))?;
        let mut executables = messages.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            // A program may have the name of a test.
            let of = &message["target"];
            let is_it = of["name"] == target && of["kind"][0] == "test";
            Some(PathBuf::from(message["executable"].as_str().filter(|_| is_it)?))
        });
        executables.next_back().with_context(|| format!("{target} was not built"))
    }
}

/// The list for people.
fn table(mutants: &[Mutant], noticed: &Noticed) -> String {
    let tried: Vec<_> = mutants.iter().filter(|mutant| noticed.contains_key(&mutant.name())).collect();
    let files: BTreeSet<&Path> = tried.iter().map(|mutant| mutant.file.as_path()).collect();
    let mut text = format!(
        "# Faults that the tests catch\n\n\
         Written by `cargo xtask mutants --update`, which puts each of the {} faults of `{LIST}` into a copy of the \
         sources, one at a time, builds it, and runs the tests until one fails. {} have been tried.\n\n",
        mutants.len(),
        tried.len(),
    );
    for file in files {
        let _ = writeln!(text, "## {}\n\n| {} | {} |\n| --- | --- |", file.display(), HEAD.0, HEAD.1);
        for mutant in tried.iter().filter(|mutant| mutant.file == file) {
            let test = noticed[&mutant.name()].as_ref();
            let test = test.map_or("**nothing**".to_owned(), |test| format!("`{test}`"));
            let _ = writeln!(text, "| {} | {test} |", mutant.fault);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_made() {
        let mutants = read().unwrap();
        assert!(mutants.len() >= 40, "{} faults", mutants.len());
        for mutant in &mutants {
            let text = fs::read_to_string(shell::root().join(&mutant.file)).unwrap();
            mutant.applied(&text).unwrap();
        }
        let names: BTreeSet<_> = mutants.iter().map(|mutant| (&mutant.file, &mutant.fault)).collect();
        assert_eq!(names.len(), mutants.len(), "two faults of one name");
    }

    #[test]
    fn the_table_has_every_fault_that_was_tried_and_is_read_again() {
        let mutant = |fault: &str| Mutant {
            fault: fault.to_owned(),
            file: "ebpf/src/policy.rs".into(),
            old: "a".to_owned(),
            new: "b".to_owned(),
            packets: None,
        };
        let mutants = [mutant("one"), mutant("other"), mutant("not tried")];
        let tests = [Some("weir-tests --test packets".to_owned()), None];
        let noticed: Noticed = mutants.iter().map(Mutant::name).zip(tests).collect();
        let text = table(&mutants, &noticed);
        assert!(text.contains("| one | `weir-tests --test packets` |\n| other | **nothing** |\n"), "{text}");
        assert_eq!(noticed_in(&text), noticed, "what one run wrote, the next one keeps");
    }
}
