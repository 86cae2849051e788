//! The server: answers over TCP and UDP, or swallows.

use std::{
    collections::HashMap,
    io::{ErrorKind, IoSliceMut, Read, Write},
    net::Ipv4Addr,
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream, UdpSocket},
};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendto, setsockopt, sockopt::RcvBufForce},
};

use crate::{MESSAGE, MORE, SILENT};

const LISTENER: Token = Token(0);
const DATAGRAMS: Token = Token(1);
/// Datagrams that wait to be read, in bytes.
const BACKLOG: usize = 8 << 20;
/// Datagrams that are read at once.
const BATCH: usize = 64;
/// Bytes of a stream that are read at once.
const CHUNK: usize = 256 << 10;

/// Serves a port until it is killed.
pub(crate) fn run(port: u16) -> Result<()> {
    let address = (Ipv4Addr::UNSPECIFIED, port).into();
    let mut listener = TcpListener::bind(address).context("cannot take the port")?;
    let mut datagrams = UdpSocket::bind(address).context("cannot take the port")?;
    setsockopt(&datagrams, RcvBufForce, &BACKLOG)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut datagrams, DATAGRAMS, Interest::READABLE)?;
    println!("ready");
    let mut connections = HashMap::new();
    let mut next = DATAGRAMS.0;
    let mut events = Events::with_capacity(256);
    let mut chunk = vec![0; CHUNK];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => {
                    while let Ok((mut stream, _)) = listener.accept() {
                        next += 1;
                        stream.set_nodelay(true)?;
                        poll.registry().register(&mut stream, Token(next), Interest::READABLE)?;
                        connections.insert(next, stream);
                    }
                }
                DATAGRAMS => while echo(&datagrams)? == BATCH {},
                Token(id) => {
                    if connections.get_mut(&id).is_some_and(|stream| !answer(stream, &mut chunk)) {
                        connections.remove(&id);
                    }
                }
            }
        }
    }
}

/// Answers what a connection asks; false when it is over.
fn answer(stream: &mut TcpStream, chunk: &mut [u8]) -> bool {
    loop {
        match stream.read(chunk) {
            Ok(0) => return false,
            Ok(_) if chunk[0] == SILENT => {}
            // Requests are shorter than any segment, and each waits for the last one's answer.
            Ok(_) => {
                if stream.write_all(&chunk[..MESSAGE]).is_err() || chunk[0] != MORE {
                    return false;
                }
                return true;
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Reads a batch of datagrams and answers those that ask; gives their number.
fn echo(socket: &UdpSocket) -> Result<usize> {
    let mut buffers = [[0; MESSAGE]; BATCH];
    let senders = receive(socket, &mut buffers)?;
    for (buffer, sender) in buffers.iter().zip(&senders) {
        if let (false, Some(sender)) = (buffer[0] == SILENT, sender) {
            // Where the way back is closed, the client counts it.
            let _ = sendto(socket.as_raw_fd(), buffer, sender, MsgFlags::empty());
        }
    }
    Ok(senders.len())
}

fn receive(socket: &UdpSocket, buffers: &mut [[u8; MESSAGE]]) -> Result<Vec<Option<SockaddrIn>>> {
    let mut headers = MultiHeaders::preallocate(buffers.len(), None);
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
        Ok(received) => Ok(received.map(|message| message.address).collect()),
        Err(Errno::EAGAIN) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
