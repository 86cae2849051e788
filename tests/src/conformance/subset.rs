//! A part of all cases that stays the same as long as their names do.

use std::str::FromStr;

/// Those cases whose names' hash leaves a certain remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    part: u64,
    of: u64,
}

impl Subset {
    /// Every case.
    pub const ALL: Self = Self { part: 1, of: 1 };

    /// Whether a case is in it.
    pub(super) fn contains(self, case: &str) -> bool {
        hash(case) % self.of == self.part - 1
    }
}

impl FromStr for Subset {
    type Err = String;

    /// Reads `N/M`, with N from 1 to M.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if 1 <= part && part <= of => Ok(Self { part, of }),
            _ => Err("expected N/M with N from 1 to M".to_owned()),
        }
    }
}

/// FNV-1a: the same on every machine and in every release.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_disjoint_and_together_the_whole() {
        let parts: Vec<Subset> = (1..=3).map(|part| format!("{part}/3").parse().unwrap()).collect();
        for case in 0..100 {
            let case = format!("case-{case}");
            assert!(Subset::ALL.contains(&case));
            assert_eq!(parts.iter().filter(|part| part.contains(&case)).count(), 1, "{case}");
        }
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in ["", "1", "0/3", "4/3", "1/0", "a/b"] {
            assert!(text.parse::<Subset>().is_err(), "{text}");
        }
    }
}
