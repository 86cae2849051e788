//! Connections that must not change while something else does.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    batch::{Attempt, Batch, Outcome},
    drops::Drops,
};

/// How long an answer may take while a change is under way: before TCP asks a second time and hides that the first was lost.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Opens connections over and over while `work` is done. Returns those that once did not do as expected.
pub(super) fn during(
    steady: &[(Attempt, bool)],
    drops: &Drops,
    work: impl FnOnce() -> Result<()>,
) -> Result<BTreeMap<usize, String>> {
    if steady.is_empty() {
        return work().map(|()| BTreeMap::new());
    }
    let done = AtomicBool::new(false);
    drops.forget();
    thread::scope(|scope| {
        let watching = scope.spawn(|| flips(steady, drops, &done));
        let result = work();
        done.store(true, Ordering::Relaxed);
        let flips = watching.join().expect("it does not panic")?;
        result.map(|()| flips)
    })
}

fn flips(steady: &[(Attempt, bool)], drops: &Drops, done: &AtomicBool) -> Result<BTreeMap<usize, String>> {
    let attempts: Vec<_> = steady.iter().map(|(attempt, _)| attempt.clone()).collect();
    let mut flips = BTreeMap::new();
    let mut compare = |batch: &mut Batch| {
        for (number, outcome) in batch.outcomes().into_iter().enumerate() {
            let as_expected = match &outcome {
                Outcome::Answer(_) => steady[number].1,
                Outcome::Dropped(_) | Outcome::Silence => !steady[number].1,
                Outcome::Refused(_) => false,
            };
            if !as_expected {
                flips.insert(number, format!("{outcome:?}"));
            }
        }
    };
    let mut before: Option<Batch> = None;
    loop {
        let is_last = done.load(Ordering::Relaxed);
        let mut batch = Batch::open(&attempts)?;
        batch.wait(drops, AT_ONCE)?;
        // One round later: what was dropped has had time to be answered all the same.
        before.replace(batch).iter_mut().for_each(&mut compare);
        if is_last {
            before.iter_mut().for_each(&mut compare);
            return Ok(flips);
        }
    }
}
