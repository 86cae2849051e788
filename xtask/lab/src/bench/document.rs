//! The part of `docs/performance.md` that a run writes: its tables, between two marks.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::{
    figures::{self, Figure},
    report::{Report, Row},
    table::number,
};

const BEGIN: &str = "<!-- begin: written by cargo xtask bench --document -->";
const END: &str = "<!-- end -->";

/// Replaces what stands between the marks.
pub(super) fn write(path: &Path, report: &Report) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = replace(&text, &tables(report))
        .with_context(|| format!("{} has no place for the tables", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(text: &str, tables: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{tables}{END}{tail}"))
}

fn tables(report: &Report) -> String {
    let mut text = format!("\n{}.\n\n", report.machine);
    text.push_str("| path | goal | reached | |\n| --- | --- | --- | --- |\n");
    for Figure { path, goal, reached } in figures::of(report) {
        let (reached, mark) = match reached {
            Some(reached) => (reached.text, if reached.is_enough { "✓" } else { "✗" }),
            None => ("not measured".to_owned(), ""),
        };
        let _ = writeln!(text, "| {path} | {goal} | {reached} | {mark} |");
    }
    let mut rows = report.rows.iter().peekable();
    while let Some(first) = rows.next() {
        let is_same = |row: &&Row| (&row.bench, &row.setting) == (&first.bench, &first.setting);
        let unit = first.ratio.as_ref().map_or_else(String::new, |ratio| format!("× {}", ratio.to));
        let _ = writeln!(
            text,
            "\n### {}: {}\n\n| | {} | quartiles | {unit} |\n| --- | ---: | ---: | ---: |",
            first.bench, first.setting, first.unit
        );
        push(&mut text, first);
        while let Some(row) = rows.next_if(is_same) {
            push(&mut text, row);
        }
    }
    text.push('\n');
    text
}

fn push(text: &mut String, row: &Row) {
    let Row { subject, value, ratio, .. } = row;
    let ratio = ratio.as_ref().map_or_else(String::new, |ratio| format!("{:.2}", ratio.spread.median));
    let _ = writeln!(
        text,
        "| {subject} | {} | {} – {} | {ratio} |",
        number(value.median),
        number(value.lower),
        number(value.upper)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let text = format!("# Title\n{BEGIN}\nold\n{END}\nmore\n");
        assert_eq!(replace(&text, "new\n").unwrap(), format!("# Title\n{BEGIN}\nnew\n{END}\nmore\n"));
        assert_eq!(replace("no marks", "new"), None);
    }
}
