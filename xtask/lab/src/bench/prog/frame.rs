//! The frames that programs are measured on: TCP over IPv4, 64 bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

use weir_common::header::{ETHERTYPE_IPV4, protocol, tcp_flags};

/// Bytes of a frame, as the feeder wants them.
pub(super) const LEN: usize = 64;
/// A frame.
pub(super) type Frame = [u8; LEN];

/// What a segment says.
pub(super) const SYN: u8 = tcp_flags::SYN;
/// What the answer to it says.
pub(super) const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;
/// What all others say.
pub(super) const ACK: u8 = tcp_flags::ACK;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1];

/// Who speaks to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Source.
    pub(super) from: SocketAddrV4,
    /// Destination.
    pub(super) to: SocketAddrV4,
}

impl Flow {
    /// The other way round.
    pub(super) const fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }

    /// A segment with these flags and ten bytes.
    pub(super) fn frame(self, flags: u8) -> Frame {
        let mut frame = [0; LEN];
        frame[..12].copy_from_slice(&MACS);
        frame[12..ETHERNET].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        let (ip, tcp) = frame[ETHERNET..].split_at_mut(IPV4);
        let [from, to] = [self.from.ip(), self.to.ip()].map(Ipv4Addr::octets);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((LEN - ETHERNET) as u16).to_be_bytes());
        ip[6] = 0x40;
        (ip[8], ip[9]) = (64, protocol::TCP);
        ip[12..16].copy_from_slice(&from);
        ip[16..20].copy_from_slice(&to);
        let check = checksum(0, ip);
        ip[10..12].copy_from_slice(&check);
        tcp[..2].copy_from_slice(&self.from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        (tcp[12], tcp[13], tcp[14]) = (0x50, flags, 0xff);
        let pseudo = words(&from) + words(&to) + u32::from(protocol::TCP) + tcp.len() as u32;
        let check = checksum(pseudo, tcp);
        tcp[16..18].copy_from_slice(&check);
        frame
    }
}

fn checksum(start: u32, bytes: &[u8]) -> [u8; 2] {
    let mut sum = start + words(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_valid_checksums() {
        let flow = Flow { from: "10.0.0.1:1024".parse().unwrap(), to: "10.96.0.1:80".parse().unwrap() };
        let frame = flow.frame(ACK);
        assert_eq!(checksum(0, &frame[14..34]), [0, 0]);
        let pseudo = words(&frame[26..34]) + 6 + 30;
        assert_eq!(checksum(pseudo, &frame[34..]), [0, 0]);
    }
}
