//! When a backend has failed often enough, and when it is well again.

use crate::cluster::Probe;

/// What the checks of one backend have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Track {
    /// `None`: not checked yet. It is used until then.
    healthy: Option<bool>,
    /// How many results in a row have spoken against that.
    against: u32,
}

impl Track {
    /// Takes in a result; gives the new state when it changes by it. The first one decides at once, so that an agent
    /// that starts again comes soon to what it knew before.
    pub(super) fn note(&mut self, success: bool, probe: &Probe) -> Option<bool> {
        if self.healthy == Some(success) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let threshold = match (self.healthy, success) {
            (None, _) => 1,
            (Some(_), true) => probe.successes,
            (Some(_), false) => probe.failures,
        };
        if self.against < threshold {
            return None;
        }
        let before = self.healthy.replace(success);
        self.against = 0;
        (before.unwrap_or(true) != success).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::ProbeKind;

    fn changes(results: &str) -> String {
        let second = Duration::from_secs(1);
        let probe =
            Probe { kind: ProbeKind::Tcp, interval: second, timeout: second, failures: 3, successes: 2 };
        let mut track = Track::default();
        let change = |result| match track.note(result == '+', &probe) {
            None => '.',
            Some(true) => 'U',
            Some(false) => 'D',
        };
        results.chars().map(change).collect()
    }

    #[test]
    fn a_backend_leaves_after_failures_in_a_row_and_comes_back_after_successes_in_a_row() {
        assert_eq!(changes("+--+---"), "......D");
        assert_eq!(changes("+---+-++--"), "...D...U..");
        assert_eq!(changes("++++"), "....");
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(changes("-+-++---"), "D...U..D");
    }
}
