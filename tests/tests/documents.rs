//! What the documents name as the tests of a claim is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of Rust below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() { sources(&path) } else { vec![path] }
    };
    let mut files: Vec<_> = entries.flat_map(below).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files
}

/// Whether a test of this name is in one of the files: `module`, `module::test` or `test`.
fn is_in(files: &[PathBuf], name: &str) -> bool {
    let has = |file: &PathBuf, test: &str| fs::read_to_string(file).unwrap().contains(&format!("fn {test}("));
    let (module, test) = match name.split_once("::") {
        Some((module, test)) => (Some(module), Some(test)),
        // A test's name is a sentence, a module's one word.
        None if name.contains('_') => (None, Some(name)),
        None => (Some(name), None),
    };
    let mut files = files.iter().filter(|file| {
        let is_named = |module: &str| {
            let directory = file.parent().and_then(Path::file_name);
            file.file_stem().is_some_and(|stem| stem == module)
                || directory.is_some_and(|directory| directory == module)
        };
        module.is_none_or(is_named)
    });
    files.any(|file| test.is_none_or(|test| has(file, test)))
}

/// Whether a folder of cases has this name, in which `*` stands for anything.
fn is_case(pattern: &str) -> bool {
    let cases = fs::read_dir(root().join("tests/conformance/service")).unwrap();
    let mut names = cases.map(|case| case.unwrap().file_name().into_string().unwrap());
    match pattern.split_once('*') {
        Some((prefix, suffix)) => names.any(|name| name.starts_with(prefix) && name.ends_with(suffix)),
        None => names.any(|name| name == pattern),
    }
}

/// What the last column of the tables below a `shown by` names: kind and name.
fn shown(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("docs").join(document)).unwrap();
    let mut rows = text.lines().map(|line| line.trim().trim_matches('|'));
    let mut shown = Vec::new();
    while let Some(row) = rows.next() {
        if !row.ends_with(" shown by ") {
            continue;
        }
        for row in rows.by_ref().skip(1).take_while(|row| !row.is_empty()) {
            let mut kind = String::new();
            for (number, text) in row.rsplit('|').next().unwrap().split('`').enumerate() {
                if number % 2 == 1 {
                    shown.push((kind.clone(), text.to_owned()));
                } else if let Some(word) = text.trim_matches([' ', ',', ';']).split(' ').next_back() {
                    kind = if word.is_empty() { kind } else { word.to_owned() };
                }
            }
        }
    }
    shown
}

#[test]
fn every_test_that_a_claim_rests_on_is_there() {
    let below = |directory: &str| sources(&root().join(directory));
    let (packets, live) = (below("tests/tests/packets"), below("tests/tests/live"));
    let (manifests, agent) = (below("agent/tests/manifests"), below("agent/src"));
    let compile = below("agent/src/compile/services");
    for document in ["services.md", "operations.md"] {
        let shown = shown(document);
        let names: BTreeSet<_> = shown.iter().map(|(_, name)| name).collect();
        assert!(names.len() >= 10, "{document} has a table of claims");
        for (kind, name) in &shown {
            let is_there = match kind.as_str() {
                "cases" => is_case(name),
                "packets" => is_in(&packets, name),
                "live" => is_in(&live, name),
                "manifests" => is_in(&manifests, name),
                "compile" => is_in(&compile, name),
                "agent" => is_in(&agent, name),
                other => panic!("{document}: what is {other} `{name}`?"),
            };
            assert!(is_there, "{document}: there is no {kind} `{name}`");
        }
    }
}
