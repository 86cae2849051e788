//! Lines as bit vectors: by peer and by port.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weir_common::policy::MAX_PORT_STEPS;

use super::{
    identity::Identities,
    lines::{Line, Peers},
};
use crate::datapath::{Bits, Rule, RuleSet};

/// Most intervals of one protocol.
const MAX_INTERVALS: usize = 1 << MAX_PORT_STEPS;

/// Names of [`weir_common::policy::Protocol`]s.
const PROTOCOL_NAMES: [&str; weir_common::policy::PROTOCOLS] = ["TCP", "UDP", "SCTP", "echo"];

/// Builds the rule sets of one datapath.
pub(super) struct Builder<'a> {
    identities: &'a Identities,
    /// Rule sets share most of their lines: the identities that a line's peers have, by index, ascending.
    known: HashMap<Arc<Peers>, Arc<[usize]>>,
}

/// More intervals than a rule set holds.
pub(super) struct TooManyIntervals {
    pub(super) protocol: &'static str,
    pub(super) intervals: usize,
    pub(super) limit: usize,
}

impl<'a> Builder<'a> {
    /// For rule sets that judge these identities.
    pub(super) fn new(identities: &'a Identities) -> Self {
        Self { identities, known: HashMap::new() }
    }

    /// The rule set of `lines`.
    pub(super) fn build(&mut self, lines: &[Line]) -> Result<RuleSet, TooManyIntervals> {
        let (peers, default_peers) = self.peers(lines);
        let mut rule_set = RuleSet { peers, default_peers, ..RuleSet::default() };
        rule_set.rules =
            lines.iter().map(|line| Rule { action: line.action, next: line.next, id: line.id }).collect();
        for (protocol, table) in rule_set.ports.iter_mut().enumerate() {
            *table = intervals(lines, protocol);
            if table.len() > MAX_INTERVALS {
                return Err(TooManyIntervals {
                    protocol: PROTOCOL_NAMES[protocol],
                    intervals: table.len(),
                    limit: MAX_INTERVALS,
                });
            }
        }
        Ok(rule_set)
    }

    /// The lines that match by their peer, by identity, and those that match any identity.
    fn peers(&mut self, lines: &[Line]) -> (BTreeMap<u32, Bits>, Bits) {
        let mut default = Bits::zeros(lines.len());
        for (bit, _) in lines.iter().enumerate().filter(|(_, line)| *line.peers == Peers::ANYONE) {
            default.set(bit);
        }
        let mut peers: BTreeMap<_, Bits> = BTreeMap::new();
        for (bit, line) in lines.iter().enumerate().filter(|(_, line)| *line.peers != Peers::ANYONE) {
            for identity in self.identities_of(&line.peers).iter() {
                let number = self.identities.all[*identity];
                peers.entry(number).or_insert_with(|| default.clone()).set(bit);
            }
        }
        (peers, default)
    }

    fn identities_of(&mut self, peers: &Arc<Peers>) -> Arc<[usize]> {
        if let Some(known) = self.known.get(peers) {
            return Arc::clone(known);
        }
        let matching = |atom| self.identities.matching.get(atom).into_iter().flatten().copied();
        let declaring = peers.declares.as_ref().map(|atom| matching(atom).collect::<BTreeSet<_>>());
        let found: BTreeSet<_> = match (&peers.any_of, declaring) {
            (None, declaring) => declaring.unwrap_or_default(),
            (Some(atoms), None) => atoms.iter().flat_map(matching).collect(),
            (Some(atoms), Some(declaring)) => {
                atoms.iter().flat_map(matching).filter(|identity| declaring.contains(identity)).collect()
            }
        };
        let found: Arc<[usize]> = found.into_iter().collect();
        self.known.insert(Arc::clone(peers), Arc::clone(&found));
        found
    }
}

/// The lines that match by their port, by interval.
fn intervals(lines: &[Line], protocol: usize) -> BTreeMap<u16, Bits> {
    // The lines whose answer changes at a port. The ranges of one line do not touch.
    let mut changes: BTreeMap<u32, Vec<usize>> = BTreeMap::from([(0, Vec::new())]);
    for (bit, line) in lines.iter().enumerate() {
        for (first, last) in &line.ports.0[protocol] {
            changes.entry(u32::from(*first)).or_default().push(bit);
            changes.entry(u32::from(*last) + 1).or_default().push(bit);
        }
    }
    let mut matching = Bits::zeros(lines.len());
    let mut intervals = BTreeMap::new();
    for (start, changed) in changes {
        changed.into_iter().for_each(|bit| matching.flip(bit));
        // Past the last port nothing begins.
        if let Ok(start) = u16::try_from(start) {
            intervals.insert(start, matching.clone());
        }
    }
    intervals
}
