//! Incremental CRC-32c, the checksum of SCTP (RFC 9260, appendix A).
//!
//! A CRC is linear over GF(2): those of two packets of one length differ by the CRC, without its initial and
//! final complements, of where the packets differ. When that is one word, it is this word's polynomial
//! times x for every bit from its start to the packet's end. So a changed port costs one multiplication
//! however long the packet is.
//!
//! Words are reflected, as the checksum's are: the highest power of x in the lowest bit.

/// The polynomial, without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;

/// The longest packets that [`difference`] knows are shorter than this.
pub const LIMIT: u32 = 1 << 14;

/// x^(8 * bytes), by bytes.
static POWERS: [u32; LIMIT as usize] = {
    let mut powers = [ONE; LIMIT as usize];
    let mut bytes = 1;
    while bytes < powers.len() {
        let mut power = powers[bytes - 1];
        let mut bit = 0;
        while bit < 8 {
            power = times_x(power);
            bit += 1;
        }
        powers[bytes] = power;
        bytes += 1;
    }
    powers
};

/// What the checksum changes by when a word changes that begins `bytes` bytes before the packet's end, less
/// than [`LIMIT`]. `change` is the difference (exclusive or) of the word's bytes, the first in the lowest eight
/// bits; so is the result of those of the checksum field.
///
/// `bit_of` gives back what it is given, which is 0 or 1. A compiler that knew this would branch, and the
/// verifier walk what follows once for either; a program hides it from both.
#[inline(always)]
pub fn difference(change: u32, bytes: u32, bit_of: impl Fn(u32) -> u32) -> u32 {
    let mut power = POWERS[(bytes & (LIMIT - 1)) as usize];
    let (mut product, mut factor) = (0, change);
    let mut bit = 0;
    while bit < 32 {
        product ^= factor.wrapping_mul(bit_of(power >> 31));
        factor = (factor >> 1) ^ POLYNOMIAL.wrapping_mul(bit_of(factor & 1));
        power <<= 1;
        bit += 1;
    }
    product
}

/// A polynomial times x modulo [`POLYNOMIAL`].
const fn times_x(power: u32) -> u32 {
    (power >> 1) ^ (POLYNOMIAL & (power & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum of a packet by the textbook, bit by bit.
    fn reference(packet: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in packet {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn the_reference_knows_the_test_vector() {
        assert_eq!(reference(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_changed_word_changes_the_checksum_as_if_it_were_made_anew(
            mut packet in proptest::collection::vec(any::<u8>(), 12..3000),
            word: [u8; 4],
        ) {
            let before = reference(&packet);
            let old: [u8; 4] = packet[..4].try_into().unwrap();
            packet[..4].copy_from_slice(&word);
            let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(word);
            prop_assert_eq!(before ^ difference(change, packet.len() as u32, |bit| bit), reference(&packet));
        }
    }

    #[test]
    fn the_longest_packet_is_right_too() {
        let mut packet = vec![0x5a; LIMIT as usize - 1];
        let before = reference(&packet);
        packet[3] ^= 0x80;
        assert_eq!(before ^ difference(0x8000_0000, LIMIT - 1, |bit| bit), reference(&packet));
    }
}
