//! Nanoseconds a packet costs in each kernel program, without the network around it.
//!
//! A round measures every program once, one after the other, each behind the feeder, on the same number of
//! flows in shuffled order; the null program's time in that round is subtracted from each. What is reported
//! is the median over the rounds, and the ratio to an LRU map's look-up, or update, of the same round: how
//! fast this machine is at this moment divides out.

mod case;
mod feeder;
mod floors;
mod frame;
mod lab;

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use self::{
    case::Case,
    feeder::{At, Feeder, Kind},
    floors::Floors,
    frame::Frame,
    lab::Lab,
};
use super::{
    report::{Ratio, Row, Samples},
    stats::Spread,
};
use crate::{build, shell::step};

/// Sets of a flow table that holds the flows of all cases at once.
const SETS: u32 = 1 << 16;
/// Sets of the flow table of a node with little memory: 131,072 entries, as many as the LRU floor holds.
const FULL_SETS: u32 = 1 << 14;
/// Flows that the maps of the floors hold.
const FLOOR_FLOWS: u32 = 100_000;
/// Flows that come one after the other where each is new: when the first comes again, it has been evicted.
const NEW_FLOWS: u32 = 400_000;

/// The setting in which every flow is new.
pub(super) const EVICTION: &str = "new flows";

/// How much is measured.
struct Extent {
    flows: &'static [u32],
    rounds: usize,
    runs: u32,
}

const FULL: Extent = Extent { flows: &[1, 10_000, 100_000], rounds: 15, runs: 400_000 };
const QUICK: Extent = Extent { flows: &[1, 10_000], rounds: 7, runs: 150_000 };

/// Runs the bench.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    let object = build::kernel_programs()?;
    let object = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let floors = build::floors()?;
    let extent = if quick { QUICK } else { FULL };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            stay_on_one_cpu()?;
            measure(&object, &floors, &extent)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How a setting at XDP is called.
pub(super) fn at_xdp(count: u32) -> String {
    format!("XDP, {}", flows(count))
}

/// How a setting with so many flows is called.
pub(super) fn flows(count: u32) -> String {
    match count {
        1 => "1 flow".to_owned(),
        _ => format!("{},000 flows", count / 1000),
    }
}

fn measure(object: &[u8], floors: &Path, extent: &Extent) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let lab = Lab::open(object, "known", SETS)?;
    let keys: Vec<Frame> = case::service_flows(FLOOR_FLOWS).map(|flow| flow.frame(frame::ACK)).collect();
    for count in extent.flows {
        step("Measuring", flows(*count));
        let mut series = Series::new(Floors::load(floors, Kind::Tc, &keys)?, floors, flows(*count));
        let known = case::known(&lab, *count);
        let frames = &known[0].frames;
        for (subject, program) in series.floors.of_known_flows()? {
            series.add(subject, &program, frames, None)?;
        }
        for case in &known {
            case.prime(&lab, floors)?;
            series.add_case(&lab, case)?;
        }
        rows.extend(series.run(&lab, extent, floors::LRU, true)?);
    }
    for count in extent.flows {
        step("Measuring", at_xdp(*count));
        let mut series = Series::new(Floors::load(floors, Kind::Xdp, &keys)?, floors, at_xdp(*count));
        let frames = &case::known(&lab, *count)[0].frames;
        for (subject, program) in series.floors.of_known_flows()? {
            series.add(subject, &program, frames, None)?;
        }
        rows.extend(series.run(&lab, extent, floors::LRU, true)?);
    }
    drop(lab);
    step("Measuring", EVICTION);
    let lab = Lab::open(object, "new", FULL_SETS)?;
    let mut series = Series::new(Floors::load(floors, Kind::Tc, &keys)?, floors, EVICTION.to_owned());
    let new = case::new(&lab, NEW_FLOWS);
    let frames = &new[0].frames;
    for (subject, program) in series.floors.of_new_flows()? {
        series.add(subject, &program, frames, None)?;
    }
    for case in &new {
        series.add_case(&lab, case)?;
    }
    rows.extend(series.run(&lab, extent, floors::INSERT, false)?);
    Ok(rows)
}

/// Programs that are measured alternately.
struct Series<'a> {
    floors: Floors,
    object: &'a Path,
    setting: String,
    measured: Vec<Measured>,
}

struct Measured {
    subject: &'static str,
    feeder: Feeder,
    /// What a program of weir's must return.
    verdict: Option<u32>,
}

impl<'a> Series<'a> {
    const fn new(floors: Floors, object: &'a Path, setting: String) -> Self {
        Self { floors, object, setting, measured: Vec::new() }
    }

    fn add(
        &mut self,
        subject: &'static str,
        program: &ProgramFd,
        frames: &[Frame],
        place: Option<(At, u32)>,
    ) -> Result<()> {
        let at = place.map_or_else(At::default, |(at, _)| at);
        let feeder = Feeder::new(self.object, self.floors.kind(), at, frames, program)?;
        self.measured.push(Measured { subject, feeder, verdict: place.map(|(_, verdict)| verdict) });
        Ok(())
    }

    fn add_case(&mut self, lab: &Lab, case: &Case) -> Result<()> {
        let program = lab.program(case.program)?;
        self.add(case.subject, &program, &case.frames, Some((case.at, case.verdict)))
    }

    /// Measures round by round. Flows that are known are all seen once before.
    fn run(self, lab: &Lab, extent: &Extent, unit: &str, are_known: bool) -> Result<Vec<Row>> {
        let mut samples = Samples::default();
        for _ in 0..extent.rounds {
            let mut feeding = 0.0;
            for Measured { subject, feeder, verdict } in &self.measured {
                let before = lab.drops()?;
                if are_known {
                    feeder.run(feeder.frames())?;
                }
                let runs = feeder.run(extent.runs)?;
                if let Some(verdict) = *verdict {
                    let found = runs.verdict;
                    ensure!(found == verdict, "{subject}: returned {found} instead of {verdict}");
                    let drops = lab.drops()? - before;
                    ensure!(
                        (drops != 0) == (verdict == case::SHOT),
                        "{subject}: {drops} packets were dropped"
                    );
                }
                match *subject {
                    floors::NULL => feeding = runs.nanoseconds,
                    _ => samples.add(&self.setting, subject, runs.nanoseconds - feeding),
                }
            }
        }
        self.floors.check()?;
        let unit_samples = samples.of(&self.setting, unit);
        let row = |measured: &Measured| {
            let of = samples.of(&self.setting, measured.subject);
            Row {
                bench: "prog".to_owned(),
                subject: measured.subject.to_owned(),
                setting: self.setting.clone(),
                unit: "ns".to_owned(),
                value: Spread::of(of),
                ratio: Some(Ratio { to: unit.to_owned(), spread: Spread::ratio(of, unit_samples) }),
            }
        };
        Ok(self.measured.iter().filter(|measured| measured.subject != floors::NULL).map(row).collect())
    }
}

/// A program's time must not depend on which CPU's caches it finds.
fn stay_on_one_cpu() -> Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one CPU")
}
