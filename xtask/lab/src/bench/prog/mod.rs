//! Nanoseconds a packet costs in each kernel program, without the network around it.
//!
//! A round measures every program once, one after the other, each behind the feeder, on the same number of
//! flows in shuffled order; the null program's time in that round is subtracted from each. What is reported
//! is the median over the rounds, and the ratio to an LRU map's look-up, or update, of the same round: how
//! fast this machine is at this moment divides out.

mod case;
mod cluster;
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
    case::{Case, kind_of},
    feeder::{At, Feeder, Kind},
    floors::Floors,
    frame::Frame,
    lab::Lab,
};
use super::{
    report::{Ratio, Row, Samples},
    stats::Spread,
};
use xtask::{build, shell::step};

/// Sets of the flow table of a node with little memory: 131,072 entries, as many as the maps of the floors hold.
const SETS: u32 = 1 << 14;
/// Sets of one that holds 100,000 flows, each with an entry for either direction.
const LARGE_SETS: u32 = 1 << 16;
/// Flows that the maps of the floors hold.
const FLOOR_FLOWS: u32 = 100_000;
/// Flows that come one after the other where each is new: when the first comes again, it has been evicted.
const NEW_FLOWS: u32 = 400_000;

pub(super) use self::{
    case::{DENIED, NAT, TO_SERVICE, TUNNEL},
    floors::PARSE,
};

/// The setting in which every flow is new.
pub(super) const EVICTION: &str = "new flows";
/// The same at XDP.
pub(super) const EVICTION_AT_XDP: &str = "XDP, new flows";

/// How much is measured.
struct Extent {
    /// Flows at TC, and at XDP.
    flows: [&'static [u32]; 2],
    rounds: usize,
    runs: u32,
}

const FULL: Extent = Extent { flows: [&[1, 10_000, 100_000]; 2], rounds: 15, runs: 400_000 };
const QUICK: Extent = Extent { flows: [&[1, 10_000], &[1, 10_000, 100_000]], rounds: 5, runs: 100_000 };

/// Runs the bench.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    let object = build::object();
    let object = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let floors = build::floors();
    let extent = if quick { QUICK } else { FULL };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            // Else the kernel announces itself on every interface that comes up, and is counted.
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                .context("cannot switch IPv6 off")?;
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
    let keys: Vec<Frame> = case::service_flows(FLOOR_FLOWS).map(|flow| flow.frame(frame::ACK)).collect();
    let bench = Bench { object, floors, extent, keys };
    let mut rows = Vec::new();
    let frames = |count| case::shuffled(case::service_flows(count).map(|flow| flow.frame(frame::ACK)));
    let [at_tc, at_edge] = extent.flows;
    for &count in at_tc {
        rows.extend(bench.known(Kind::Tc, flows(count), &frames(count), &case::known(count))?);
    }
    for &count in at_edge {
        rows.extend(bench.known(Kind::Xdp, at_xdp(count), &frames(count), &case::known_at_edge(count))?);
    }
    let frames = case::shuffled(case::service_flows(NEW_FLOWS).map(|flow| flow.frame(frame::SYN)));
    rows.extend(bench.unknown(Kind::Tc, EVICTION, &frames, &case::new(NEW_FLOWS))?);
    rows.extend(bench.unknown(Kind::Xdp, EVICTION_AT_XDP, &frames, &case::new_at_edge(NEW_FLOWS))?);
    Ok(rows)
}

/// What all series have in common.
struct Bench<'a> {
    object: &'a [u8],
    floors: &'a Path,
    extent: &'a Extent,
    /// The flows in the maps of the floors.
    keys: Vec<Frame>,
}

