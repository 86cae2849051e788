//! What IPv4 and IPv6 headers have in common.

use super::{Ipv4, Ipv6, protocol};
use crate::{
    addr::{Addr, Be16, V4, V6},
    checksum::{Change, fold},
};

/// An IP header that holds addresses of type `A`, as far as the generic pipeline needs it.
pub trait IpHeader<A: Addr>: Copy {
    /// The protocol of what follows, if that is a transport header right behind this one: no options, no
    /// extension headers, not a later fragment.
    fn transport(&self) -> Option<u8>;

    /// Source and destination, which lie side by side.
    fn addresses(&mut self) -> *mut [A; 2];

    /// Mends the header's own checksum after the `change` to its addresses. Returns all of the change, for
    /// a checksum that covers this header.
    fn mend(&mut self, change: Change) -> Change;

    /// Takes one off the hop limit, as a router does. The caller has seen that it is over 1.
    fn take_hop(&mut self);

    /// Whether it is of a fragment, whose header says so itself.
    fn is_fragment(&self) -> bool;

    /// Length of the packet, with this header; an IPv4 packet of segmentation offload may have none.
    fn packet_len(&self) -> u16;

    /// Class of service: the upper six bits are the DSCP.
    fn class(&self) -> u8;

    /// Makes it the header of a tunnel around a packet of `len` bytes and of the class `class`: all but the
    /// addresses, and what [`seal`](Self::seal) does.
    ///
    /// The packet's DSCP goes on and its ECN does not (the compatibility mode of RFC 6040), so that whoever
    /// takes the header off has nothing to carry back. A tunnel's packet is never fragmented.
    fn wrap(&mut self, class: u8, len: u16);

    /// Sums the header up, once its addresses are there.
    fn seal(&mut self);
}

/// Hop limit of a tunnel's packets: what Linux gives to its own.
const TUNNEL_HOPS: u8 = 64;
/// The DSCP of a class of service.
const DSCP: u8 = 0xfc;

impl IpHeader<V4> for Ipv4 {
    #[inline(always)]
    fn transport(&self) -> Option<u8> {
        let is_later = self.fragment.get() & 0x1fff != 0;
        if self.version_ihl == 0x45 && !is_later { Some(self.protocol) } else { None }
    }

    #[inline(always)]
    fn addresses(&mut self) -> *mut [V4; 2] {
        (&raw mut self.src).cast()
    }

    #[inline(always)]
    fn mend(&mut self, change: Change) -> Change {
        let old = self.check;
        self.check = change.apply(old);
        change.half(old.0, self.check.0)
    }

    #[inline(always)]
    fn take_hop(&mut self) {
        // It is the first byte of a word whose second byte stays.
        let old = u16::from_ne_bytes([self.ttl, 0]);
        self.ttl -= 1;
        self.check = Change::new().half(old, u16::from_ne_bytes([self.ttl, 0])).apply(self.check);
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        self.fragment.get() & 0x3fff != 0
    }

    #[inline(always)]
    fn packet_len(&self) -> u16 {
        self.total_len.get()
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.tos
    }

    #[inline(always)]
    fn wrap(&mut self, class: u8, len: u16) {
        self.version_ihl = 0x45;
        self.tos = class & DSCP;
        self.total_len = Be16::new(len.wrapping_add(size_of::<Self>() as u16));
        // One that is never fragmented needs no identification (RFC 6864).
        self.id = Be16(0);
        self.fragment = Be16::new(0x4000);
        self.ttl = TUNNEL_HOPS;
        self.protocol = protocol::IPV4;
    }

    #[inline(always)]
    fn seal(&mut self) {
        let half = |first, second| u64::from(u16::from_ne_bytes([first, second]));
        let sum = half(self.version_ihl, self.tos)
            + u64::from(self.total_len.0)
            + u64::from(self.id.0)
            + u64::from(self.fragment.0)
            + half(self.ttl, self.protocol)
            + u64::from(self.src.0)
            + u64::from(self.dst.0);
        self.check = Be16(!fold(sum));
    }
}

impl IpHeader<V6> for Ipv6 {
    #[inline(always)]
    fn transport(&self) -> Option<u8> {
        if self.version_class_flow[0] >> 4 == 6 { Some(self.next_header) } else { None }
    }

    #[inline(always)]
    fn addresses(&mut self) -> *mut [V6; 2] {
        (&raw mut self.src).cast()
    }

    /// It has none.
    #[inline(always)]
    fn mend(&mut self, change: Change) -> Change {
        change
    }

    #[inline(always)]
    fn take_hop(&mut self) {
        self.hop_limit -= 1;
    }

    /// An extension header says so.
    #[inline(always)]
    fn is_fragment(&self) -> bool {
        false
    }

    #[inline(always)]
    fn packet_len(&self) -> u16 {
        self.payload_len.get().wrapping_add(size_of::<Self>() as u16)
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.version_class_flow[0] << 4 | self.version_class_flow[1] >> 4
    }

    #[inline(always)]
    fn wrap(&mut self, class: u8, len: u16) {
        let class = class & DSCP;
        self.version_class_flow = [0x60 | class >> 4, class << 4, 0, 0];
        self.payload_len = Be16::new(len);
        self.next_header = protocol::IPV6;
        self.hop_limit = TUNNEL_HOPS;
    }

    /// It has no checksum.
    #[inline(always)]
    fn seal(&mut self) {}
}

#[cfg(test)]
mod tests {
    use etherparse::Ipv4Header;
    use proptest::prelude::*;

    use super::*;
    use crate::plain::bytes_of;

    crate::plain!(Ipv4: 20, Ipv6: 40);

    proptest! {
        #[test]
        fn a_tunnel_header_is_one_that_others_read(class: u8, len in 20..60_000_u16, src: [u8; 4], dst: [u8; 4]) {
            let mut header: Ipv4 = crate::plain::from_bytes(&[0xff; 20]).unwrap();
            header.wrap(class, len);
            header.src = V4::from_octets(src);
            header.dst = V4::from_octets(dst);
            header.seal();
            let (read, rest) = Ipv4Header::from_slice(bytes_of(&header)).unwrap();
            prop_assert_eq!((read.source, read.destination, rest.len()), (src, dst, 0));
            prop_assert_eq!((read.total_len, read.time_to_live, read.protocol.0), (len + 20, 64, 4));
            prop_assert_eq!((read.dscp.value(), read.ecn.value()), (class >> 2, 0));
            prop_assert!(read.dont_fragment && !read.more_fragments);
            prop_assert_eq!(read.header_checksum, read.calc_header_checksum());
        }

        #[test]
        fn the_class_of_service_goes_into_a_tunnel_header(class: u8, len: u16) {
            let mut header: Ipv6 = crate::plain::from_bytes(&[0xff; 40]).unwrap();
            header.wrap(class, len);
            let (read, _) = etherparse::Ipv6Header::from_slice(bytes_of(&header)).unwrap();
            prop_assert_eq!((read.payload_length, read.next_header.0, read.hop_limit), (len, 41, 64));
            prop_assert_eq!((read.traffic_class, read.flow_label.value()), (class & 0xfc, 0));
            prop_assert_eq!(header.class(), class & 0xfc);
        }
    }
}
