//! Medians and quartiles.

use serde::{Deserialize, Serialize};

/// A median with its quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The lower quartile.
    pub(crate) lower: f64,
    /// The median.
    pub(crate) median: f64,
    /// The upper quartile.
    pub(crate) upper: f64,
}

impl Spread {
    /// Of at least one sample.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share| quantile(&sorted, share);
        Self { lower: at(0.25), median: at(0.5), upper: at(0.75) }
    }

    /// Of the samples of one series by those of another, round by round.
    pub(crate) fn ratio(samples: &[f64], to: &[f64]) -> Self {
        Self::of(&samples.iter().zip(to).map(|(one, other)| one / other).collect::<Vec<_>>())
    }
}

/// Between the two nearest samples where it falls between them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_sorted_samples() {
        let spread = Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!(spread, Spread { lower: 2.0, median: 3.0, upper: 4.0 });
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of(&[7.0]), Spread { lower: 7.0, median: 7.0, upper: 7.0 });
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // A machine that is half as fast in the second round is so for both.
        assert_eq!(Spread::ratio(&[2.0, 4.0, 2.0], &[1.0, 2.0, 1.0]).upper, 2.0);
    }
}
