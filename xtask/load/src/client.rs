//! The clients that wait for answers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpStream, UdpSocket},
};

use crate::{LAST, MESSAGE, MORE};

/// An operation that takes longer has failed.
const PATIENCE: Duration = Duration::from_millis(500);

/// What an operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Connect, ask, read the answer and the end.
    Connect,
    /// Ask on a connection that is there, and read the answer.
    Request,
    /// Open a UDP socket, ask, and read the answer.
    Datagram,
}

/// Keeps so many operations under way, and prints what came of them.
pub(crate) fn run(mode: Mode, targets: &[SocketAddr], sockets: usize, time: Duration) -> Result<()> {
    let mut client = Client {
        mode,
        targets,
        poll: Poll::new()?,
        opened: 0,
        latencies: Vec::with_capacity(1 << 20),
        failures: 0,
    };
    let mut sessions: Vec<_> = (0..sockets).map(|id| client.open(id)).collect();
    let mut events = Events::with_capacity(256);
    let (start, mut looked) = (Instant::now(), Instant::now());
    while start.elapsed() < time {
        client.poll.poll(&mut events, Some(Duration::from_millis(50)))?;
        for event in &events {
            let Token(id) = event.token();
            let end = match &mut sessions[id] {
                Some(session) => client.advance(session),
                None => continue,
            };
            if end {
                sessions[id] = client.open(id);
            }
        }
        if looked.elapsed() > PATIENCE / 4 {
            looked = Instant::now();
            for (id, session) in sessions.iter_mut().enumerate() {
                if session.as_ref().is_none_or(|session| session.since.elapsed() > PATIENCE) {
                    client.failures += usize::from(session.is_some());
                    *session = client.open(id);
                }
            }
        }
    }
    client.report(start.elapsed());
    Ok(())
}

struct Client<'a> {
    mode: Mode,
    targets: &'a [SocketAddr],
    poll: Poll,
    opened: usize,
    latencies: Vec<f32>,
    failures: usize,
}

struct Session {
    socket: Socket,
    since: Instant,
    has_asked: bool,
    has_answer: bool,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Client<'_> {
    /// Opens a socket; `None` where that is refused.
    fn open(&mut self, id: usize) -> Option<Session> {
        let target = self.targets[self.opened % self.targets.len()];
        self.opened += 1;
        let since = Instant::now();
        let opened = match self.mode {
            Mode::Datagram => self.open_udp(id, target),
            Mode::Connect | Mode::Request => self.open_tcp(id, target),
        };
        match opened {
            Ok(socket) => Some(Session { socket, since, has_asked: false, has_answer: false }),
            Err(_) => {
                self.failures += 1;
                None
            }
        }
    }

    fn open_tcp(&self, id: usize, target: SocketAddr) -> std::io::Result<Socket> {
        let mut stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Socket::Tcp(stream))
    }

    fn open_udp(&self, id: usize, target: SocketAddr) -> std::io::Result<Socket> {
        let mut socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.connect(target)?;
        self.poll.registry().register(&mut socket, Token(id), Interest::READABLE)?;
        socket.send(&[MORE; MESSAGE])?;
        Ok(Socket::Udp(socket))
    }

    /// Goes on with a session as far as it goes; true when another one is to take its place.
    fn advance(&mut self, session: &mut Session) -> bool {
        match self.step(session) {
            Ok(end) => end,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => false,
            Err(_) => {
                self.failures += 1;
                true
            }
        }
    }

    fn step(&mut self, session: &mut Session) -> std::io::Result<bool> {
        let mut answer = [0; MESSAGE];
        let stream = match &mut session.socket {
            Socket::Udp(socket) => {
                socket.recv(&mut answer)?;
                self.done(session);
                return Ok(true);
            }
            Socket::Tcp(stream) => stream,
        };
        let last = self.mode == Mode::Connect;
        let request = [if last { LAST } else { MORE }; MESSAGE];
        if !session.has_asked {
            stream.write_all(&request)?;
            session.has_asked = true;
        }
        loop {
            match stream.read(&mut answer)? {
                0 if last && session.has_answer => {
                    self.done(session);
                    return Ok(true);
                }
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                _ if last => session.has_answer = true,
                _ => {
                    self.latencies.push(session.since.elapsed().as_secs_f32());
                    session.since = Instant::now();
                    stream.write_all(&request)?;
                    // Nothing can be there yet: the servers run on this CPU.
                    return Ok(false);
                }
            }
        }
    }

    fn done(&mut self, session: &Session) {
        self.latencies.push(session.since.elapsed().as_secs_f32());
    }

    fn report(mut self, time: Duration) {
        self.latencies.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(index).copied().unwrap_or_default() * 1e6
        };
        let rate = self.latencies.len() as f64 / time.as_secs_f64();
        println!("{rate:.1} {} {:.1} {:.1}", self.failures, at(0.5), at(0.99));
    }
}
