//! Incremental Internet checksums (RFC 1071, RFC 1624).
//!
//! All words are taken as they lie in memory: the ones' complement sum does not depend on byte order as
//! long as every word is taken alike (RFC 1071, section 2(B)).

use crate::addr::{Addr, Be16};

/// A change to data that a checksum covers: what was taken out and what was put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u64);

impl Change {
    /// No change.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit word at an even offset was replaced.
    #[inline(always)]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// A 32-bit word at an even offset was replaced.
    #[inline(always)]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// An address was replaced.
    #[inline(always)]
    pub fn addr<A: Addr>(self, old: A, new: A) -> Self {
        let (old, new) = (old.words(), new.words());
        let mut change = self;
        let mut word = 0;
        while word < A::WORDS {
            change = change.word(old[word], new[word]);
            word += 1;
        }
        change
    }

    /// A port was replaced.
    #[inline(always)]
    pub const fn port(self, old: Be16, new: Be16) -> Self {
        self.half(old.0, new.0)
    }

    /// Both changes as one.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Whether neither a checksum nor a sum that is not complemented shows the change.
    #[inline(always)]
    pub const fn is_silent(self) -> bool {
        matches!(fold(self.0), 0 | u16::MAX)
    }

    /// The sum of the change, folded to the 32 bits that the kernel's checksum helpers take.
    #[inline(always)]
    pub const fn folded32(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The checksum field after the change, from the field before it (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn apply(self, check: Be16) -> Be16 {
        Be16(!fold(self.0 + (!check.0) as u64))
    }
}

/// The sum of data that a checksum is to cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Of no data.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// With a 16-bit word at an even offset.
    #[inline(always)]
    pub const fn half(self, half: u16) -> Self {
        Self(self.0 + half as u64)
    }

    /// With 32-bit words at even offsets, or with their sum.
    #[inline(always)]
    pub const fn word(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// With an address.
    #[inline(always)]
    pub fn addr<A: Addr>(self, addr: A) -> Self {
        let words = addr.words();
        let mut sum = self;
        let mut word = 0;
        while word < A::WORDS {
            sum = sum.word(words[word]);
            word += 1;
        }
        sum
    }

    /// With what a transport checksum covers beside its own data: the pseudo-header, but for the addresses.
    #[inline(always)]
    pub const fn pseudo(self, protocol: u8, len: u16) -> Self {
        self.half(Be16::new(protocol as u16).0).half(Be16::new(len).0)
    }

    /// The sum, folded to 32 bits.
    #[inline(always)]
    pub const fn folded32(self) -> u32 {
        Change(self.0).folded32()
    }

    /// The checksum of it all, taken with 0 in its own place.
    #[inline(always)]
    pub const fn check(self) -> Be16 {
        Be16(!fold(self.0))
    }
}

/// Folds a sum of words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, PacketBuilder, TransportHeader};
    use proptest::prelude::*;

    use super::*;
    use crate::addr::{V4, V6};

    /// A TCP/IPv4 packet and its checksums (header, transport), computed by etherparse.
    fn reference_v4(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16, payload: &[u8]) -> (u16, u16) {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(src, dst, 64).tcp(sport, dport, 1, 1024).write(&mut packet, payload).unwrap();
        let (header, _) = Ipv4Header::from_slice(&packet).unwrap();
        let parsed = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
        let Some(TransportHeader::Tcp(tcp)) = parsed.transport else { panic!("tcp") };
        (header.header_checksum, tcp.checksum)
    }

    fn reference_v6(src: [u8; 16], dst: [u8; 16], sport: u16, dport: u16, payload: &[u8]) -> u16 {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(src, dst, 64).udp(sport, dport).write(&mut packet, payload).unwrap();
        let parsed = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
        let Some(TransportHeader::Udp(udp)) = parsed.transport else { panic!("udp") };
        udp.checksum
    }

    proptest! {
        #[test]
        fn a_v4_rewrite_ends_with_the_checksums_of_the_rewritten_packet(
            src: [u8; 4], dst: [u8; 4], to: [u8; 4], sport: u16, dport: u16, to_port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let (header, transport) = reference_v4(src, dst, sport, dport, &payload);
            let change = Change::new().addr(V4::from_octets(dst), V4::from_octets(to));
            let (expected_header, expected_transport) = reference_v4(src, to, sport, to_port, &payload);
            prop_assert_eq!(change.apply(Be16::new(header)).get(), expected_header);
            let ports = change.port(Be16::new(dport), Be16::new(to_port));
            prop_assert_eq!(ports.apply(Be16::new(transport)).get(), expected_transport);
        }

        #[test]
        fn a_v6_rewrite_ends_with_the_checksum_of_the_rewritten_packet(
            src: [u8; 16], dst: [u8; 16], to: [u8; 16], sport: u16, dport: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let before = reference_v6(src, dst, sport, dport, &payload);
            let after = Change::new().addr(V6::from_octets(dst), V6::from_octets(to)).apply(Be16::new(before)).get();
            let expected = reference_v6(src, to, sport, dport, &payload);
            // A computed UDP checksum of 0 is sent as 0xffff (RFC 768); both are the same number.
            prop_assert!(after == expected || (after == 0 && expected == 0xffff));
        }

        #[test]
        fn a_sum_gives_the_checksums_of_a_new_packet(src: [u8; 4], dst: [u8; 4], six: [u8; 16]) {
            let (header, transport) = reference_v4(src, dst, 1, 2, &[]);
            let addresses = Sum::new().addr(V4::from_octets(src)).addr(V4::from_octets(dst));
            let own = addresses.word(u32::from_ne_bytes([0x45, 0, 0, 40])).word(u32::from_ne_bytes([0, 0, 0x40, 0]));
            let own = own.half(u16::from_ne_bytes([64, 6]));
            prop_assert_eq!(own.check().get(), header);
            let tcp = [[0, 1, 0, 2], [0, 0, 0, 1], [0; 4], [0x50, 0, 0x04, 0]].map(u32::from_ne_bytes);
            let covered = tcp.into_iter().fold(addresses.pseudo(6, 20), Sum::word);
            prop_assert_eq!(covered.check().get(), transport);
            let udp = [[0, 1, 0, 2], [0, 8, 0, 0]].map(u32::from_ne_bytes);
            let addresses = Sum::new().addr(V6::from_octets(six)).addr(V6::from_octets([7; 16]));
            let covered = udp.into_iter().fold(addresses.pseudo(17, 8), Sum::word);
            let expected = reference_v6(six, [7; 16], 1, 2, &[]);
            prop_assert_eq!(covered.check().get() % 0xffff, expected % 0xffff);
        }

        #[test]
        fn a_change_that_is_not_silent_tells_a_checksum_from_a_sum(
            old: u32, other: u32, turn: bool, check: u16,
        ) {
            // Its halves changed for one another, a word sums up to the same.
            let new = if turn { old.rotate_left(16) } else { other };
            let change = Change::new().word(old, new);
            // What the kernel makes of a field that is left to the device.
            let sum = fold(change.0 + u64::from(check));
            prop_assert!(change.is_silent() || change.apply(Be16(check)).0 != sum);
            prop_assert!(!turn || change.is_silent());
        }

        #[test]
        fn the_folded_change_is_the_same_change(old: u32, new: u32, check: u16) {
            let change = Change::new().word(old, new);
            prop_assert_eq!(fold(u64::from(change.folded32())) % 0xffff, fold(u64::from(!old) + u64::from(new)) % 0xffff);
            let there = change.apply(Be16(check));
            let back = Change::new().word(new, old).apply(there);
            prop_assert_eq!(back.0 % 0xffff, check % 0xffff);
        }
    }
}