impl Bench<'_> {
    /// Measures cases whose flows are known, in turns with look-ups.
    fn known(&self, kind: Kind, setting: String, frames: &[Frame], cases: &[Case]) -> Result<Vec<Row>> {
        let mut series = self.series(kind, setting, true)?;
        for (subject, program) in series.floors.of_known_flows()? {
            series.add(subject, &program, frames)?;
        }
        let sets = if frames.len() > 10_000 { LARGE_SETS } else { SETS };
        for case in cases {
            series.add_case(case, sets)?;
        }
        series.run(floors::LRU)
    }

    /// Measures cases whose flows are all new, in turns with an update that evicts.
    fn unknown(&self, kind: Kind, setting: &str, frames: &[Frame], cases: &[Case]) -> Result<Vec<Row>> {
        let mut series = self.series(kind, setting.to_owned(), false)?;
        for (subject, program) in series.floors.of_new_flows()? {
            series.add(subject, &program, frames)?;
        }
        for case in cases {
            series.add_case(case, SETS)?;
        }
        series.run(floors::INSERT)
    }

    fn series(&self, kind: Kind, setting: String, are_known: bool) -> Result<Series<'_>> {
        step("Measuring", &setting);
        let floors = Floors::load(self.floors, kind, &self.keys)?;
        Ok(Series { bench: self, floors, setting, are_known, measured: Vec::new() })
    }
}

/// Programs that are measured in turns.
struct Series<'a> {
    bench: &'a Bench<'a>,
    floors: Floors,
    setting: String,
    /// Whether all flows are seen once before they are measured.
    are_known: bool,
    measured: Vec<Measured>,
}

struct Measured {
    subject: &'static str,
    feeder: Feeder,
    /// What a program of weir's runs on.
    weir: Option<Weir>,
}

struct Weir {
    /// A node of its own: flows of other cases would take room from these.
    lab: Lab,
    verdict: u32,
    is_denied: bool,
}

impl Series<'_> {
    fn add(&mut self, subject: &'static str, program: &ProgramFd, frames: &[Frame]) -> Result<()> {
        let feeder = Feeder::new(self.bench.floors, self.floors.kind(), At::default(), frames, program)?;
        self.measured.push(Measured { subject, feeder, weir: None });
        Ok(())
    }

    fn add_case(&mut self, case: &Case, sets: u32) -> Result<()> {
        let lab = Lab::open(self.bench.object, sets)?;
        let program = lab.program(case.program)?;
        case.prime(&lab, self.bench.floors)?;
        let (kind, at) = (kind_of(case.program), lab.at(case.place));
        let feeder = Feeder::new(self.bench.floors, kind, at, &case.frames, &program)?;
        let weir = Weir { lab, verdict: case.verdict, is_denied: case.is_denied() };
        self.measured.push(Measured { subject: case.subject, feeder, weir: Some(weir) });
        Ok(())
    }

    /// Measures round by round.
    fn run(self, unit: &str) -> Result<Vec<Row>> {
        let mut samples = Samples::default();
        for _ in 0..self.bench.extent.rounds {
            let mut feeding = 0.0;
            for measured in &self.measured {
                let nanoseconds = self.measure(measured)?;
                match measured.subject {
                    floors::NULL => feeding = nanoseconds,
                    subject => samples.add(&self.setting, subject, nanoseconds - feeding),
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

    /// Nanoseconds a packet, with the feeder's.
    fn measure(&self, Measured { subject, feeder, weir }: &Measured) -> Result<f64> {
        let drops = || weir.as_ref().map_or(Ok(0), |weir| weir.lab.drops());
        let before = drops()?;
        if self.are_known {
            feeder.run(feeder.frames())?;
        }
        let runs = feeder.run(self.bench.extent.runs)?;
        if let Some(Weir { verdict, is_denied, .. }) = weir {
            let (found, drops) = (runs.verdict, drops()? - before);
            ensure!(found == *verdict, "{subject}: returned {found} instead of {verdict}");
            ensure!((drops != 0) == *is_denied, "{subject}: {drops} packets were dropped");
        }
        Ok(runs.nanoseconds)
    }
}

/// A program's time must not depend on which CPU's caches it finds.
fn stay_on_one_cpu() -> Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one CPU")
}
