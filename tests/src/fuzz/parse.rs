//! What a frame says, and what is wrong with it: read byte by byte from the RFCs, sharing nothing with the
//! programs but the names of the reasons.

use std::net::IpAddr;

use weir_common::reason::Reason;

/// Length of an Ethernet header.
pub const ETH: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP, UDP or SCTP, or a later fragment of ICMP.
    Data,
    /// An echo request.
    EchoRequest,
    /// An echo reply.
    EchoReply,
    /// An ICMP error.
    Error,
    /// Neighbour discovery.
    Neighbour,
}

/// Which part of a datagram a fragment is, in bytes of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification.
    pub id: u32,
    /// Where it starts.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// A packet that is well formed.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port; identifier of an echo request; 0 in a later fragment.
    pub sport: u16,
    /// Destination port; identifier of an echo reply; 0 in a later fragment.
    pub dport: u16,
    /// Transport protocol.
    pub protocol: u8,
    /// What it is.
    pub kind: Kind,
    /// Where the transport header starts in the frame.
    pub l4: usize,
    /// Where the packet ends in the frame; padding follows.
    pub end: usize,
    /// TCP flags.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// For a fragment.
    pub piece: Option<Piece>,
}

impl Packet {
    /// Whether it is a fragment that has no transport header.
    pub fn is_later(&self) -> bool {
        self.piece.is_some_and(|piece| piece.start > 0)
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    /// ARP.
    Arp,
    /// An IP packet.
    Ip(Packet),
}

/// Reads a frame.
///
/// # Errors
/// What is wrong with it.
pub fn parse(frame: &[u8]) -> Result<Frame, Reason> {
    match be16(frame, 12) {
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => Err(Reason::VlanFiltered),
        0x0800 => ipv4(frame).map(Frame::Ip),
        0x86dd => ipv6(frame).map(Frame::Ip),
        0x0806 => Ok(Frame::Arp),
        _ => Err(Reason::UnsupportedL2),
    }
}

/// A 16-bit number in network order.
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

fn ipv4(frame: &[u8]) -> Result<Packet, Reason> {
    let ip = frame.get(ETH..).filter(|ip| ip.len() >= 20).ok_or(Reason::InvalidPacket)?;
    let header_len = usize::from(ip[0] & 15) * 4;
    if ip[0] >> 4 != 4 || header_len < 20 {
        return Err(Reason::InvalidPacket);
    }
    options(ip, header_len)?;
    let total = usize::from(be16(ip, 2));
    if total < header_len || total > ip.len() {
        return Err(Reason::InvalidPacket);
    }
    let field = be16(ip, 6);
    if field & 0x8000 != 0 {
        return Err(Reason::InvalidPacket);
    }
    let start = usize::from(field & 0x1fff) * 8;
    let is_fragment = field & 0x3fff != 0;
    let piece =
        is_fragment.then_some(Piece { id: be16(ip, 4).into(), start, end: start + total - header_len });
    let packet = Packet {
        src: IpAddr::from(array::<4>(ip, 12)),
        dst: IpAddr::from(array::<4>(ip, 16)),
        sport: 0,
        dport: 0,
        protocol: ip[9],
        kind: Kind::Data,
        l4: ETH + header_len,
        end: ETH + total,
        tcp_flags: 0,
        icmp_type: 0,
        hops: ip[8],
        piece,
    };
    transport(frame, packet)
}

/// At most 16 options, each whole, none a source route; they fill the header or are ended.
fn options(ip: &[u8], header_len: usize) -> Result<(), Reason> {
    let mut at = 20;
    for _ in 0..16 {
        if at >= header_len {
            break;
        }
        if at + 2 > ip.len() {
            return Err(Reason::InvalidPacket);
        }
        match (ip[at], usize::from(ip[at + 1])) {
            (0, _) => return Ok(()),
            (1, _) => at += 1,
            (131 | 137, _) | (_, 0 | 1) => return Err(Reason::InvalidIpOption),
            (_, len) => at += len,
        }
    }
    if at == header_len { Ok(()) } else { Err(Reason::InvalidIpOption) }
}

fn ipv6(frame: &[u8]) -> Result<Packet, Reason> {
    let ip = frame.get(ETH..).filter(|ip| ip.len() >= 40).ok_or(Reason::InvalidPacket)?;
    let payload = usize::from(be16(ip, 4));
    if ip[0] >> 4 != 6 || payload > ip.len() - 40 {
        return Err(Reason::InvalidPacket);
    }
    let mut packet = Packet {
        src: IpAddr::from(array::<16>(ip, 8)),
        dst: IpAddr::from(array::<16>(ip, 24)),
        sport: 0,
        dport: 0,
        protocol: ip[6],
        kind: Kind::Data,
        l4: ETH + 40,
        end: ETH + 40 + payload,
        tcp_flags: 0,
        icmp_type: 0,
        hops: ip[7],
        piece: None,
    };
    extensions(frame, &mut packet)?;
    if let Some(piece) = &mut packet.piece {
        piece.end = piece.start + packet.end - packet.l4;
    }
    transport(frame, packet)
}

/// At most six: hop-by-hop options first, destination options anywhere, a fragment header last.
fn extensions(frame: &[u8], packet: &mut Packet) -> Result<(), Reason> {
    let is_transport = |next| matches!(next, TCP | UDP | SCTP | 58);
    for position in 0..7 {
        if is_transport(packet.protocol) {
            return Ok(());
        }
        let header = frame.get(packet.l4..packet.l4 + 8).filter(|_| position < 6);
        let header = header.ok_or(Reason::InvalidExtensionHeader)?;
        match packet.protocol {
            0 if position == 0 => packet.l4 += 8 + usize::from(header[1]) * 8,
            60 => packet.l4 += 8 + usize::from(header[1]) * 8,
            44 => {
                packet.l4 += 8;
                let field = be16(header, 2);
                let start = usize::from(field & 0xfff8);
                packet.piece = (field & 0xfff9 != 0).then_some(Piece {
                    id: u32::from_be_bytes(array(header, 4)),
                    start,
                    end: start,
                });
                if !is_transport(header[0]) {
                    return Err(Reason::InvalidExtensionHeader);
                }
            }
            _ => return Err(Reason::InvalidExtensionHeader),
        }
        if packet.l4 > packet.end {
            return Err(Reason::InvalidPacket);
        }
        packet.protocol = header[0];
    }
    unreachable!("the seventh round returns")
}

fn transport(frame: &[u8], mut packet: Packet) -> Result<Packet, Reason> {
    let is_v4 = packet.src.is_ipv4();
    let need = match packet.protocol {
        TCP => 20,
        UDP => 8,
        SCTP => 12,
        1 if is_v4 => 8,
        58 if !is_v4 => 8,
        _ => return Err(Reason::UnsupportedL4),
    };
    if packet.is_later() {
        return Ok(packet);
    }
    let too_short = if packet.piece.is_some() { Reason::FragmentTooShort } else { Reason::InvalidPacket };
    let segment = &frame[packet.l4..packet.end];
    if segment.len() < need {
        return Err(too_short);
    }
    match packet.protocol {
        TCP => {
            let header_len = usize::from(segment[12] >> 4) * 4;
            if header_len < 20 {
                return Err(Reason::InvalidPacket);
            }
            if header_len > segment.len() {
                return Err(too_short);
            }
            packet.tcp_flags = segment[13];
            if !is_possible(segment[13]) {
                return Err(Reason::InvalidTcpFlags);
            }
        }
        UDP => {
            let len = usize::from(be16(segment, 4));
            if packet.piece.is_none() && (len < 8 || len > segment.len()) {
                return Err(Reason::InvalidPacket);
            }
        }
        SCTP => {}
        _ => return icmp(segment, packet),
    }
    packet.sport = be16(segment, 0);
    packet.dport = be16(segment, 2);
    Ok(packet)
}

/// Of FIN, SYN, RST and ACK: what a TCP may send (RFC 9293).
fn is_possible(flags: u8) -> bool {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    match flags & (FIN | SYN | RST | ACK) {
        SYN | RST | ACK => true,
        both => both == SYN | ACK || both == RST | ACK || both == FIN | ACK,
    }
}

fn icmp(segment: &[u8], mut packet: Packet) -> Result<Packet, Reason> {
    packet.icmp_type = segment[0];
    let id = be16(segment, 4);
    let is_whole = packet.piece.is_none();
    packet.kind = match (packet.src.is_ipv4(), segment[0]) {
        (true, 8) | (false, 128) => Kind::EchoRequest,
        (true, 0) | (false, 129) => Kind::EchoReply,
        (true, 3 | 11 | 12) | (false, 1..=4) if is_whole => Kind::Error,
        (false, 133..=136) if is_whole => Kind::Neighbour,
        _ => return Err(Reason::IcmpUnsupported),
    };
    match packet.kind {
        Kind::EchoRequest => packet.sport = id,
        Kind::EchoReply => packet.dport = id,
        _ => {}
    }
    Ok(packet)
}
