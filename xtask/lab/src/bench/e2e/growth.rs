//! Whether the cost of a connection grows with the cluster: the same traffic through a small one and large ones, in
//! turns.

use std::path::Path;

use anyhow::Result;
use xtask::shell::step;

use super::{
    Extent, cluster,
    load::{self, Load, Servers},
    variant::{Set, Way},
};
use crate::bench::{
    report::{Ratio, Row, Samples},
    stats::Spread,
};

/// How the rows' setting is called.
pub(in crate::bench) const SETTING: &str = "TCP connect/request/close, in clusters of several sizes";
/// weir with many services.
pub(in crate::bench) const SERVICES: &str = "weir, 10,000 services";
/// weir with many policies.
pub(in crate::bench) const POLICIES: &str = "weir, 1,000 policies";

/// A cluster: what its row is called and to which it is compared, a word for namespaces, the way of forwarding, and
/// the number of services.
struct Size(&'static str, &'static str, &'static str, Way, u32);

const SMALL: &str = "weir, 1 service, 1 policy";
const SMALL_IPTABLES: &str = "kube-proxy, iptables, 1 service";

const SIZES: [Size; 5] = [
    Size(SMALL, SMALL, "small", Way::Weir(1), 1),
    Size(SERVICES, SMALL, "services", Way::Weir(1), 10_000),
    Size(POLICIES, SMALL, "policies", Way::Weir(1_000), 1),
    Size(SMALL_IPTABLES, SMALL_IPTABLES, "ipt1", Way::Iptables, 1),
    Size("kube-proxy, iptables, 10,000 services", SMALL_IPTABLES, "ipt10000", Way::Iptables, 10_000),
];

/// Measures them.
pub(super) fn measure(extent: &Extent, weir: &Path, generator: &Path, cpu: usize) -> Result<Vec<Row>> {
    step("Setting up", SETTING);
    let mut sets = Vec::new();
    let is_measured = |Size(.., way, _): &&Size| extent.whole || matches!(way, Way::Weir(_));
    let sizes = || SIZES.iter().filter(is_measured);
    for &Size(name, _, word, way, services) in sizes() {
        let set = Set::up(way, word, &cluster::ports(services), weir, cpu)?;
        let servers = Servers::start(generator, &set.network, cpu)?;
        sets.push((name, set, servers));
    }
    step("Measuring", SETTING);
    let mut samples = Samples::default();
    for round in 0..=extent.rounds {
        for (name, set, _servers) in &sets {
            let sample = load::send(Load::Connect, generator, set, cpu, extent.seconds)?;
            // The first round finds caches cold and neighbours unknown.
            if let Some(sample) = sample.filter(|_| round > 0) {
                samples.add("", name, sample.rate);
            }
        }
    }
    let row = |&Size(name, small, ..): &Size| Row {
        bench: "e2e".to_owned(),
        subject: name.to_owned(),
        setting: SETTING.to_owned(),
        unit: Load::Connect.unit().to_owned(),
        value: Spread::of(samples.of("", name)),
        ratio: Some(Ratio {
            to: "the small cluster".to_owned(),
            spread: Spread::ratio(samples.of("", name), samples.of("", small)),
        }),
    };
    Ok(sizes().map(row).collect())
}
