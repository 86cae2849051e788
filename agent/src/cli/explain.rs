//! `weir explain`.

use super::{
    Error, args, client, input,
    output::{Style, escape_lines},
    print,
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
