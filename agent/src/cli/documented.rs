//! The documents name the commands, options and fields that there are: no fewer, and no others.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Command, CommandFactory as _};
use serde_json::Value;

use super::args::Cli;
use crate::protocol::{Dropped, Forwarded, MapUsage, Program, Status};

const DOCUMENT: &str = include_str!("../../../docs/cli.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The section on the options that choose an agent, which many commands have.
const AGENTS: &str = "Which agents";

/// The text below each heading of the second level, by the heading; commands without `weir` and backquotes.
fn sections() -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    for section in DOCUMENT.split("\n## ").skip(1) {
        let (heading, text) = section.split_once('\n').unwrap();
        let heading = heading.trim_matches('`');
        sections.insert(heading.strip_prefix("weir ").unwrap_or(heading).to_owned(), text.to_owned());
    }
    sections
}

/// The first words of the table of commands.
fn listed() -> BTreeSet<String> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| [`").or(line.strip_prefix("| `")));
    let names = rows.filter_map(|row| row.split_once('`').map(|(name, _)| name));
    // `completion SHELL` stands there with what it takes.
    names.map(|name| name.trim_end_matches(char::is_uppercase).trim_end().to_owned()).collect()
}

/// Every command that does something, by its name; `lb` alone does nothing.
fn commands() -> BTreeMap<String, Command> {
    fn add(path: &str, command: &Command, into: &mut BTreeMap<String, Command>) {
        let below: Vec<_> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
        if below.is_empty() {
            into.insert(path.to_owned(), command.clone());
        }
        for below in below {
            add(format!("{path} {}", below.get_name()).trim_start(), below, into);
        }
    }
    let mut cli = Cli::command();
    cli.build();
    let mut commands = BTreeMap::new();
    add("", &cli, &mut commands);
    commands
}

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    let automatic = ["help", "version"];
    command
        .get_arguments()
        .filter(move |option| !option.is_positional() && !automatic.contains(&option.get_id().as_str()))
}

/// How an option may be written: `--output` or `-o`.
fn spellings(option: &Arg) -> Vec<String> {
    let long = option.get_long().map(|long| format!("--{long}"));
    long.into_iter().chain(option.get_short().map(|short| format!("-{short}"))).collect()
}

/// Every word that a text has between backquotes, blocks of examples left out: they show other programs too.
fn named(text: &str) -> BTreeSet<&str> {
    let quoted = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    quoted.flat_map(|words| words.split([' ', '\n', ',', '\\', '|'])).collect()
}

#[test]
fn every_command_has_its_row_and_every_option_its_line() {
    let (sections, listed) = (sections(), listed());
    let common = named(&sections[AGENTS]);
    for (name, command) in commands() {
        // A command with one thing to do it to, as `describe service`, goes by its first word too.
        let heading = [name.as_str(), name.split(' ').next().unwrap()];
        assert!(heading.iter().any(|name| listed.contains(*name)), "`weir {name}` is not in the table");
        let section = heading.iter().find_map(|heading| sections.get(*heading));
        let here = section.map(|text| named(text)).unwrap_or_default();
        for option in options(&command) {
            let spellings = spellings(option);
            let is_named = spellings.iter().any(|name| here.contains(&**name) || common.contains(&**name));
            assert!(is_named, "`weir {name}`: {spellings:?} is not in its section");
        }
    }
}

#[test]
fn every_option_that_is_named_exists() {
    let there: BTreeSet<_> = commands().values().flat_map(options).flat_map(spellings).collect();
    for (heading, text) in sections() {
        for name in named(&text).into_iter().filter(|name| name.starts_with("--")) {
            assert!(there.contains(name) || name == "--help", "{heading}: there is no {name}");
        }
    }
}

/// The names of all fields of a value.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            into.extend(map.keys().cloned());
            map.values().for_each(|value| fields(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, into)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_status_is_in_the_table_and_every_field_in_the_table_is_one() {
    let [hook, reason, explanation, map] = [(); 4].map(|()| String::new());
    let status = Status {
        forwarded: vec![Forwarded { hook: hook.clone(), packets: 0, bytes: 0 }],
        drops: vec![Dropped { hook, reason, explanation, packets: 0, bytes: 0 }],
        maps: vec![MapUsage { map, used: 0, capacity: 0 }],
        programs: vec![Program { program: String::new(), interface: String::new(), mode: String::new() }],
        ..Status::default()
    };
    let mut there = BTreeSet::new();
    fields(&serde_json::to_value(status).unwrap(), &mut there);
    let (_, table) = OPERATIONS.split_once("| field of an item | |\n").expect("the table of fields");
    let (table, _) = table.split_once("\n\n").expect("its end");
    assert_eq!(named(table).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), there);
}
