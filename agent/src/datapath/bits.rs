//! Bit vectors over the rules of a rule set.

/// A bit per rule of a rule set; the bit of rule 0 is the lowest of word 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bits(pub Vec<u64>);

impl Bits {
    /// No bit of `len` is set. All vectors of a rule set have the same number of words, at least one.
    pub fn zeros(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64).max(1)])
    }

    /// Sets a bit.
    pub fn set(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// Turns a bit over.
    pub fn flip(&mut self, bit: usize) {
        self.0[bit / 64] ^= 1 << (bit % 64);
    }

    /// Whether a bit is set.
    pub fn contains(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// The lowest bit from `first` on that is set here and in `other`.
    pub fn first_common(&self, other: &Self, first: usize) -> Option<usize> {
        let common = self.0.iter().zip(&other.0).map(|(one, other)| one & other);
        common.enumerate().skip(first / 64).find_map(|(index, word)| {
            let skipped = first.saturating_sub(index * 64);
            let word = word & u64::MAX.checked_shl(skipped as u32).unwrap_or(0);
            (word != 0).then(|| index * 64 + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(set: &[usize]) -> Bits {
        let mut bits = Bits::zeros(200);
        set.iter().for_each(|bit| bits.set(*bit));
        bits
    }

    #[test]
    fn the_lowest_common_bit_is_found_from_any_start() {
        let (one, other) = (bits(&[0, 3, 64, 127, 199]), bits(&[1, 3, 64, 100, 199]));
        let found: Vec<_> =
            [0, 3, 4, 64, 65, 128, 199, 200].map(|first| one.first_common(&other, first)).into();
        assert_eq!(found, [Some(3), Some(3), Some(64), Some(64), Some(199), Some(199), Some(199), None]);
        assert_eq!(bits(&[5]).first_common(&bits(&[6]), 0), None);
    }
}
