use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn changes() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    proptest::collection::vec((0_u16..400, proptest::option::weighted(0.7, 0_u8..4)), 0..300)
}

fn follow(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, changes: &[(u16, Option<u8>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
            None => assert_eq!(map.remove(key), model.remove(key)),
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_a_map_of_the_standard_library_does(
        first in proptest::collection::vec((0_u16..400, 0_u8..4), 0..300),
        then in changes(),
        from in 0_u16..450,
    ) {
        let mut map: SharedMap<_, _> = first.iter().copied().collect();
        let mut model: BTreeMap<_, _> = first.into_iter().collect();
        follow(&mut map, &mut model, &then);

        prop_assert_eq!(map.len(), model.len());
        prop_assert!(map.iter().eq(model.iter()));
        prop_assert!(map.iter_from(&from).eq(model.range(from..)));
        for key in 0..400 {
            prop_assert_eq!(map.get(&key), model.get(&key));
        }
    }

    #[test]
    fn differences_are_all_and_only_the_entries_that_differ(first in changes(), then in changes()) {
        let (mut before, mut model) = (SharedMap::default(), BTreeMap::new());
        follow(&mut before, &mut model, &first);
        let (mut after, old) = (before.clone(), model.clone());
        follow(&mut after, &mut model, &then);

        let keys: BTreeSet<_> = old.keys().chain(model.keys()).collect();
        let expected: Vec<_> = keys
            .into_iter()
            .map(|key| Difference { key, before: old.get(key), after: model.get(key) })
            .filter(|difference| difference.before != difference.after)
            .collect();
        prop_assert_eq!(before.differences(&after), expected);
        prop_assert!(before.iter().eq(old.iter()), "a copy has changed with its original");
    }
}

#[test]
fn a_copy_of_a_large_map_with_one_change_shares_all_chunks_but_one() {
    let before: SharedMap<u32, u32> = (0..10_000).map(|key| (key, key)).collect();
    let mut after = before.clone();
    after.insert(5_000, 0_u32);

    let shared =
        before.chunks.iter().filter(|chunk| after.chunks.iter().any(|other| Arc::ptr_eq(chunk, other)));
    assert_eq!(shared.count(), before.chunks.len() - 1);
    assert_eq!(before.differences(&after).len(), 1);
}
