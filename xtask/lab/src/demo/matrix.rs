//! The connectivity matrix, as text.

use std::{collections::BTreeMap, fmt::Write as _};

use xtask::style::Style;

use super::{plan::Plan, probe::Observation, worker::Outcome};

/// Who reaches whom, over all ports and families of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Allowed,
    Denied,
    Partial,
    Mismatch,
}

impl Cell {
    fn of(observations: &[&Observation]) -> Self {
        if observations.iter().any(|seen| seen.is_mismatch()) {
            return Self::Mismatch;
        }
        match observations.iter().filter(|seen| seen.reached).count() {
            0 => Self::Denied,
            all if all == observations.len() => Self::Allowed,
            _ => Self::Partial,
        }
    }

    fn paint(self, style: Style) -> String {
        match self {
            Self::Allowed => style.green("."),
            Self::Denied => style.red("X"),
            Self::Partial => style.yellow("-"),
            Self::Mismatch => style.alarm("!"),
        }
    }
}

/// Pairs whose mismatches are spelled out.
const MISMATCHES: usize = 20;

type Pairs<'a> = BTreeMap<(usize, usize), Vec<&'a Observation>>;

/// Draws the matrix, a legend, what is partial, and every mismatch.
pub(crate) fn draw(plan: &Plan, observations: &[Observation], style: Style) -> String {
    let mut pairs = Pairs::new();
    for seen in observations {
        pairs.entry((seen.probe.from, seen.probe.to)).or_default().push(seen);
    }
    let mut text = table(plan, &pairs, style);
    let legend = format!(
        "  {} reached   {} denied   {} some ports only   {} not what the policies say",
        Cell::Allowed.paint(style),
        Cell::Denied.paint(style),
        Cell::Partial.paint(style),
        Cell::Mismatch.paint(style)
    );
    text += &format!("\n{legend}\n");
    text += &partial(plan, &pairs, style);
    text += &mismatches(plan, observations, style);
    text += &summary(observations, style);
    text
}

fn table(plan: &Plan, pairs: &Pairs<'_>, style: Style) -> String {
    let shown: Vec<usize> = (0..plan.pods.len()).filter(|&pod| plan.pods[pod].interface.is_some()).collect();
    let names: Vec<String> = shown.iter().map(|&pod| plan.pods[pod].name.to_string()).collect();
    let width = names.iter().map(String::len).max().unwrap_or_default();
    let node_width = plan.nodes.iter().map(|node| node.name.len()).max().unwrap_or_default().max(4);
    let head = format!("  {:>2}  {:width$}  {:node_width$} ", "", "FROM \\ TO", "NODE");
    let mut text = style.bold(&head);
    for number in 1..=shown.len() {
        text += &style.bold(&format!(" {number:>2}"));
    }
    text.push('\n');
    for (row, &from) in shown.iter().enumerate() {
        let node = &plan.nodes[plan.pods[from].node].name;
        let _ = write!(
            text,
            "  {:>2}  {:width$}  {} ",
            row + 1,
            names[row],
            style.dim(&format!("{node:node_width$}"))
        );
        for &to in &shown {
            let cell =
                pairs.get(&(from, to)).map_or_else(|| style.dim(" "), |seen| Cell::of(seen).paint(style));
            text += &format!("  {cell}");
        }
        text.push('\n');
    }
    text
}

/// The ports of the pairs that some ports only reach.
fn partial(plan: &Plan, pairs: &Pairs<'_>, style: Style) -> String {
    let mut text = String::new();
    for ((from, to), seen) in pairs.iter().filter(|(_, seen)| Cell::of(seen) == Cell::Partial) {
        let ports = |reached: bool| {
            let mut ports: Vec<_> =
                seen.iter().filter(|seen| seen.reached == reached).map(|seen| port(seen)).collect();
            ports.sort();
            ports.dedup();
            ports.join(" ")
        };
        let [from, to] = [from, to].map(|&pod| plan.pods[pod].name.to_string());
        let line = format!("  {from} -> {to}: {} reached, {} denied", ports(true), ports(false));
        let _ = writeln!(text, "{}", style.dim(&line));
    }
    text
}

