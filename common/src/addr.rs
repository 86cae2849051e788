//! Addresses, ports and address families, in network byte order.

use crate::plain;

/// A 16-bit number in network byte order, as it stands in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Be16(pub u16);

impl Be16 {
    /// From host byte order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// In host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv4 address: four bytes in network order, handled as one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V4(pub u32);

/// An IPv6 address: sixteen bytes in network order, handled as four words.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "the same equality, see below")]
pub struct V6(pub [u32; 4]);

// Written out without branches: LLVM makes a memcmp of the derived one, expands that to 128-bit loads, and
// raises the alignment of stack slots to 16 for them, which its BPF backend then cannot copy (LLVM 22 crashes).
impl PartialEq for V6 {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        differing(self.0, other.0) == 0
    }
}

/// Nonzero when two addresses differ.
#[inline(always)]
pub const fn differing(a: [u32; 4], b: [u32; 4]) -> u32 {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])
}

plain!(Be16: 2, V4: 4, V6: 16);

impl V4 {
    /// From the four bytes as they stand in a packet.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The four bytes as they stand in a packet.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl V6 {
    /// From the sixteen bytes as they stand in a packet.
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// The sixteen bytes as they stand in a packet.
    pub fn octets(self) -> [u8; 16] {
        let mut out = [0; 16];
        for (chunk, word) in out.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

/// An address of either family, as the generic pipeline sees it.
pub trait Addr: Copy + Eq + Default + plain::Plain {
    /// Number of 32-bit words.
    const WORDS: usize;

    /// The address word by word, zero-filled to four words.
    fn words(self) -> [u32; 4];

    /// Whether no unicast packet between pods, nodes and the outside may carry this address as source or
    /// destination: "this network", loopback, link-local, multicast, reserved, broadcast, and for IPv6
    /// also the unspecified address and the IPv4-mapped and IPv4-compatible ranges (RFC 6890, RFC 4291).
    fn is_martian(self) -> bool;
}

impl Addr for V4 {
    const WORDS: usize = 1;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn is_martian(self) -> bool {
        let host = u32::from_be(self.0);
        let first = host >> 24;
        // 224/4 and 240/4, the broadcast address included, are everything from 224 up.
        first == 0 || first == 127 || first >= 224 || host >> 16 == 0xa9fe
    }
}

impl Addr for V6 {
    const WORDS: usize = 4;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn is_martian(self) -> bool {
        let first = u32::from_be(self.0[0]);
        // ff00::/8, fe80::/10, and ::/64 with what follows at or below ::ffff:0:0/96 (::, ::1, mapped, compatible).
        first >> 24 == 0xff
            || first >> 22 == 0xfe80 >> 6
            || (first == 0 && self.0[1] == 0 && (self.0[2] == 0 || self.0[2] == 0xffff_u32.to_be()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(text: &str) -> V4 {
        V4::from_octets(text.parse::<Ipv4Addr>().unwrap().octets())
    }

    fn v6(text: &str) -> V6 {
        V6::from_octets(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn martian_v4_sources_are_known() {
        for martian in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(v4(martian).is_martian(), "{martian}");
        }
        for legal in [
            "1.0.0.1",
            "10.244.1.7",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "169.255.0.1",
            "223.255.255.255",
        ] {
            assert!(!v4(legal).is_martian(), "{legal}");
        }
    }

    #[test]
    fn martian_v6_sources_are_known() {
        for martian in ["::", "::1", "::ffff:10.0.0.1", "::10.0.0.1", "fe80::1", "febf::1", "ff02::1"] {
            assert!(v6(martian).is_martian(), "{martian}");
        }
        for legal in ["fd00:10:244:1::a", "2001:db8::1", "64:ff9b::1", "fec0::1", "0:1::1"] {
            assert!(!v6(legal).is_martian(), "{legal}");
        }
    }

    #[test]
    fn octets_round_trip() {
        assert_eq!(v4("10.1.2.3").octets(), [10, 1, 2, 3]);
        let address: Ipv6Addr = "2001:db8::42".parse().unwrap();
        assert_eq!(V6::from_octets(address.octets()).octets(), address.octets());
        assert_eq!(Be16::new(80).get(), 80);
    }
}
