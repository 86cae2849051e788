//! Incremental CRC-32c, the checksum of SCTP (RFC 9260, appendix A).
//!
//! A CRC is linear over GF(2): those of two packets of one length differ by the CRC, without its initial and
//! final complements, of where the packets differ. When that is one word, it is this word's polynomial
//! times x for every bit from its start to the packet's end. So a changed port costs a few multiplications
//! however long the packet is.
//!
//! Words are reflected, as the checksum's are: the highest power of x in the lowest bit.

/// The polynomial, without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;
/// x^8.
const BYTE: u32 = 1 << 23;

/// x^(8 * byte * 256^place), by place and byte of a packet's length.
static POWERS: [[u32; 256]; 2] = {
    let mut powers = [[ONE; 256]; 2];
    let mut base = BYTE;
    let mut place = 0;
    while place < powers.len() {
        let mut byte = 1;
        while byte < 256 {
            powers[place][byte] = times(powers[place][byte - 1], base);
            byte += 1;
        }
        base = times(powers[place][255], base);
        place += 1;
    }
    powers
};

/// What the checksum changes by when a word changes that begins `bytes` bytes before the packet's end, at
/// most 65,535. `change` is the difference (exclusive or) of the word's bytes, the first in the lowest eight
/// bits; so is the result of those of the checksum field.
///
/// `mask` gives back what it is given, which is all ones or all zeroes. The verifier would walk what follows
/// once for either; a program hands it through memory that the verifier does not look into.
#[inline(always)]
pub fn difference(change: u32, bytes: u32, mut mask: impl FnMut(u32) -> u32) -> u32 {
    let mut product = change;
    let mut place = 0;
    while place < POWERS.len() {
        let power = POWERS[place][(bytes >> (8 * place)) as usize & 255];
        let mut factor = product;
        product = 0;
        let mut bit = 0;
        while bit < 32 {
            product ^= factor & mask(((power << bit) >> 31).wrapping_neg());
            factor = (factor >> 1) ^ (POLYNOMIAL & mask((factor & 1).wrapping_neg()));
            bit += 1;
        }
        place += 1;
    }
    product
}

/// The product of two polynomials modulo [`POLYNOMIAL`], as above.
const fn times(one: u32, other: u32) -> u32 {
    let (mut product, mut factor) = (0, other);
    let mut bit = 0;
    while bit < 32 {
        product ^= factor & ((one << bit) >> 31).wrapping_neg();
        factor = (factor >> 1) ^ (POLYNOMIAL & (factor & 1).wrapping_neg());
        bit += 1;
    }
    product
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
            prop_assert_eq!(before ^ difference(change, packet.len() as u32, |mask| mask), reference(&packet));
        }
    }

    #[test]
    fn the_longest_packet_is_right_too() {
        let mut packet = vec![0x5a; 65_535];
        let before = reference(&packet);
        packet[3] ^= 0x80;
        assert_eq!(before ^ difference(0x8000_0000, 65_535, |mask| mask), reference(&packet));
    }
}
