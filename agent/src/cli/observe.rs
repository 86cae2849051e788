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
use crate::protocol::{Filter, Observation, Request, Response};

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
    let several = agents.len() > 1;
    let output = args.output;
    let (lines, printed) = mpsc::sync_channel(1024);
    // One thread per agent, all of which end with the process: at Ctrl-C, or when the last agent ends.
    let followers: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            let (lines, filter) = (lines.clone(), filter.clone());
            std::thread::spawn(move || follow(&agent, filter, output, several, &lines))
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
    filter: Filter,
    output: ObserveOutput,
    named: bool,
    lines: &mpsc::SyncSender<String>,
) -> Result<u8, Error> {
    for answer in agent.stream(&Request::Observe(filter), None)? {
        let seen = match answer? {
            Response::Observed(seen) => seen,
            Response::Missed(number) => {
                warn(&format!("{}: {number} events lost: the reader is too slow", agent.name));
                continue;
            }
            other => return Err(Error::unexpected(&other)),
        };
        let line = match output {
            ObserveOutput::Compact if named => escape(&format!("{}: {seen}", agent.name)).into_owned(),
            ObserveOutput::Compact => escape(&seen.to_string()).into_owned(),
            ObserveOutput::Json => json_line(&versioned(&agent.name, &seen)),
        };
        if lines.send(format!("{line}\n")).is_err() {
            break;
        }
    }
    warn(&format!("{}: the agent has ended", agent.name));
    Ok(0)
}

/// The stable form for programs: fields may be added under the same `apiVersion`, and none changes its meaning.
fn versioned(agent: &str, seen: &Observation) -> Value {
    let mut value = json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "Observation", "agent": agent });
    if let (Some(fields), Ok(Value::Object(own))) = (value.as_object_mut(), serde_json::to_value(seen)) {
        fields.extend(own);
    }
    value
}