fn mismatches(plan: &Plan, observations: &[Observation], style: Style) -> String {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for seen in observations.iter().filter(|seen| seen.is_mismatch()) {
        let expected = if seen.probe.expected { "allowed" } else { "denied" };
        let outcome = match &seen.outcome {
            Outcome::Answer(name) => format!("{name} answered"),
            Outcome::Silence => "no answer".to_owned(),
            Outcome::Refusal(error) => format!("refused: {error}"),
        };
        let family = if seen.probe.target.is_ipv6() { "IPv6" } else { "IPv4" };
        let ports = groups.entry((seen.probe.from, seen.probe.to, expected, outcome)).or_default();
        ports.push(format!("{} {family}", port(seen)));
    }
    let mut text = String::new();
    for ((from, to, expected, outcome), ports) in groups.iter().take(MISMATCHES) {
        let [from, to] = [from, to].map(|&pod| &plan.pods[pod].name);
        let line = format!("! {from} -> {to} {}: expected {expected}; {outcome}", ports.join(", "));
        let _ = writeln!(text, "  {}", style.alarm(&line));
    }
    if groups.len() > MISMATCHES {
        let _ = writeln!(text, "  {}", style.alarm(&format!("! and {} more", groups.len() - MISMATCHES)));
    }
    text
}

fn summary(observations: &[Observation], style: Style) -> String {
    let reached = observations.iter().filter(|seen| seen.reached).count();
    let wrong = observations.iter().filter(|seen| seen.is_mismatch()).count();
    let total = observations.len();
    let verdict = match wrong {
        0 => style.green("all as the policies say"),
        _ => style.alarm(&format!("{wrong} not as the policies say")),
    };
    format!("  {total} connections tried: {reached} answered, {} not; {verdict}\n", total - reached)
}

fn port(seen: &Observation) -> String {
    format!("{}/{}", seen.probe.target.port(), seen.probe.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{model::Model, plan, probe};

    /// What would be seen if every probe of the sample answered, but for what `change` makes of it.
    fn drawn(change: impl Fn(&mut Observation)) -> String {
        let plan = Plan::new(&plan::tests::sample()).unwrap();
        let answered = |probe: probe::Probe| {
            let mut seen = Observation {
                outcome: Outcome::Answer(plan.pods[probe.to].name.to_string()),
                reached: true,
                probe,
            };
            change(&mut seen);
            seen
        };
        let observations: Vec<_> = probe::every_pair(&plan, &Model::Open).into_iter().map(answered).collect();
        draw(&plan, &observations, Style::plain())
    }

    fn silence(seen: &mut Observation) {
        seen.outcome = Outcome::Silence;
        seen.reached = false;
    }

    #[test]
    fn a_row_for_each_client_and_a_column_for_each_server() {
        let text = drawn(|_| {});
        let rows: Vec<_> = text.lines().take(5).map(str::trim_end).collect();
        assert_eq!(
            rows,
            [
                r"      FROM \ TO   NODE     1  2  3  4",
                "   1  test/four   test-b      .  .  .",
                "   2  test/one    test-a   .     .  .",
                "   3  test/three  test-b   .  .     .",
                "   4  test/two    test-a   .  .  .",
            ]
        );
        assert!(text.contains("36 connections tried: 36 answered, 0 not; all as the policies say"), "{text}");
    }

    #[test]
    fn a_denied_pair_is_crossed_out_and_a_partial_one_says_which_ports() {
        let text = drawn(|seen| {
            let denied = seen.probe.from == 0 && (seen.probe.to == 1 || seen.probe.target.port() == 5353);
            if denied {
                seen.probe.expected = false;
                silence(seen);
            }
        });
        assert!(text.contains("   1  test/four   test-b      X  -  -\n"), "{text}");
        assert!(text.contains("test/four -> test/two: 8080/TCP reached, 5353/UDP denied\n"), "{text}");
        assert!(text.contains("all as the policies say"), "{text}");
    }

    #[test]
    fn every_mismatch_of_a_small_cluster_is_spelled_out() {
        let text = drawn(silence);
        assert_eq!(text.matches("expected allowed; no answer").count(), 12);
        assert!(!text.contains(" more"), "{text}");
        assert!(text.contains("36 not as the policies say"), "{text}");
    }

    #[test]
    fn whatever_the_policies_do_not_say_is_told_apart_and_named() {
        let text = drawn(|seen| match (seen.probe.from, seen.probe.to, seen.probe.target.port()) {
            (0, 1, 8080) => silence(seen),
            (0, 2, 8080) => seen.probe.expected = false,
            (0, 3, 8080) => seen.outcome = Outcome::Refusal("connection refused".to_owned()),
            _ => {}
        });
        assert!(
            text.contains(
                "! test/four -> test/one 8080/TCP IPv4, 8080/TCP IPv6: expected allowed; no answer"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "! test/four -> test/three 8080/TCP IPv4, 8080/TCP IPv6: expected denied; test/three answered"
            ),
            "{text}"
        );
    }
}
