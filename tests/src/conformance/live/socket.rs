//! Sockets in network namespaces. SCTP, of which a kernel may have none, is spoken by hand.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::atomic::{AtomicU16, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};
use weir_common::header::protocol;

/// The SCTP chunks INIT and INIT ACK.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Ports, verification tag and checksum, and a chunk INIT without parameters.
const SCTP_INIT: usize = 12 + 20;
const IPV4_HEADER: usize = 20;

/// A socket in the namespace of this thread that does not block.
pub(super) fn bind(number: u8, local: SocketAddr) -> io::Result<Socket> {
    let (kind, number) = match number {
        protocol::TCP => (Type::STREAM, Protocol::TCP),
        protocol::UDP => (Type::DGRAM, Protocol::UDP),
        _ => (Type::from(nix::libc::SOCK_RAW), Protocol::from(i32::from(number))),
    };
    let socket = Socket::new(Domain::for_address(local), kind, Some(number))?;
    socket.set_nonblocking(true)?;
    if kind == Type::from(nix::libc::SOCK_RAW) {
        socket.bind(&SocketAddr::new(local.ip(), 0).into())?;
    } else {
        socket.bind(&local.into())?;
    }
    Ok(socket)
}

/// The client's side of a connection.
pub(super) struct Client {
    socket: Socket,
    /// IP protocol number.
    pub(super) protocol: u8,
    /// Where it comes from.
    pub(super) local: SocketAddr,
    remote: SocketAddr,
}

impl Client {
    /// Opens a connection. A port of 0 stands for any.
    pub(super) fn open(number: u8, from: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        let socket = bind(number, from)?;
        let is_raw = number == protocol::SCTP;
        let port = if is_raw { 0 } else { remote.port() };
        match socket.connect(&SocketAddr::new(remote.ip(), port).into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut local = from;
        if !is_raw {
            local = socket.local_addr()?.as_socket().unwrap_or(from);
        } else if from.port() == 0 {
            local.set_port(next_port());
        }
        let client = Self { socket, protocol: number, local, remote };
        client.ask()?;
        Ok(client)
    }

    /// Sends the question (again); TCP does that by itself.
    pub(super) fn ask(&self) -> io::Result<()> {
        match self.protocol {
            protocol::TCP => Ok(()),
            protocol::UDP => (&self.socket).write_all(b"who?"),
            _ => (&self.socket).write_all(&sctp(self.local.port(), self.remote.port(), INIT, b"")),
        }
    }

    /// The server's name, once it has come.
    pub(super) fn answer(&self) -> io::Result<Option<String>> {
        let mut buffer = [0; 256];
        loop {
            let length = match (&self.socket).read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if is_pending(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let said = match self.protocol {
                protocol::SCTP => init(&buffer[..length], self.local.is_ipv4(), INIT_ACK)
                    .filter(|(ports, _)| *ports == (self.remote.port(), self.local.port()))
                    .map(|(_, name)| name),
                _ => Some(&buffer[..length]),
            };
            if let Some(name) = said {
                return Ok(Some(String::from_utf8_lossy(name).into_owned()));
            }
        }
    }
}

/// What a server whose name is `name` says to a datagram, or an SCTP packet, that came to `local`.
pub(super) fn reply(number: u8, question: &[u8], local: SocketAddr, name: &str) -> Option<Vec<u8>> {
    if number == protocol::UDP {
        return Some(name.as_bytes().to_vec());
    }
    let ((sport, dport), _) = init(question, local.is_ipv4(), INIT)?;
    (dport == local.port()).then(|| sctp(dport, sport, INIT_ACK, name.as_bytes()))
}

fn sctp(sport: u16, dport: u16, chunk: u8, name: &[u8]) -> Vec<u8> {
    let mut packet = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([chunk, 0, 0, (SCTP_INIT - 12) as u8]);
    packet.resize(SCTP_INIT, 0);
    packet.extend(name);
    packet
}

/// Ports of an SCTP packet with this chunk, and what follows the chunk. IPv4 shows its header to raw sockets.
fn init(packet: &[u8], is_ipv4: bool, chunk: u8) -> Option<((u16, u16), &[u8])> {
    let packet = if is_ipv4 { packet.get(IPV4_HEADER..)? } else { packet };
    let (init, name) = packet.split_at_checked(SCTP_INIT)?;
    let port = |at: usize| u16::from_be_bytes([init[at], init[at + 1]]);
    (init[12] == chunk).then(|| ((port(0), port(2)), name))
}

fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// A port that was not used for long.
pub(super) fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 40_000
}
