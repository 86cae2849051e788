//! `weir status`.

use std::fmt::Write as _;

use super::{
    Error, args, client,
    output::{Style, Table, count, duration, escape, escape_lines, grouped},
    report,
};
use crate::{
    check::PolicyCheck,
    protocol::{MapUsage, Request, Response, Status},
};

/// `weir status`.
pub(super) fn run(args: &args::Status) -> Result<u8, Error> {
    let agents = client::agents(&args.target)?;
    let (statuses, answered) = client::read_all(&agents, &Request::Status, |response| match response {
        Response::Status(status) => Ok(*status),
        other => Err(Error::unexpected(&other)),
    });
    let statuses: Vec<Status> = statuses.into_iter().map(|(_, status)| status).collect();
    report::show("StatusList", &statuses, args.output, render)?;
    let well = statuses.iter().all(|status| status.problems.is_empty());
    answered.map(|()| u8::from(!well))
}

fn render(status: &Status, style: Style) -> String {
    let mut text = String::new();
    let since = status.enforced_for.map_or_else(
        || "nothing is enforced".to_owned(),
        |seconds| format!("enforced for {}", duration(seconds)),
    );
    let sign = if status.problems.is_empty() { style.green("ok") } else { style.red("not ok") };
    let _ = writeln!(
        text,
        "{}: {sign}, revision {}, {since} (agent {}, process {})",
        style.bold(escape(&status.node)),
        status.revision,
        escape(&status.version),
        status.pid
    );
    for problem in &status.problems {
        // A problem may be several lines: diagnostics with their carets.
        for line in escape_lines(problem).lines() {
            let _ = writeln!(text, "  {}", style.red(line));
        }
    }
    let waiting = match status.pods_waiting.len() {
        0 => String::new(),
        number => style.red(format!(", {number} waiting")),
    };
    let _ = writeln!(
        text,
        "  {} enforced{waiting}; {}, {}",
        count(status.pods_enforced, "pod"),
        count(status.services, "service"),
        match status.policies {
            1 => "1 policy".to_owned(),
            number => format!("{number} policies"),
        }
    );
    if !status.skipped.is_empty() {
        let kinds: Vec<String> = status.skipped.iter().map(|(kind, number)| skipped(kind, *number)).collect();
        let _ = writeln!(text, "  skipped: {}", kinds.join(", "));
    }
    if status.refused > 0 {
        let _ =
            writeln!(text, "  {} refused since the agent started", count(status.refused as usize, "change"));
    }
    if status.repaired > 0 {
        let times =
            if status.repaired == 1 { "once".to_owned() } else { format!("{} times", status.repaired) };
        let _ = writeln!(
            text,
            "  {}",
            style.red(format!("programs taken off an interface and attached again: {times}"))
        );
    }
    if let Some(why) = &status.edge_refused {
        let _ = writeln!(text, "  services at the edge are served by TC, slower: {}", escape(why));
    }
    for table in [forwarded(status), drops(status), maps(status), programs(status)] {
        if !table.is_empty() {
            let _ = write!(text, "\n{table}");
        }
    }
    text
}

fn skipped(kind: &str, number: usize) -> String {
    let note = if kind == PolicyCheck::COUNTED_AS { " (checked by `weir check`)" } else { "" };
    format!("{number} {}{note}", escape(kind))
}

fn forwarded(status: &Status) -> Table {
    let mut table = Table::new(["HOOK", "FORWARDED", "BYTES"]);
    for hook in &status.forwarded {
        table.row([&hook.hook, &grouped(hook.packets), &grouped(hook.bytes)]);
    }
    table
}

fn drops(status: &Status) -> Table {
    let mut table = Table::new(["HOOK", "DROPPED", "REASON", "MEANING"]);
    for drop in &status.drops {
        table.row([&drop.hook, &grouped(drop.packets), &drop.reason, &drop.explanation]);
    }
    table
}

fn maps(status: &Status) -> Table {
    let mut table = Table::new(["MAP", "USED", "CAPACITY", "FULL"]);
    for MapUsage { map, used, capacity } in &status.maps {
        let percent = if *capacity == 0 { 0 } else { used * 100 / capacity };
        table.row([map, &grouped(*used), &grouped(*capacity), &format!("{percent}%")]);
    }
    table
}

fn programs(status: &Status) -> Table {
    let mut table = Table::new(["PROGRAM", "INTERFACE", "ATTACHED BY"]);
    for program in &status.programs {
        table.row([&program.program, &program.interface, &program.mode]);
    }
    table
}
