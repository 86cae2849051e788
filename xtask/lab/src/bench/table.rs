//! What was measured, for the terminal.

use super::{
    figures::{self, Figure},
    report::{Report, Row},
};
use xtask::style::Style;

/// Prints every row.
pub(super) fn print(report: &Report) {
    let style = Style::stdout();
    println!("{}", style.dim(&report.machine.to_string()));
    let mut last = None;
    for row in &report.rows {
        let group = (&row.bench, &row.setting);
        if last != Some(group) {
            let unit = row.ratio.as_ref().map_or_else(String::new, |ratio| format!("× {}", ratio.to));
            println!("\n{}", style.bold(&format!("{}: {}", row.bench, row.setting)));
            println!(
                "{}",
                style.dim(&format!("{:<34} {:>12} {:>24} {:>8}  {unit}", "", "median", "quartiles", ""))
            );
            last = Some(group);
        }
        println!("{}", line(row));
    }
    print_figures(report, style);
}

fn print_figures(report: &Report, style: Style) {
    println!("\n{}", style.bold("figures to reach"));
    for Figure { path, goal, reached } in figures::of(report) {
        let (text, mark) = match reached {
            Some(reached) if reached.is_enough => (reached.text, style.green("reached")),
            Some(reached) => (reached.text, style.red("not reached")),
            None => ("not measured".to_owned(), String::new()),
        };
        println!("{path:<72} {goal:<28} {text:<24} {mark}");
    }
}

/// A number with as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

/// Prints what changed since another run: instruction counts and ratios. Nothing here fails: times of a
/// shared machine do not decide anything.
pub(super) fn print_change(old: &Report, new: &Report) {
    let style = Style::stdout();
    println!("\n{}", style.bold("change of verified and translated instructions"));
    for (name, cost) in &new.programs {
        let change = old.programs.get(name).map_or_else(
            || "new".to_owned(),
            |old| {
                let change = |new: u32, old: u32| i64::from(new) - i64::from(old);
                format!(
                    "{:+} {:+}",
                    change(cost.verified, old.verified),
                    change(cost.translated, old.translated)
                )
            },
        );
        println!("{name:<34} {:>7} {:>7}  {change}", cost.verified, cost.translated);
    }
    println!("\n{}", style.bold("change of ratios"));
    for row in &new.rows {
        let before = old.row(&row.bench, &row.subject, &row.setting).and_then(|row| row.ratio.as_ref());
        if let (Some(ratio), Some(before)) = (&row.ratio, before) {
            let (now, before) = (ratio.spread.median, before.spread.median);
            let percent = (now / before - 1.0) * 100.0;
            println!("{:<34} {:<16} {before:>6.2} → {now:>6.2}  {percent:+.0} %", row.subject, row.setting);
        }
    }
}

fn line(row: &Row) -> String {
    let value = &row.value;
    let quartiles = format!("{} – {}", number(value.lower), number(value.upper));
    let ratio = row.ratio.as_ref().map_or_else(String::new, |ratio| {
        let spread = &ratio.spread;
        format!("{:>8.2}  ({:.2} – {:.2})", spread.median, spread.lower, spread.upper)
    });
    format!("{:<34} {:>8} {:<3} {quartiles:>24} {ratio}", row.subject, number(value.median), row.unit)
}
