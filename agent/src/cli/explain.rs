//! `weir explain` and `weir observe`.

use std::sync::mpsc;

use super::{
    Error, args,
    client::{self, Agent},
    input,
    output::{Style, escape, escape_lines},
    print, warn,
};
use crate::{
    daemon::explain,
    protocol::{Request, Response},
};

/// `weir explain`.
pub(super) fn explain(args: &args::Explain) -> Result<u8, Error> {
    let (allowed, text) = if args.files.is_empty() { ask(args)? } else { offline(args)? };
    let style = Style::stdout();
    let text = escape_lines(&text);
    let (verdict, rest) = text.split_once(' ').unwrap_or((&text, ""));
    print(&format!("{} {rest}", if allowed { style.green(verdict) } else { style.red(verdict) }))?;
    Ok(u8::from(!allowed))
}

/// Any agent knows the whole cluster.
fn ask(args: &args::Explain) -> Result<(bool, String), Error> {
    let agents = client::agents(&args.target)?;
    let agent = agents.first().ok_or_else(|| Error::unreachable("no agent runs on this host"))?;
    let request = Request::Explain { source: args.source.clone(), destination: args.destination.clone() };
    match agent.ask(&request)? {
        Response::Explained { allowed, text } => Ok((allowed, text)),
        other => Err(Error::unexpected(&other)),
    }
}

fn offline(args: &args::Explain) -> Result<(bool, String), Error> {
    let (cluster, _) = input::read_offline(&args.files)?;
    explain::explain(&cluster, &args.source, &args.destination).map_err(Error::usage)
}

/// `weir observe`.
pub(super) fn observe(args: &args::Observe) -> Result<u8, Error> {
    let agents = client::agents(&args.target)?;
    let several = agents.len() > 1;
    let (lines, printed) = mpsc::sync_channel(1024);
    // One thread per agent, all of which end with the process: at Ctrl-C, or when the last agent ends.
    let followers: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            let lines = lines.clone();
            std::thread::spawn(move || follow(&agent, several, &lines))
        })
        .collect();
    drop(lines);
    for line in printed {
        print(&line)?;
    }
    let mut result = Ok(0);
    for follower in followers {
        result = follower.join().unwrap_or(Ok(0)).and(result);
    }
    result
}

fn follow(agent: &Agent, named: bool, lines: &mpsc::SyncSender<String>) -> Result<u8, Error> {
    for answer in agent.stream(&Request::Observe, None)? {
        let text = match answer? {
            Response::Observed(text) => text,
            other => return Err(Error::unexpected(&other)),
        };
        let node = if named { format!("{}: ", agent.name) } else { String::new() };
        if lines.send(format!("{}\n", escape(&format!("{node}{text}")))).is_err() {
            break;
        }
    }
    warn(&format!("{}: the agent has ended", agent.name));
    Ok(0)
}
