//! `weir apply` and `weir delete`.

use super::{
    Error, args,
    client::{self, Agent},
    input,
    output::escape,
    print,
};
use crate::{
    cluster::Name,
    manifest::{Key, Kind},
    protocol::{Change, Changed, Request, Response},
};

/// `weir apply`.
pub(super) fn apply(args: &args::Apply) -> Result<u8, Error> {
    let documents = input::read_for(&args.target, &args.files.files)?;
    let texts = documents.objects.iter().map(|object| object.text().clone()).collect();
    change(&args.target, Change::Apply(texts), args.dry_run)
}

/// `weir delete`.
pub(super) fn delete(args: &args::Delete) -> Result<u8, Error> {
    let keys = match args.object.as_slice() {
        [] => {
            let documents = input::read_for(&args.target, &args.files)?;
            documents.objects.iter().map(|object| object.key().clone()).collect()
        }
        [both] => {
            let (kind, name) =
                both.split_once('/').ok_or_else(|| Error::usage(format!("`{both}` is not KIND/NAME")))?;
            vec![key(kind, &args.namespace, name)?]
        }
        [kind, name, ..] => vec![key(kind, &args.namespace, name)?],
    };
    change(&args.target, Change::Delete(keys), args.dry_run)
}

fn key(kind: &str, namespace: &str, name: &str) -> Result<Key, Error> {
    let kind = Kind::from_word(kind).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Error::usage(format!("`{kind}` is none of the kinds that weir knows: {}", known.join(", ")))
    })?;
    let namespace = if kind.is_namespaced() { namespace } else { "" };
    Ok(Key { kind, name: Name { namespace: namespace.into(), name: name.into() } })
}

/// Makes a change on every agent, or on none.
fn change(target: &args::Target, change: Change, dry_run: bool) -> Result<u8, Error> {
    let agents = client::agents(target)?;
    if dry_run || agents.len() > 1 {
        let planned = ask_all(&agents, &Request::Change { change: change.clone(), dry_run: true })?;
        if dry_run {
            report(&planned, " (dry run)", |revision| {
                format!("nothing was applied (revision {revision} stays active)")
            })?;
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
            Err(error) if done.is_empty() => {
                return Err(if agents.len() > 1 { error.on(agent) } else { error });
            }
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
                message
                    .push_str(&format!("\n{}: stays at revision {}: {error}", agent.name, changed.revision));
            }
        }
    }
    if undone { Error::rolled_back(message) } else { Error::kernel(message) }
}

fn report(answers: &[Answer<'_>], note: &str, last: impl Fn(u64) -> String) -> Result<(), Error> {
    let (_, first) = answers.first().ok_or_else(|| Error::unreachable("no agent answered"))?;
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
