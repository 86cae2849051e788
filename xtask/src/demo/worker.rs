//! What lives in a namespace: the servers of a pod, and a client that probes on request.
//!
//! One thread a namespace. A socket belongs to the namespace in which its thread made it.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
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

/// A thread that lives in a namespace. Dropping it ends it.
pub struct Worker {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    protocol: Protocol,
    target: SocketAddr,
    reply: oneshot::Sender<Outcome>,
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
        let (reply, outcome) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job { protocol, target, reply });
        }
        outcome.await.unwrap_or_else(|_| Outcome::Refusal("the client has ended".to_owned()))
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

/// Answers everything that comes to a port, of either family, with a name.
async fn serve(name: String, protocol: Protocol, port: u16) -> io::Result<()> {
    // An IPv6 socket on the unspecified address takes IPv4 too.
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(address).await?;
            task::spawn_local(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let name = name.clone();
                    task::spawn_local(async move { stream.write_all(name.as_bytes()).await });
                }
            });
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address).await?;
            task::spawn_local(async move {
                let mut question = [0; 64];
                while let Ok((_, client)) = socket.recv_from(&mut question).await {
                    let _ = socket.send_to(name.as_bytes(), client).await;
                }
            });
        }
        Protocol::Sctp => {}
    }
    Ok(())
}

async fn attempt(protocol: Protocol, target: SocketAddr) -> Outcome {
    let answer = async {
        match protocol {
            Protocol::Tcp => ask_tcp(target).await,
            Protocol::Udp => ask_udp(target).await,
            Protocol::Sctp => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    match time::timeout(PATIENCE, answer).await {
        Ok(Ok(name)) => Outcome::Answer(name),
        Ok(Err(error)) => Outcome::Refusal(error.to_string()),
        Err(_) => Outcome::Silence,
    }
}

async fn ask_tcp(target: SocketAddr) -> io::Result<String> {
    let mut name = String::new();
    TcpStream::connect(target).await?.read_to_string(&mut name).await?;
    Ok(name)
}

async fn ask_udp(target: SocketAddr) -> io::Result<String> {
    let own: SocketAddr = if target.is_ipv6() { ([0; 8], 0).into() } else { ([0; 4], 0).into() };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(target).await?;
    socket.send(b"who?").await?;
    let mut name = [0; 320];
    let length = socket.recv(&mut name).await?;
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}
