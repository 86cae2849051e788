//! `weir apply` and `weir delete`.

use std::collections::BTreeSet;

use super::{
    Error, args,
    client::{self, Agent},
    output::escape,
    print, warn,
};
use crate::{
    manifest,
    protocol::{Change, Changed, Request, Response},
};

/// `weir apply`.
pub(super) fn apply(args: &args::Apply) -> Result<u8, Error> {
    let files = read(&args.files.files)?;
    change(&args.target, Change::Apply(files), args.dry_run)
}

/// `weir delete`.
pub(super) fn delete(args: &args::Delete) -> Result<u8, Error> {
    let named = match args.object.as_slice() {
        [] => None,
        [both] => Some(both.split_once('/').ok_or_else(|| Error::usage(format!("`{both}` is not KIND/NAME")))?),
        [kind, name, ..] => Some((kind.as_str(), name.as_str())),
    };
    let change_to_make = match named {
        None => Change::Delete(read(&args.files)?),
        Some((kind, name)) => Change::DeleteNamed {
            kind: kind.to_owned(),
            namespace: Some(args.namespace.clone()),
            name: name.to_owned(),
        },
    };
    change(&args.target, change_to_make, args.dry_run)
}

/// Makes a change on every agent, or on none.
fn change(target: &args::Target, change: Change, dry_run: bool) -> Result<u8, Error> {
    let agents = client::agents(target)?;
    if dry_run || agents.len() > 1 {
        let planned = ask_all(&agents, &Request::Change { change: change.clone(), dry_run: true })?;
        if dry_run {
            report(&planned, " (dry run)", |revision| format!("nothing was applied (revision {revision} stays active)"))?;
            return Ok(0);
        }
    }
    let done = commit_all(&agents, &Request::Change { change, dry_run: false })?;
    report(&done, "", |revision| format!("revision {revision} enforced"))?;
    Ok(0)
}

type Answer<'a> = (&'a Agent, Changed);

fn ask(agent: &Agent, request: &Request) -> Result<Changed, Error> {
    match agent.ask(request)? {
        Response::Changed(changed) => Ok(changed),
        other => Err(Error::unexpected(&other)),
    }
}

fn ask_all<'a>(agents: &'a [Agent], request: &Request) -> Result<Vec<Answer<'a>>, Error> {
    agents.iter().map(|agent| Ok((agent, ask(agent, request)?))).collect()
}

/// Every agent has found the change good. Should the kernel still refuse it on one, the others go back.
fn commit_all<'a>(agents: &'a [Agent], request: &Request) -> Result<Vec<Answer<'a>>, Error> {
    let mut done: Vec<Answer<'a>> = Vec::new();
    for agent in agents {
        match ask(agent, request) {
            Ok(changed) => done.push((agent, changed)),
            Err(error) if done.is_empty() => return Err(if agents.len() > 1 { error.on(agent) } else { error }),
            Err(error) => return Err(undo_all(&done, error.on(agent))),
        }
    }
    Ok(done)
}

fn undo_all(done: &[Answer<'_>], cause: Error) -> Error {
    let mut message = cause.message;
    let mut undone = true;
    for (agent, changed) in done {
        match ask(agent, &Request::Undo { revision: changed.revision }) {
            Ok(back) => message.push_str(&format!("\n{}: back at revision {}", agent.name, back.revision)),
            Err(error) => {
                undone = false;
                message.push_str(&format!("\n{}: stays at revision {}: {error}", agent.name, changed.revision));
            }
        }
    }
    if undone { Error::rolled_back(message) } else { Error::kernel(message) }
}

fn report(answers: &[Answer<'_>], note: &str, last: impl Fn(u64) -> String) -> Result<(), Error> {
    let warnings: BTreeSet<&String> = answers.iter().flat_map(|(_, changed)| &changed.warnings).collect();
    for warning in warnings {
        warn(warning);
    }
    let (_, first) = answers.first().ok_or_else(|| Error::unreachable("no agent answered"))?;
    for (kind, number) in &first.skipped {
        warn(&format!("skipped: {number} of {kind}, which does not concern weir"));
    }
    let agree = answers.iter().all(|(_, changed)| changed.objects == first.objects);
    let mut text = String::new();
    for (agent, changed) in if agree { &answers[..1] } else { answers } {
        let node = if agree { String::new() } else { format!("{}: ", escape(&agent.name)) };
        for object in &changed.objects {
            text.push_str(&format!("{node}{} {}{note}\n", escape(&object.object), object.outcome));
        }
    }
    for (agent, changed) in answers {
        let node = if answers.len() == 1 { String::new() } else { format!("{}: ", escape(&agent.name)) };
        text.push_str(&format!("{node}{}\n", last(changed.revision)));
    }
    print(&text)
}
