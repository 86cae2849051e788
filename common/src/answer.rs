//! Packets that weir makes itself, to tell a sender that its own was refused.

use crate::{
    addr::Be16,
    checksum::Sum,
    header::{Ipv4, Ipv6, protocol},
};

/// Hops that a new packet may take.
const HOPS: u8 = 64;
/// Precedence "internetwork control", which an ICMP error is to have (RFC 1812, section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
const DONT_FRAGMENT: u16 = 0x4000;

/// An IP header that is written from nothing.
pub trait NewHeader {
    /// Longest ICMP error, this header included, that gets through everywhere: what it quotes ends there
    /// (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
    const ERROR_MAX: u32;
    /// Type of destination unreachable.
    const UNREACHABLE: u8;
    /// Code of that: no one listens at the port.
    const PORT_UNREACHABLE: u8;
    /// Type and code of an error that says which length gets through (RFC 1191, RFC 8201).
    const TOO_BIG: [u8; 2];

    /// The IP protocol number of ICMP of this family.
    const ICMP: u8;

    /// Fills in all but the addresses, whose sum is given, before `len` bytes of `protocol`.
    fn begin(&mut self, protocol: u8, len: u16, addresses: Sum);
}

impl NewHeader for Ipv4 {
    const ERROR_MAX: u32 = 576;
    const UNREACHABLE: u8 = 3;
    const PORT_UNREACHABLE: u8 = 3;
    const TOO_BIG: [u8; 2] = [3, 4];
    const ICMP: u8 = protocol::ICMP;

    #[inline(always)]
    fn begin(&mut self, protocol: u8, len: u16, addresses: Sum) {
        let total = size_of::<Self>() as u16 + len;
        let tos = if protocol == Self::ICMP { INTERNETWORK_CONTROL } else { 0 };
        self.version_ihl = 0x45;
        self.tos = tos;
        self.total_len = Be16::new(total);
        // A datagram that is never fragmented needs no identification (RFC 6864).
        self.id = Be16(0);
        self.fragment = Be16::new(DONT_FRAGMENT);
        self.ttl = HOPS;
        self.protocol = protocol;
        let sum = addresses.half(u16::from_ne_bytes([0x45, tos])).half(Be16::new(total).0);
        let sum = sum.half(Be16::new(DONT_FRAGMENT).0).half(u16::from_ne_bytes([HOPS, protocol]));
        self.check = sum.check();
    }
}

impl NewHeader for Ipv6 {
    const ERROR_MAX: u32 = 1280;
    const UNREACHABLE: u8 = 1;
    const PORT_UNREACHABLE: u8 = 4;
    const TOO_BIG: [u8; 2] = [2, 0];
    const ICMP: u8 = protocol::ICMPV6;

    #[inline(always)]
    fn begin(&mut self, protocol: u8, len: u16, _: Sum) {
        self.version_class_flow = [0x60, 0, 0, 0];
        self.payload_len = Be16::new(len);
        self.next_header = protocol;
        self.hop_limit = HOPS;
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv6Header};

    use super::*;
    use crate::addr::{V4, V6};

    #[test]
    fn a_new_v4_header_is_whole() {
        let (src, dst) = (V4::from_octets([10, 96, 0, 10]), V4::from_octets([10, 244, 1, 7]));
        // SAFETY: integers only, any of which may be zero.
        let mut header: Ipv4 = unsafe { core::mem::zeroed() };
        header.begin(1, 36, Sum::new().addr(src).addr(dst));
        (header.src, header.dst) = (src, dst);
        // SAFETY: bytes of a value without padding.
        let bytes: [u8; 20] = unsafe { core::mem::transmute(header) };
        let (read, rest) = Ipv4Header::from_slice(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!((read.source, read.destination), ([10, 96, 0, 10], [10, 244, 1, 7]));
        assert_eq!((read.total_len, read.protocol.0, read.time_to_live), (56, 1, 64));
        assert!(read.dont_fragment && !read.is_fragmenting_payload());
        assert_eq!(read.header_checksum, read.calc_header_checksum());
    }

    #[test]
    fn a_new_v6_header_is_whole() {
        // SAFETY: as above.
        let mut header: Ipv6 = unsafe { core::mem::zeroed() };
        header.begin(58, 56, Sum::new());
        header.src = V6::from_octets([7; 16]);
        // SAFETY: as above.
        let bytes: [u8; 40] = unsafe { core::mem::transmute(header) };
        let (read, _) = Ipv6Header::from_slice(&bytes).unwrap();
        assert_eq!((read.payload_length, read.next_header.0, read.hop_limit), (56, 58, 64));
        assert_eq!((read.source, read.traffic_class, read.flow_label.value()), ([7; 16], 0, 0));
    }
}
