//! The control socket: who may connect, how much they may say, and how long they may take.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, broadcast, mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

use super::event_log::EventLog;
use crate::protocol::{self, Failure, FailureKind, Filter, Request, Response, SOCKET};

/// A request, and where its answer goes.
#[derive(Debug)]
pub(super) struct Command {
    /// The request.
    pub request: Request,
    /// Where the answer goes. The client may be gone.
    pub answer: oneshot::Sender<Response>,
    /// Ends once the client has the answer, or is gone.
    pub delivered: oneshot::Receiver<()>,
}

/// How much a client may ask of the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest request in bytes.
    pub request: usize,
    /// How long a client may take to send a request, and to take an answer in.
    pub patience: Duration,
    /// Clients at a time; more wait.
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: protocol::MAX_LINE, patience: Duration::from_secs(10), clients: 32 }
    }
}

/// The control socket of an agent.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    limits: Limits,
}

impl Server {
    /// Listens in `directory`, which belongs to the agent alone. A socket that is there is a dead agent's: the
    /// caller holds the directory's lock.
    pub(super) fn bind(directory: &Path, limits: Limits) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The directory is 0700, so that nobody can connect before this line.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(Self { listener, limits })
    }

    /// Serves clients for ever, each in a task of its own: a slow one delays nobody.
    pub(super) async fn serve(self, commands: mpsc::Sender<Command>, events: Arc<EventLog>) {
        let places = Arc::new(Semaphore::new(self.limits.clients));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: others must end first.
                    warn!(%error, "cannot accept a client of the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let client = Client { limits: self.limits, commands: commands.clone(), events: events.clone() };
            tokio::spawn(async move {
                if let Err(error) = client.serve(stream).await {
                    debug!(%error, "a client of the control socket went away");
                }
                drop(place);
            });
        }
    }
}

/// One client.
struct Client {
    limits: Limits,
    commands: mpsc::Sender<Command>,
    events: Arc<EventLog>,
}

impl Client {
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let user = stream.peer_cred()?.uid();
        let (reader, mut writer) = stream.into_split();
        if !may_command(user, nix::unistd::geteuid().as_raw()) {
            let refusal =
                Failure::new(FailureKind::Kernel, format!("user {user} may not command this agent"));
            return self.send(&mut writer, &Response::Failed(refusal)).await;
        }
        let mut reader = BufReader::new(reader);
        while let Some(line) = self.line(&mut reader, &mut writer).await? {
            match protocol::decode(&line) {
                Ok(Request::Observe { filter, last, follow }) => {
                    return self.observe(&filter, last, follow, reader, &mut writer).await;
                }
                Ok(request) => {
                    let (until_sent, delivered) = oneshot::channel();
                    let answer = ask(&self.commands, request, delivered).await;
                    self.send(&mut writer, &answer).await?;
                    drop(until_sent);
                }
                Err(error) => {
                    return self
                        .send(&mut writer, &Response::Failed(Failure::new(FailureKind::Usage, error)))
                        .await;
                }
            }
        }
        Ok(())
    }

    /// The next request; `None` at the end, or when the client breaks the limits.
    async fn line(
        &self,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        // One byte more than allowed tells too long from just long enough.
        let mut limited = reader.take(self.limits.request as u64 + 1);
        let complaint = match timeout(self.limits.patience, limited.read_until(b'\n', &mut line)).await {
            Ok(read) => match read? {
                0 => return Ok(None),
                length if length <= self.limits.request => return Ok(Some(line)),
                _ => format!("a request may have {} bytes at most", self.limits.request),
            },
            Err(_) if line.is_empty() => return Ok(None),
            Err(_) => format!("the request was not complete after {:?}", self.limits.patience),
        };
        self.send(writer, &Response::Failed(Failure::new(FailureKind::Usage, complaint))).await?;
        Ok(None)
    }

    /// Sends the last events that the client wants, and, if it follows, new ones until it goes away. One that cannot
    /// keep up is told how many it missed, wanted or not.
    async fn observe(
        &self,
        filter: &Filter,
        last: usize,
        follow: bool,
        mut reader: BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let (before, mut events) = self.events.subscribe(filter, last);
        for event in before {
            self.send(writer, &Response::Observed(Box::new((*event).clone()))).await?;
        }
        if !follow {
            return Ok(());
        }
        loop {
            let event = tokio::select! {
                // A client that observes says no more: whatever comes is its end.
                _ = reader.read_u8() => return Ok(()),
                event = events.recv() => event,
            };
            let response = match event {
                Ok(event) if filter.matches(&event) => Response::Observed(Box::new((*event).clone())),
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(missed)) => Response::Missed(missed),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            self.send(writer, &response).await?;
        }
    }

    async fn send(&self, writer: &mut OwnedWriteHalf, response: &Response) -> io::Result<()> {
        let line = protocol::encode(response)?;
        timeout(self.limits.patience, writer.write_all(&line))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer"))?
    }
}

/// The agent's answer to a request. `delivered` ends once the client has it, or is gone.
pub(super) async fn ask(
    commands: &mpsc::Sender<Command>,
    request: Request,
    delivered: oneshot::Receiver<()>,
) -> Response {
    let (answer, answered) = oneshot::channel();
    let ending = || Response::Failed(Failure::new(FailureKind::NotFound, "the agent is ending"));
    if commands.send(Command { request, answer, delivered }).await.is_err() {
        return ending();
    }
    answered.await.unwrap_or_else(|_| ending())
}

/// Whether `user` may command an agent that runs as `agent`: root, and the agent's own user.
fn may_command(user: u32, agent: u32) -> bool {
    user == 0 || user == agent
}

#[cfg(test)]
mod tests;
