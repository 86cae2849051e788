//! Real traffic through network namespaces, and what it costs to be forwarded.
//!
//! Client, servers and the agent share one CPU, so that a rate says what an operation costs all of them
//! together. All ways of forwarding stand side by side and take turns within a round, in which plain routing
//! is 1: how fast this machine is at this moment divides out.

mod cluster;
pub(super) mod growth;
mod load;
mod network;
mod variant;

use std::path::Path;

use anyhow::Result;

use self::{
    load::{Load, Sample, Servers},
    variant::{Set, Way},
};
use super::{
    report::{Ratio, Row, Samples},
    stats::Spread,
};
use xtask::{build, machine, shell::step};

/// How much is measured.
struct Extent {
    rounds: usize,
    seconds: f64,
    /// Also what no figure to reach is about.
    whole: bool,
}

/// Services of the cluster in which all kinds of traffic are measured.
const SERVICES: u32 = 1_000;

/// With more connections in two minutes, the ports of kube-proxy's masqueraded ones would run out.
const FULL: Extent = Extent { rounds: 13, seconds: 0.4, whole: true };
const QUICK: Extent = Extent { rounds: 4, seconds: 0.2, whole: false };

/// Runs the bench.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    machine::need("nft", &["--version"], "nftables")?;
    machine::need("iptables-restore", &["--version"], "iptables")?;
    let weir = super::agent()?;
    let generator = build::beside_us("weir-load")?;
    let extent = if quick { QUICK } else { FULL };
    let cpu = std::thread::available_parallelism()?.get() - 1;
    let mut rows = measure(SERVICES, &extent, &weir, &generator, cpu)?;
    rows.extend(growth::measure(&extent, &weir, &generator, cpu)?);
    Ok(rows)
}

/// How the setting of a kind of traffic is called.
pub(super) fn setting(load: &str, services: u32) -> String {
    format!("{load}, {},000 services", services / 1000)
}

fn measure(services: u32, extent: &Extent, weir: &Path, generator: &Path, cpu: usize) -> Result<Vec<Row>> {
    step("Setting up", setting("every way of forwarding", services));
    let ports = cluster::ports(services);
    let mut sets = Vec::new();
    for way in Way::ALL {
        let set = Set::up(way, &way.word(), &ports, weir, cpu)?;
        let servers = Servers::start(generator, &set.network, cpu)?;
        sets.push((set, servers));
    }
    let loading = |(set, _): &(Set, Servers)| Row {
        bench: "e2e".to_owned(),
        subject: set.way.name().to_owned(),
        setting: setting("until in force", services),
        unit: "s".to_owned(),
        value: Spread::of(&[set.loading.as_secs_f64()]),
        ratio: None,
    };
    let has_rules = |(set, _): &&(Set, Servers)| !matches!(set.way, Way::Direct | Way::Plain);
    let mut rows: Vec<_> = sets.iter().filter(has_rules).map(loading).collect();
    let loads = if extent.whole { &Load::ALL[..] } else { &Load::WITH_A_GOAL };
    for &load in loads {
        step("Measuring", setting(load.name(), services));
        let (mut rates, mut middles, mut tails) =
            (Samples::default(), Samples::default(), Samples::default());
        for round in 0..=extent.rounds {
            for (set, _servers) in &sets {
                let Some(Sample { rate, p50, p99 }) = load::send(load, generator, set, cpu, extent.seconds)?
                else {
                    continue;
                };
                // The first round finds caches cold and neighbours unknown.
                if round > 0 {
                    rates.add("", set.way.name(), rate);
                    middles.add("", set.way.name(), p50);
                    tails.add("", set.way.name(), p99);
                }
            }
        }
        let name = setting(load.name(), services);
        rows.extend(rows_of(&name, load.unit(), &rates));
        if load == Load::Request {
            rows.extend(rows_of(&setting("median of TCP request/response", services), "µs", &middles));
            rows.extend(rows_of(&setting("p99 of TCP request/response", services), "µs", &tails));
        }
    }
    Ok(rows)
}

fn rows_of(setting: &str, unit: &str, samples: &Samples) -> Vec<Row> {
    let plain = samples.of("", Way::Plain.name());
    let row = |way: Way| {
        let of = samples.of("", way.name());
        (!of.is_empty()).then(|| Row {
            bench: "e2e".to_owned(),
            subject: way.name().to_owned(),
            setting: setting.to_owned(),
            unit: unit.to_owned(),
            value: Spread::of(of),
            ratio: Some(Ratio { to: Way::Plain.name().to_owned(), spread: Spread::ratio(of, plain) }),
        })
    };
    Way::ALL.into_iter().filter_map(row).collect()
}
