//! The clients that do not wait.

use std::{
    io::{IoSlice, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};

use crate::{MESSAGE, SILENT};

/// Datagrams that are sent at once from one socket.
const BATCH: usize = 32;
/// Bytes that are written at once to a stream.
const CHUNK: usize = 128 << 10;

/// Sends datagrams from so many sockets in turn.
pub(crate) fn datagrams(targets: &[SocketAddr], sockets: usize, time: Duration) -> Result<()> {
    let open = |number: usize| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(targets[number % targets.len()])?;
        Ok(socket)
    };
    let sockets = (0..sockets).map(open).collect::<std::io::Result<Vec<_>>>()?;
    let message = [SILENT; MESSAGE];
    let slices = [[IoSlice::new(&message)]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let start = Instant::now();
    for socket in sockets.iter().cycle() {
        if start.elapsed() > time {
            break;
        }
        // What the kernel has no room for is not sent, and not counted at the other end.
        let _ = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, [None; BATCH], [], MsgFlags::empty());
    }
    Ok(())
}

/// Writes to one connection.
pub(crate) fn stream(target: SocketAddr, time: Duration) -> Result<()> {
    let mut stream = TcpStream::connect(target).context("no connection")?;
    let chunk = vec![SILENT; CHUNK];
    let start = Instant::now();
    let mut written = 0;
    while start.elapsed() < time {
        written += stream.write(&chunk)?;
    }
    println!("{:.1} 0 0 0", written as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
