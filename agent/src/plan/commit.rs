//! Carrying out a plan.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Layout, MapWriter, Plan, Step, Write, next_epoch};

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// The revision that is in force, `STATE.epoch`.
    pub revision: u32,
    /// Elements written or to be removed, by map.
    pub writes: BTreeMap<&'static str, usize>,
    /// How long it took to bring it into force.
    pub duration: Duration,
    /// Why something that is no longer used could not be removed. The next commit tries again, but only
    /// after the layout has been read anew from the maps.
    pub left_over: Option<String>,
}

/// A commit failed; the old revision is in force.
#[derive(Debug, thiserror::Error)]
pub enum CommitError<E> {
    /// What had been switched was switched back.
    #[error("cannot write {map}: {error}; rolled back, revision {revision} stays active")]
    RolledBack {
        /// The map.
        map: &'static str,
        /// Why.
        error: E,
        /// The revision in force.
        revision: u32,
    },
    /// Not everything could be switched back: every pod is judged by its old policy or by its new one.
    #[error(
        "cannot write {map}: {error}; and the roll-back failed at {at}: {second}: each pod is held to revision \
         {revision} or to the refused one until the next apply"
    )]
    Mixed {
        /// The map.
        map: &'static str,
        /// Why.
        error: E,
        /// Where the roll-back failed.
        at: &'static str,
        /// Why the roll-back failed.
        second: E,
        /// The revision before.
        revision: u32,
    },
}

/// Carries out `plan`, made from `layout`, and keeps `layout` true: first [`switch`], then [`clean`].
///
/// # Errors
/// As [`switch`].
pub fn commit<W: MapWriter>(
    layout: &mut Layout,
    plan: &Plan,
    writer: &mut W,
) -> Result<CommitReport, CommitError<W::Error>> {
    let mut report = switch(layout, plan, writer)?;
    report.left_over = clean(layout, &plan.cleanup, writer);
    Ok(report)
}

/// Brings the new revision into force. What it does not need any more is still there.
///
/// # Errors
/// When a write fails. After [`CommitError::RolledBack`] the layout is still true, after
/// [`CommitError::Mixed`] it must be read anew from the maps.
pub fn switch<W: MapWriter>(
    layout: &mut Layout,
    plan: &Plan,
    writer: &mut W,
) -> Result<CommitReport, CommitError<W::Error>> {
    let start = Instant::now();
    let mut report = CommitReport::default();
    let before = layout.image.state;
    let mut undo = Vec::new();
    for step in &plan.steps {
        let write = match step {
            Step::WaitForReaders => {
                writer.wait_for_readers();
                continue;
            }
            Step::Write(write) => write,
        };
        undo.extend(layout.image.inverse(write));
        if let Err(error) = writer.write(write) {
            let failed = roll_back(layout, &undo, before.epoch, writer);
            let (map, revision) = (write.target(), before.epoch);
            return Err(match failed {
                None => CommitError::RolledBack { map, error, revision },
                Some((at, second)) => CommitError::Mixed { map, error, at, second, revision },
            });
        }
        layout.image.apply(write);
        *report.writes.entry(write.target()).or_default() += write.len();
    }
    for write in &plan.cleanup {
        *report.writes.entry(write.target()).or_default() += write.len();
    }
    layout.settled = true;
    layout.known.clone_from(&plan.known);
    report.revision = layout.image.state.epoch;
    report.duration = start.elapsed();
    Ok(report)
}

/// Removes what a revision that has come into force does not need: after every packet that has read of it is
/// gone, and before the next plan is made. Says what could not be removed.
pub fn clean<W: MapWriter>(layout: &mut Layout, cleanup: &[Write], writer: &mut W) -> Option<String> {
    let mut left_over = None;
    writer.wait_for_readers();
    for write in cleanup {
        match writer.write(write) {
            Ok(()) => layout.image.apply(write),
            Err(error) => {
                layout.settled = false;
                left_over.get_or_insert_with(|| format!("{}: {error}", write.target()));
            }
        }
    }
    left_over
}

/// Undoes writes, the last one first, and has flows that were decided meanwhile decided again.
fn roll_back<W: MapWriter>(
    layout: &mut Layout,
    undo: &[Write],
    epoch: u32,
    writer: &mut W,
) -> Option<(&'static str, W::Error)> {
    let mut failed = None;
    let mut write = |write: &Write, layout: &mut Layout| match writer.write(write) {
        Ok(()) => layout.image.apply(write),
        Err(error) => {
            failed.get_or_insert((write.target(), error));
        }
    };
    for inverse in undo.iter().rev().filter(|inverse| !inverse.is_empty()) {
        write(inverse, layout);
    }
    if epoch != 0 {
        // Past the epoch of the refused revision, which may have been written.
        let state = weir_common::state::State { epoch: next_epoch(next_epoch(epoch)), ..layout.image.state };
        write(&Write::State(state), layout);
    }
    layout.settled = false;
    failed
}
