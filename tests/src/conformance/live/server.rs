//! Servers on every port that is probed. Each says its own address, so that a client knows who answered.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, UdpSocket},
    runtime,
    sync::mpsc as queue,
    task::{self, LocalSet},
};
use weir_common::header::protocol;

use super::socket;
use crate::live::netns;

/// A port of an address that is in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) netns: String,
    /// IP protocol number.
    pub(super) protocol: u8,
    pub(super) address: SocketAddr,
}

/// A thread with a server for each port that was asked for.
pub(super) struct Servers {
    open: BTreeSet<Port>,
    /// Dropped to end the thread.
    requests: Option<queue::UnboundedSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    port: Port,
    done: mpsc::Sender<Result<()>>,
}

impl Servers {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self> {
        let (requests, received) = queue::unbounded_channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::spawn(move || LocalSet::new().block_on(&runtime, attend(received)));
        Ok(Self { open: BTreeSet::new(), requests: Some(requests), thread: Some(thread) })
    }

    /// Opens those that are not open yet; returns when they listen.
    pub(super) fn open(&mut self, ports: impl IntoIterator<Item = Port>) -> Result<()> {
        let (done, opened) = mpsc::channel();
        let requests = self.requests.as_ref().context("the thread runs")?;
        let wanted: BTreeSet<_> = ports.into_iter().filter(|port| !self.open.contains(port)).collect();
        for port in &wanted {
            requests
                .send(Request { port: port.clone(), done: done.clone() })
                .ok()
                .context("servers ended")?;
        }
        drop(done);
        for result in opened {
            result?;
        }
        self.open.extend(wanted);
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn attend(mut requests: queue::UnboundedReceiver<Request>) {
    while let Some(Request { port, done }) = requests.recv().await {
        let opened = netns::enter(&port.netns).and_then(|()| Ok(serve(&port)?));
        let _ = done.send(opened.with_context(|| format!("cannot listen: {port:?}")));
    }
}

fn serve(port: &Port) -> io::Result<()> {
    let (number, local) = (port.protocol, port.address);
    let name = local.ip().to_string();
    let socket = socket::bind(number, local)?;
    if number == protocol::TCP {
        socket.listen(1024)?;
        let listener = TcpListener::from_std(socket.into())?;
        task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let name = name.clone();
                task::spawn_local(async move { stream.write_all(name.as_bytes()).await });
            }
        });
        return Ok(());
    }
    // To read and write, a raw socket is like one for UDP.
    let socket = UdpSocket::from_std(socket.into())?;
    task::spawn_local(async move {
        let mut question = [0; 256];
        loop {
            // What a client that has gone makes of an answer comes back as an error, and ends nothing.
            let Ok((length, client)) = socket.recv_from(&mut question).await else { continue };
            if let Some(answer) = socket::reply(number, &question[..length], local, &name) {
                let _ = socket.send_to(&answer, client).await;
            }
        }
    });
    Ok(())
}
