//! What lives in a namespace: the servers of a pod, and a client that probes on request.
//!
//! One thread a namespace. A socket belongs to the namespace in which its thread made it.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime,
    sync::{Semaphore, mpsc, oneshot},
    task::{self, LocalSet},
    time,
};
use weir::cluster::Protocol;

use super::{netns, plan::Pod};

/// How long an answer may take; what is denied is silent.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Probes of one client under way at a time.
const AT_ONCE: usize = 64;

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The name that the server gave.
    Answer(String),
    /// Nothing came back in time.
    Silence,
    /// Something answered, but no server.
    Refusal(String),
}

/// What a server says, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its name.
    pub server: String,
    /// Whom it saw.
    pub client: IpAddr,
    /// The client's own port.
    pub port: u16,
}

/// A thread that lives in a namespace. Dropping it ends it.
pub struct Worker {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    protocol: Protocol,
    target: SocketAddr,
    reply: oneshot::Sender<Result<Reply, Outcome>>,
}

impl Worker {
    /// Starts a worker in a namespace; returns once the pods in it listen.
    pub fn start(netns: &str, pods: &[&Pod]) -> Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let name = netns.to_owned();
        let servers: Vec<_> = pods
            .iter()
            .flat_map(|pod| pod.ports.iter().map(|&(protocol, port)| (pod.name.to_string(), protocol, port)))
            .collect();
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            let prepared = netns::enter(&name)
                .and_then(|()| Ok(runtime::Builder::new_current_thread().enable_all().build()?));
            match prepared {
                Ok(runtime) => LocalSet::new().block_on(&runtime, live(servers, queue, ready)),
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let worker = Self { jobs: Some(jobs), thread: Some(thread) };
        is_ready.recv().context("the worker ended early")?.with_context(|| format!("in {netns}"))?;
        Ok(worker)
    }

    /// Opens a connection, or sends a datagram, and waits for the server's name.
    pub async fn probe(&self, protocol: Protocol, target: SocketAddr) -> Outcome {
        match self.ask(protocol, target).await {
            Ok(reply) => Outcome::Answer(reply.server),
            Err(outcome) => outcome,
        }
    }

    /// The same; returns all that the server says, or what came instead.
    pub async fn ask(&self, protocol: Protocol, target: SocketAddr) -> Result<Reply, Outcome> {
        let (reply, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job { protocol, target, reply });
        }
        answer.await.unwrap_or_else(|_| Err(Outcome::Refusal("the client has ended".to_owned())))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without senders the queue ends, and with it the thread, which would keep the namespace alive.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn live(
    servers: Vec<(String, Protocol, u16)>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    ready: std::sync::mpsc::Sender<Result<()>>,
) {
    for (name, protocol, port) in servers {
        if let Err(error) = serve(name, protocol, port).await {
            let _ = ready.send(Err(anyhow!("cannot listen on {port}/{protocol}: {error}")));
            return;
        }
    }
    let _ = ready.send(Ok(()));
    let slots = Rc::new(Semaphore::new(AT_ONCE));
    while let Some(Job { protocol, target, reply }) = queue.recv().await {
        let slots = slots.clone();
        task::spawn_local(async move {
            let _slot = slots.acquire().await;
            let _ = reply.send(attempt(protocol, target).await);
        });
    }
}

/// Answers everything that comes to a port, of either family, with a name and the address that it came from.
async fn serve(name: String, protocol: Protocol, port: u16) -> io::Result<()> {
    // An IPv6 socket on the unspecified address takes IPv4 too.
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let answer = move |client: SocketAddr| format!("{name}\n{}\n", client.ip().to_canonical());
    match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(address).await?;
            task::spawn_local(async move {
                while let Ok((mut stream, client)) = listener.accept().await {
                    let answer = answer(client);
                    task::spawn_local(async move { stream.write_all(answer.as_bytes()).await });
                }
            });
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address).await?;
            task::spawn_local(async move {
                let mut question = [0; 64];
                while let Ok((_, client)) = socket.recv_from(&mut question).await {
                    let _ = socket.send_to(answer(client).as_bytes(), client).await;
                }
            });
        }
        Protocol::Sctp => {}
    }
    Ok(())
}

async fn attempt(protocol: Protocol, target: SocketAddr) -> Result<Reply, Outcome> {
    let answer = async {
        match protocol {
            Protocol::Tcp => ask_tcp(target).await,
            Protocol::Udp => ask_udp(target).await,
            Protocol::Sctp => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    let refused = |error: io::Error| Outcome::Refusal(error.to_string());
    match time::timeout(PATIENCE, answer).await {
        Ok(Ok((text, port))) => {
            parse(&text, port).ok_or_else(|| Outcome::Refusal(format!("it says {text:?}")))
        }
        Ok(Err(error)) => Err(refused(error)),
        Err(_) => Err(Outcome::Silence),
    }
}

/// What a server says, and the own port of who hears it.
async fn ask_tcp(target: SocketAddr) -> io::Result<(String, u16)> {
    let mut text = String::new();
    let mut stream = TcpStream::connect(target).await?;
    stream.read_to_string(&mut text).await?;
    Ok((text, stream.local_addr()?.port()))
}

async fn ask_udp(target: SocketAddr) -> io::Result<(String, u16)> {
    let own: SocketAddr = if target.is_ipv6() { ([0; 8], 0).into() } else { ([0; 4], 0).into() };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(target).await?;
    socket.send(b"who?").await?;
    let mut text = [0; 512];
    let length = socket.recv(&mut text).await?;
    Ok((String::from_utf8_lossy(&text[..length]).into_owned(), socket.local_addr()?.port()))
}

fn parse(text: &str, port: u16) -> Option<Reply> {
    let (server, client) = text.trim_end().split_once('\n')?;
    Some(Reply { server: server.to_owned(), client: client.parse().ok()?, port })
}
