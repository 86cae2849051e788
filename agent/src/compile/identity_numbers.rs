//! Numbers of identities: stable beyond equal content.
//!
//! An identity is the set of atoms that its addresses match. When a policy brings a new atom, every set
//! may grow, but that alone tells no rule set that stands anything new. So a number promises less than the
//! set: *what it says about an atom, it says for as long as the atom is in use*. When new atoms split the
//! addresses of an identity, the greatest part keeps the number, and the others get new ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use weir_common::policy::IDENTITY_FIRST;

use crate::datapath::IdentityId;

/// The identities that have a number.
#[derive(Clone, Debug)]
pub(super) struct IdentityNumbers {
    /// The atoms that each matches among `known`.
    atoms: BTreeMap<IdentityId, Vec<u32>>,
    /// The atoms that every number says something about.
    known: HashSet<u32>,
    next: IdentityId,
    free: VecDeque<IdentityId>,
}

impl Default for IdentityNumbers {
    fn default() -> Self {
        Self { atoms: BTreeMap::new(), known: HashSet::new(), next: IDENTITY_FIRST, free: VecDeque::new() }
    }
}

impl IdentityNumbers {
    /// Numbers for `sets`, which are different, sorted sets of the `used` atoms, each with the number of
    /// prefixes that it stands for.
    pub(super) fn assign(&mut self, sets: &[(Vec<u32>, usize)], used: &HashSet<u32>) -> Vec<IdentityId> {
        let restrict = |set: &[u32], to: &HashSet<u32>| -> Vec<u32> {
            set.iter().copied().filter(|atom| to.contains(atom)).collect()
        };
        let mut candidates: HashMap<Vec<u32>, VecDeque<IdentityId>> = HashMap::new();
        for (number, set) in &self.atoms {
            candidates.entry(restrict(set, used)).or_default().push_back(*number);
        }

        let mut order: Vec<_> = (0..sets.len()).collect();
        order.sort_by_key(|index| (std::cmp::Reverse(sets[*index].1), &sets[*index].0));
        let mut numbers = vec![0; sets.len()];
        for index in order {
            let set = &sets[index].0;
            let kept = candidates.get_mut(&restrict(set, &self.known)).and_then(VecDeque::pop_front);
            let number = kept.or_else(|| self.free.pop_front()).unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
            let entry = self.atoms.entry(number).or_default();
            entry.retain(|atom| !used.contains(atom));
            entry.extend(set);
            entry.sort_unstable();
            numbers[index] = number;
        }
        self.known.extend(used);
        numbers
    }

    /// Frees the numbers that are not in `numbers`, and forgets the atoms that are not in `atoms`.
    pub(super) fn retain(&mut self, numbers: &BTreeSet<IdentityId>, atoms: &HashSet<u32>) {
        let free = &mut self.free;
        self.atoms.retain(|number, set| {
            set.retain(|atom| atoms.contains(atom));
            let kept = numbers.contains(number);
            if !kept {
                free.push_back(*number);
            }
            kept
        });
        self.known.retain(|atom| atoms.contains(atom));
    }
}
