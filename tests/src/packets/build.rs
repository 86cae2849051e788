//! Building frames: right in every field, for tests to make one wrong.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
};

use etherparse::{IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, checksum::Sum16BitWords};
use weir_common::header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};

/// MAC address of the host-side end of a pod's interface: the next hop of all that a pod sends.
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// MAC address that frames of pods come from.
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

const ETH_LEN: usize = 14;

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port, or identifier of an echo.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Ends {
    /// From a source port that no other connection of this process has.
    pub fn new(src: &str, dst: &str, dport: u16) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let sport = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 40_000;
        let address = |text: &str| text.parse().expect("an address");
        Self { src: address(src), dst: address(dst), sport, dport }
    }

    /// The same from another source port.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(&self.src.to_string(), &self.dst.to_string(), self.dport)
    }

    /// The other way round.
    #[must_use]
    pub const fn back(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }

    /// Number of this family's ICMP.
    pub const fn icmp_protocol(&self) -> u8 {
        if self.src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }
    }

    /// A frame with a TCP segment.
    pub fn tcp(&self, flags: u8) -> Vec<u8> {
        ip(self.src, self.dst, protocol::TCP, &self.tcp_segment(flags, &[], &[]))
    }

    /// A TCP segment with these options, of whole words, and data.
    pub fn tcp_segment(&self, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        segment.extend([((20 + options.len()) / 4 * 16) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(options);
        segment.extend(data);
        self.checked(protocol::TCP, segment, 16)
    }

    /// A frame with a UDP datagram.
    pub fn udp(&self, data: &[u8]) -> Vec<u8> {
        ip(self.src, self.dst, protocol::UDP, &self.udp_segment(data))
    }

    /// A UDP datagram.
    pub fn udp_segment(&self, data: &[u8]) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend((8 + data.len() as u16).to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(data);
        self.checked(protocol::UDP, segment, 6)
    }

    /// A frame with the first chunk of an SCTP association.
    pub fn sctp(&self) -> Vec<u8> {
        ip(self.src, self.dst, protocol::SCTP, &self.sctp_segment(1))
    }

    /// A frame with data of an SCTP association.
    pub fn sctp_data(&self) -> Vec<u8> {
        ip(self.src, self.dst, protocol::SCTP, &self.sctp_segment(0))
    }

    /// An SCTP packet with a chunk of type `chunk`.
    pub fn sctp_segment(&self, chunk: u8) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend([0; 8]);
        segment.extend([chunk, 0, 0, 20]);
        segment.extend([0; 16]);
        let check = crc32c(&segment);
        segment[8..12].copy_from_slice(&check.to_le_bytes());
        segment
    }

    /// A frame with an echo request whose identifier is the source port.
    pub fn echo_request(&self) -> Vec<u8> {
        self.icmp(if self.src.is_ipv4() { 8 } else { 128 }, 0, self.sport, b"ping")
    }

    /// A frame with an echo reply whose identifier is the destination port.
    pub fn echo_reply(&self) -> Vec<u8> {
        self.icmp(if self.src.is_ipv4() { 0 } else { 129 }, 0, self.dport, b"ping")
    }

    /// A frame with an ICMP message.
    pub fn icmp(&self, kind: u8, code: u8, id: u16, data: &[u8]) -> Vec<u8> {
        ip(self.src, self.dst, self.icmp_protocol(), &self.icmp_segment(kind, code, id, data))
    }

    /// An ICMP message.
    pub fn icmp_segment(&self, kind: u8, code: u8, id: u16, data: &[u8]) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let mut segment = vec![kind, code, 0, 0, high, low, 0, 0];
        segment.extend(data);
        self.checked(self.icmp_protocol(), segment, 2)
    }

    /// An ICMP error "port unreachable" that quotes a frame, its Ethernet header left out.
    pub fn unreachable(&self, quoted: &[u8]) -> Vec<u8> {
        let (kind, code) = if self.src.is_ipv4() { (3, 3) } else { (1, 4) };
        self.icmp(kind, code, 0, &quoted[ETH_LEN..])
    }

    fn ports(&self) -> Vec<u8> {
        [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat()
    }

    fn checked(&self, number: u8, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
        let check = transport_check(self.src, self.dst, number, &segment);
        segment[at..at + 2].copy_from_slice(&check.to_be_bytes());
        segment
    }
}

/// The transport checksum of a segment whose checksum field is zero.
pub fn transport_check(src: IpAddr, dst: IpAddr, number: u8, segment: &[u8]) -> u16 {
    let mut sum = Sum16BitWords::new().add_slice(segment);
    if number != protocol::ICMP {
        let octets = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        sum = sum.add_slice(&octets(src)).add_slice(&octets(dst)).add_2bytes([0, number]);
        sum = sum.add_2bytes((segment.len() as u16).to_be_bytes());
    }
    sum.ones_complement().to_be()
}

