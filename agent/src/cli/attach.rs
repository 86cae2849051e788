//! `weir attach` and `weir detach`.

use super::{
    Error, args,
    client::{self, Agent},
    output::escape,
    print, warn,
};
use crate::{
    cluster::Name,
    daemon::{self, Leftovers, Places},
    protocol::{Attached, Detach, Request, Response},
};

/// `weir attach`.
pub(super) fn attach(args: &args::Attach) -> Result<u8, Error> {
    let agents = client::agents(&args.target)?;
    let [agent] = agents.as_slice() else {
        return Err(Error::usage(
            "several agents run on this host; say with --node which one the interface belongs to",
        ));
    };
    let request =
        Request::Attach { pod: pod(&args.pod)?, interface: args.interface.clone(), mac: args.mac.clone() };
    match agent.ask(&request)? {
        Response::Attached(Attached { pod, interface, revision: Some(revision) }) => {
            print(&format!(
                "pod/{} enforced on {} (revision {revision})\n",
                escape(&pod.to_string()),
                escape(&interface)
            ))?;
        }
        Response::Attached(Attached { pod, interface, revision: None }) => {
            print(&format!("pod/{} attached to {}\n", escape(&pod.to_string()), escape(&interface)))?;
            warn(&format!(
                "no manifest knows pod {pod} on this node yet: everything on {interface} is dropped until one does"
            ));
        }
        other => return Err(Error::unexpected(&other)),
    }
    Ok(0)
}

/// `weir detach`.
pub(super) fn detach(args: &args::Detach) -> Result<u8, Error> {
    if args.all {
        return detach_all(args);
    }
    let what = match (&args.pod, &args.interface) {
        (Some(pod_name), _) => Detach::Pod(pod(pod_name)?),
        (None, Some(interface)) => Detach::Interface(interface.clone()),
        (None, None) => return Err(Error::usage("name a pod or an interface, or say --all")),
    };
    let request = Request::Detach(what);
    let mut freed = Vec::new();
    let mut refusal = None;
    for agent in client::agents(&args.target)? {
        match detached(&agent, &request) {
            Ok(interfaces) => freed.extend(interfaces),
            // Only one of several agents has it.
            Err(error) if error.status == 1 => refusal = Some(error),
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(refusal)) = (freed.is_empty(), refusal) {
        return Err(refusal);
    }
    report(&freed)?;
    Ok(0)
}

fn detached(agent: &Agent, request: &Request) -> Result<Vec<String>, Error> {
    match agent.ask(request)? {
        Response::Detached(interfaces) => Ok(interfaces),
        other => Err(Error::unexpected(&other)),
    }
}

/// Agents first, so that none puts back what is removed; then whatever dead ones left.
fn detach_all(args: &args::Detach) -> Result<u8, Error> {
    let mut freed = Vec::new();
    for agent in client::agents(&args.target).unwrap_or_default() {
        match detached(&agent, &Request::Detach(Detach::All)) {
            Ok(interfaces) => freed.extend(interfaces),
            Err(error) if error.status == 4 => {}
            Err(error) => return Err(error),
        }
    }
    let places = Places { bpffs: daemon::default_bpffs(), run: client::run_directory() };
    let target = &args.target;
    let leftovers =
        Leftovers::find(&places, target.node.as_deref(), target.state.as_deref(), args.bpffs.as_deref());
    freed.extend(leftovers.remove(daemon::remove_pins).map_err(|error| Error::kernel(error.to_string()))?);
    report(&freed)?;
    Ok(0)
}

fn report(interfaces: &[String]) -> Result<(), Error> {
    if interfaces.is_empty() {
        warn("nothing was attached");
    }
    print(&interfaces.iter().map(|interface| format!("{} detached\n", escape(interface))).collect::<String>())
}

fn pod(text: &str) -> Result<Name, Error> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Name { namespace: namespace.into(), name: name.into() })
        }
        _ => Err(Error::usage(format!("`{text}` is not NAMESPACE/NAME of a pod"))),
    }
}
