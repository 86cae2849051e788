//! The node's own clients: sockets, one connection at a time.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
        sockopt::{Linger, ReuseAddr, SocketError},
    },
};
use weir_common::{header::tcp_flags, policy::Protocol};

use super::{
    QUIET, Running,
    attempt::{Place, checked},
    probe::{flags, is, syn_ack},
    tap::Heard,
};
use crate::{
    conformance::service::testbed::Fate,
    live::netns,
    packets::{Ends, read_tuple},
};

/// Opens a connection from a node, with a backend that answers, and takes it down again.
pub(super) fn open(running: &Running, node: &str, protocol: Protocol, ends: &Ends) -> Result<Fate> {
    if protocol != Protocol::Tcp {
        bail!("the node's own clients speak TCP here, not {protocol:?}");
    }
    let node = running.network.node(node)?;
    running.tap.flush()?;
    let socket = match netns::within(&node.netns, || begin(ends))? {
        Ok(socket) => socket,
        Err(error) => return Ok(refused(error, node.addresses.contains(&ends.dst))),
    };
    let mut backend: Option<(Place, Ends, Fate)> = None;
    let mut is_open = false;
    running.tap.listen(QUIET, |seen| {
        let end = running.network.pods.iter().find(|end| end.name == seen.interface);
        let (Some(end), false, true) = (end, seen.is_outgoing, is(&seen.frame, Protocol::Tcp)) else {
            return Ok(Heard::Noise);
        };
        let (tuple, flags) = (read_tuple(&seen.frame), flags(&seen.frame));
        match &backend {
            None if flags == tcp_flags::SYN && end.addresses.contains(&tuple.dst) => {
                let place = Place { interface: end.name.clone(), mac: end.mac, next_hop: end.next_hop };
                running.send(&place, &syn_ack(&seen.frame))?;
                let fate = Fate::Dnat {
                    backend: SocketAddr::new(tuple.dst, tuple.dport),
                    source: SocketAddr::new(tuple.src, tuple.sport),
                };
                backend = Some((place, tuple, checked(&seen.frame, fate)));
                Ok(Heard::More)
            }
            Some((place, first, _)) if flags == tcp_flags::ACK && tuple == *first => {
                is_open = place.interface == end.name;
                Ok(Heard::Last)
            }
            _ => Ok(Heard::Noise),
        }
    })?;
    let error = Errno::from_raw(getsockopt(&socket, SocketError)?);
    Ok(match backend {
        None if error == Errno::UnknownErrno => Fate::Drop("silence".to_owned()),
        None => refused(error, node.addresses.contains(&ends.dst)),
        Some((_, _, fate)) if is_open => fate,
        Some((_, _, fate)) => Fate::Wrong(format!("{fate:?}, but the answer does not come back: {error}")),
    })
}

/// A socket that has asked for a connection. Its end is a reset: nothing of it is left to be sent.
fn begin(ends: &Ends) -> Result<Result<OwnedFd, Errno>> {
    let family = if ends.src.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let address = |ip: IpAddr, port| SockaddrStorage::from(SocketAddr::new(ip, port));
    bind(socket.as_raw_fd(), &address(ends.src, ends.sport))?;
    Ok(match connect(socket.as_raw_fd(), &address(ends.dst, ends.dport)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    })
}

/// A refusal is a service's, unless it is the node's own, which nobody listens on.
fn refused(error: Errno, to_itself: bool) -> Fate {
    match error {
        Errno::ECONNREFUSED if to_itself => Fate::Pass,
        Errno::ECONNREFUSED => Fate::Reject,
        error => Fate::Wrong(error.to_string()),
    }
}
