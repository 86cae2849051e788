//! Finding agents and asking them.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Error, args::Target};
use crate::protocol::{self, MAX_LINE, Request, Response, SOCKET};

/// How long an agent may take to answer. A commit of a large cluster takes seconds.
pub(super) const ANSWER: Duration = Duration::from_secs(120);

/// An agent of this host.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    /// Name for messages: the last component of the state directory, which is the node's name by default.
    pub name: String,
    socket: PathBuf,
}

/// The directory with one state directory per agent.
pub(super) fn run_directory() -> PathBuf {
    std::env::var_os("WEIR_RUN_DIR").map_or_else(|| PathBuf::from("/run/weir"), PathBuf::from)
}

/// The agents that `target` names. At least one; every one is there to be asked, though it may not answer.
pub(super) fn agents(target: &Target) -> Result<Vec<Agent>, Error> {
    if let Some(state) = &target.state {
        return Ok(vec![Agent::in_directory(state)]);
    }
    let run = run_directory();
    if let Some(node) = &target.node {
        if node.is_empty() || node.contains('/') || node.starts_with('.') {
            return Err(Error::usage(format!("`{node}` is not the name of a node")));
        }
        return Ok(vec![Agent::in_directory(&run.join(node))]);
    }
    let mut agents: Vec<Agent> = match fs::read_dir(&run) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            // A directory that may not be looked at is an agent's that says so when it is asked.
            .filter(|path| path.is_dir() && path.join(SOCKET).try_exists().unwrap_or(true))
            .map(|path| Agent::in_directory(&path))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::unreachable(format!("{}: {error}", run.display()))),
    };
    if agents.is_empty() {
        return Err(Error::unreachable(format!(
            "no agent runs on this host: nothing in {}; start one with `weir agent`, or name its directory with --state",
            run.display()
        )));
    }
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(agents)
}

/// The answers of those agents that answer, with their names, and what the others say instead. Reading from
/// some is better than from none.
pub(super) fn read_all<T>(
    agents: &[Agent],
    request: &Request,
    pick: fn(Response) -> Result<T, Error>,
) -> (Vec<(String, T)>, Result<(), Error>) {
    let mut answers = Vec::new();
    let mut failure: Option<Error> = None;
    for agent in agents {
        match agent.ask(request).and_then(pick) {
            Ok(answer) => answers.push((agent.name.clone(), answer)),
            Err(error) => {
                failure = Some(match failure {
                    None => error,
                    Some(first) => Error { message: format!("{}\n{error}", first.message), ..first },
                });
            }
        }
    }
    (answers, failure.map_or(Ok(()), Err))
}

impl Agent {
    fn in_directory(state: &Path) -> Self {
        let name = state
            .file_name()
            .map_or_else(|| state.display().to_string(), |name| name.to_string_lossy().into_owned());
        Self { name, socket: state.join(SOCKET) }
    }

    /// Asks, and waits for the one answer. A refusal is an error with its exit status.
    pub(super) fn ask(&self, request: &Request) -> Result<Response, Error> {
        self.stream(request, Some(ANSWER))?
            .next()
            .unwrap_or_else(|| Err(self.unreachable("it closed the connection without an answer")))
    }

    /// Asks, and hands out answers as they come, for ever unless `patience` is given.
    pub(super) fn stream(&self, request: &Request, patience: Option<Duration>) -> Result<Answers<'_>, Error> {
        let line = protocol::encode(request).map_err(|error| Error::usage(error.to_string()))?;
        if line.len() > MAX_LINE {
            return Err(Error::input(format!(
                "the manifests take {} MiB, more than the {} MiB that an agent accepts at once",
                line.len() >> 20,
                MAX_LINE >> 20
            )));
        }
        let stream = UnixStream::connect(&self.socket).map_err(|error| self.failed(&error))?;
        stream.set_read_timeout(patience).map_err(|error| self.failed(&error))?;
        stream.set_write_timeout(Some(ANSWER)).map_err(|error| self.failed(&error))?;
        // An agent that refuses a request early stops reading it; its answer says why.
        let sent = (&stream).write_all(&line);
        if let Err(error) = sent
            .as_ref()
            .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(&()) } else { Err(error) })
        {
            return Err(self.failed(error));
        }
        Ok(Answers { agent: self, reader: BufReader::new(stream) })
    }

    fn failed(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::kernel(format!(
                "{}: permission denied; ask as root, or as the agent's user",
                self.socket.display()
            )),
            io::ErrorKind::WouldBlock => self.unreachable(format!("nothing came within {ANSWER:?}")),
            _ => self.unreachable(error),
        }
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Error {
        Error::unreachable(format!(
            "the agent at {} does not answer: {why}; what it enforced stays in force",
            self.socket.display()
        ))
    }
}

/// Answers of an agent.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    agent: &'a Agent,
    reader: BufReader<UnixStream>,
}

impl Iterator for Answers<'_> {
    type Item = Result<Response, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match (&mut self.reader).take(MAX_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(match protocol::decode(&line) {
                Ok(Response::Failed(failure)) => Err(failure.into()),
                Ok(response) => Ok(response),
                Err(error) => Err(self.agent.unreachable(error)),
            }),
            Err(error) => Some(Err(self.agent.failed(&error))),
        }
    }
}