/// CRC-32c, bit by bit (RFC 9260, appendix A).
pub fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !data.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A frame from a pod to its next hop.
pub fn eth(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&NODE_MAC[..], &POD_MAC, &ethertype.to_be_bytes(), payload].concat()
}

/// A frame with an IP packet of the addresses' family.
pub fn ip(src: IpAddr, dst: IpAddr, number: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ipv4(payload, &header_v4(src.octets(), dst.octets(), number, payload.len()))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src.octets(), dst.octets(), number, payload),
        _ => panic!("{src} and {dst} are of different families"),
    }
}

/// The same with IPv4 options, of whole words.
pub fn ip_options_v4(ends: &Ends, number: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut header = header_of(ends, number, payload.len());
    header.options = Ipv4Options::try_from(options).expect("whole words, at most ten");
    header.total_len += options.len() as u16;
    ipv4(payload, &header)
}

/// An IPv4 fragment at `offset`, in bytes.
pub fn fragment_v4(ends: &Ends, number: u8, id: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let mut header = header_of(ends, number, data.len());
    header.identification = id;
    header.dont_fragment = false;
    header.more_fragments = more;
    header.fragment_offset = u16::try_from(offset / 8).unwrap().try_into().unwrap();
    ipv4(data, &header)
}

/// An IPv6 fragment at `offset`, in bytes.
pub fn fragment_v6(ends: &Ends, number: u8, id: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let field = offset as u16 | u16::from(more);
    let header = [&[number, 0][..], &field.to_be_bytes(), &[0, 0], &id.to_be_bytes()].concat();
    ip(ends.src, ends.dst, protocol::FRAGMENT, &[&header, data].concat())
}

/// A frame with an IPv6 packet that has these extension headers before its payload: each its type and its
/// bytes, of which the first names the next header and is filled in.
pub fn ip_chain_v6(ends: &Ends, chain: &[(u8, Vec<u8>)], number: u8, payload: &[u8]) -> Vec<u8> {
    let following = chain.iter().skip(1).map(|(kind, _)| *kind).chain([number]);
    let mut data = Vec::new();
    for ((_, bytes), next) in chain.iter().zip(following) {
        data.push(next);
        data.extend(&bytes[1..]);
    }
    data.extend(payload);
    ip(ends.src, ends.dst, chain.first().map_or(number, |(kind, _)| *kind), &data)
}

/// Where the transport header of a frame without options and extension headers starts.
pub fn l4_offset(frame: &[u8]) -> usize {
    if frame[ETH_LEN] >> 4 == 4 { ETH_LEN + 20 } else { ETH_LEN + 40 }
}

/// Makes the IP header say that the packet ends where the frame ends.
pub fn set_ip_len(frame: &mut [u8]) {
    let len = frame.len() - ETH_LEN;
    if frame[ETH_LEN] >> 4 == 4 {
        frame[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        mend_v4(frame);
    } else {
        frame[18..20].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    }
}

/// Mends the checksum of an IPv4 header of 20 bytes.
pub fn mend_v4(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let check = Sum16BitWords::new().add_slice(&frame[ETH_LEN..ETH_LEN + 20]).ones_complement().to_be();
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

fn header_of(ends: &Ends, number: u8, len: usize) -> Ipv4Header {
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => header_v4(src.octets(), dst.octets(), number, len),
        _ => panic!("{ends:?} are not of IPv4"),
    }
}

fn header_v4(src: [u8; 4], dst: [u8; 4], number: u8, len: usize) -> Ipv4Header {
    Ipv4Header::new(len as u16, 64, IpNumber(number), src, dst).expect("a packet fits")
}

fn ipv4(payload: &[u8], header: &Ipv4Header) -> Vec<u8> {
    let mut packet = Vec::new();
    let mut header = header.clone();
    header.header_checksum = header.calc_header_checksum();
    header.write(&mut packet).expect("a vector takes it");
    packet.extend(payload);
    eth(ETHERTYPE_IPV4, &packet)
}

fn ipv6(source: [u8; 16], destination: [u8; 16], number: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(number),
        hop_limit: 64,
        source,
        destination,
        ..Ipv6Header::default()
    };
    let mut packet = Vec::new();
    header.write(&mut packet).expect("a vector takes it");
    packet.extend(payload);
    eth(ETHERTYPE_IPV6, &packet)
}
