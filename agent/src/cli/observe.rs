//! `weir observe`.

use std::sync::mpsc;

use serde_json::{Value, json};

use super::{
    Error,
    args::{self, ObserveOutput},
    client::{self, Agent},
    output::{escape, json_line},
    print, warn,
};
use crate::protocol::{Event, Filter, Request, Response};

/// `weir observe`.
pub(super) fn run(args: &args::Observe) -> Result<u8, Error> {
    let agents = client::agents(&args.target)?;
    let filter = Filter {
        pod: args.pod.clone(),
        from_pod: args.from_pod.clone(),
        to_pod: args.to_pod.clone(),
        verdict: args.verdict,
        reason: args.reason.as_ref().map(|reason| reason.to_ascii_uppercase()),
    };
    let form = Form { output: args.output, named: agents.len() > 1 };
    match args.last {
        Some(last) if !args.follow => remembered(&agents, &filter, last, form),
        last => {
            let request = Request::Observe { filter, last: last.unwrap_or(0), follow: true };
            follow_all(agents, &request, form)
        }
    }
}

/// How events are written.
#[derive(Clone, Copy)]
struct Form {
    output: ObserveOutput,
    /// With the agent's name.
    named: bool,
}

/// The last events of all agents together.
fn remembered(agents: &[Agent], filter: &Filter, last: usize, form: Form) -> Result<u8, Error> {
    let request = Request::Observe { filter: filter.clone(), last, follow: false };
    let mut events = Vec::new();
    let mut result = Ok(0);
    for agent in agents {
        let mut take = || {
            for answer in agent.stream(&request, Some(client::ANSWER))? {
                match answer? {
                    Response::Observed(event) => events.push((agent, event)),
                    other => return Err(Error::unexpected(&other)),
                }
            }
            Ok(0)
        };
        result = result.and(take());
    }
    // Times are of one form, and sort as text.
    events.sort_by(|(_, one), (_, other)| one.time().cmp(other.time()));
    let text: String = events[events.len().saturating_sub(last)..]
        .iter()
        .map(|(agent, event)| form.line(agent, event))
        .collect();
    print(&text)?;
    result
}

fn follow_all(agents: Vec<Agent>, request: &Request, form: Form) -> Result<u8, Error> {
    let (lines, printed) = mpsc::sync_channel(1024);
    // One thread per agent, all of which end with the process: at Ctrl-C, or when the last agent ends.
    let followers: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            let (lines, request) = (lines.clone(), request.clone());
            std::thread::spawn(move || follow(&agent, &request, form, &lines))
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

fn follow(
    agent: &Agent,
    request: &Request,
    form: Form,
    lines: &mpsc::SyncSender<String>,
) -> Result<u8, Error> {
    for answer in agent.stream(request, None)? {
        let event = match answer? {
            Response::Observed(event) => event,
            Response::Missed(number) => {
                warn(&format!("{}: {number} events lost: the reader is too slow", agent.name));
                continue;
            }
            other => return Err(Error::unexpected(&other)),
        };
        if lines.send(form.line(agent, &event)).is_err() {
            break;
        }
    }
    warn(&format!("{}: the agent has ended", agent.name));
    Ok(0)
}

impl Form {
    fn line(self, agent: &Agent, event: &Event) -> String {
        let line = match self.output {
            ObserveOutput::Compact if self.named => escape(&format!("{}: {event}", agent.name)).into_owned(),
            ObserveOutput::Compact => escape(&event.to_string()).into_owned(),
            ObserveOutput::Json => json_line(&versioned(&agent.name, event)),
        };
        format!("{line}\n")
    }
}

/// The stable form for programs: fields may be added under the same `apiVersion`, and none changes its meaning.
fn versioned(agent: &str, event: &Event) -> Value {
    let (kind, own) = match event {
        Event::Packet(seen) => ("Observation", serde_json::to_value(seen)),
        Event::Health(change) => ("HealthChange", serde_json::to_value(change)),
    };
    let mut value = json!({ "apiVersion": "weir.dev/v1alpha1", "kind": kind, "agent": agent });
    if let (Some(fields), Ok(Value::Object(own))) = (value.as_object_mut(), own) {
        fields.extend(own);
    }
    value
}
