//! The figures that weir is to reach, each with what a run reached.

use super::{e2e::growth, prog, report::Report};

/// A figure.
pub(super) struct Figure {
    /// What is measured.
    pub(super) path: String,
    /// What it is to be.
    pub(super) goal: &'static str,
    /// What it was, and whether that will do; `None` where this run has not measured it.
    pub(super) reached: Option<Reached>,
}

/// What a run reached.
pub(super) struct Reached {
    /// How much.
    pub(super) text: String,
    /// Whether that will do.
    pub(super) is_enough: bool,
}

fn figure(path: impl Into<String>, goal: &'static str, reached: Option<Reached>) -> Figure {
    Figure { path: path.into(), goal, reached }
}

/// All figures.
pub(super) fn of(report: &Report) -> Vec<Figure> {
    let look = Look { report };
    let many = prog::flows(10_000);
    let connect = "TCP connect/request/close, 1,000 services";
    let (one, many_at_xdp, most_at_xdp) = (prog::at_xdp(1), prog::at_xdp(10_000), prog::at_xdp(100_000));
    let mut figures = Vec::new();
    for (name, subject) in [("IP in IP", prog::TUNNEL), ("DNAT and SNAT", prog::NAT)] {
        let look_up = |setting| look.at_most(1.2, "prog", subject, setting, "× LRU look-up");
        figures.extend([
            figure(
                format!("XDP edge, service hit, {name}, 10,000 flows"),
                "≤ 1.2 × LRU look-up",
                look_up(&many_at_xdp),
            ),
            figure("the same, 1 flow", "≤ 45 ns over null", look.nanoseconds(45.0, subject, &one)),
            figure("the same, 100,000 flows", "≤ 1.2 × LRU look-up", look_up(&most_at_xdp)),
        ]);
    }
    figures.extend([
        figure(
            "XDP edge, new flow with eviction",
            "≤ 1.2 × LRU update",
            look.at_most(1.2, "prog", prog::TUNNEL, prog::EVICTION_AT_XDP, "× LRU update"),
        ),
        figure("XDP, dropping a denied source", "≤ 20 ns over parse", look.over_parse(20.0, &one)),
        figure(
            "TC, pod to ClusterIP, policy at both ends, established, 10,000 flows",
            "≤ 2 × LRU look-up",
            look.at_most(2.0, "prog", prog::TO_SERVICE, &many, "× LRU look-up"),
        ),
        figure(
            "the same, new flow, the table full",
            "≤ 2 × LRU update",
            look.at_most(2.0, "prog", prog::TO_SERVICE, prog::EVICTION, "× LRU update"),
        ),
        figure(
            "TCP connect/request/close, ClusterIP, 1,000 services, 100 policies",
            "≥ 1.10 of plain routing",
            look.at_least(1.10, WEIR_POLICIES, connect),
        ),
        figure(
            "the same by NodePort with masquerade",
            "≥ 1.03",
            look.at_least(1.03, WEIR, "the same by NodePort, 1,000 services"),
        ),
        figure(
            "TCP request/response, rate",
            "≥ 1.13",
            look.at_least(1.13, WEIR_POLICIES, "TCP request/response, 1,000 services"),
        ),
        figure(
            "TCP request/response, p99",
            "≤ ×0.88",
            look.at_most(
                0.88,
                "e2e",
                WEIR_POLICIES,
                "p99 of TCP request/response, 1,000 services",
                "of plain routing",
            ),
        ),
        figure(
            "UDP request, new socket",
            "≥ 1.04",
            look.at_least(1.04, WEIR_POLICIES, "UDP request, new socket, 1,000 services"),
        ),
        figure(
            "UDP 64-byte datagrams",
            "≥ 1.18",
            look.at_least(1.18, WEIR_POLICIES, "UDP 64 B datagrams, 1,000 services"),
        ),
        figure(
            "1 → 10,000 services, TCP connect/request/close",
            "within 3 %",
            look.loss(3.0, growth::SERVICES),
        ),
        figure("1 → 1,000 policies, the same", "within 3 %", look.loss(3.0, growth::POLICIES)),
    ]);
    figures.extend(of_scale(&look));
    figures
}

/// Of the bench `scale`.
fn of_scale(look: &Look<'_>) -> Vec<Figure> {
    let figure = |path: &str, goal, subject, limit| figure(path, goal, look.value(limit, subject));
    vec![
        figure(
            "10,000 services × 4 endpoints, from manifests on disk to enforced",
            "≤ 2 s",
            "from manifests to enforced",
            2.0,
        ),
        figure("the same, compiled to enforced", "≤ 0.5 s", "compiled to enforced", 0.5),
        figure(
            "one endpoint changed there, apply to enforced",
            "≤ 3 ms",
            "one endpoint changed, apply to enforced",
            3.0,
        ),
        figure("the same, 99th percentile", "≤ 10 ms", "the same, 99th percentile", 10.0),
        figure("packets lost meanwhile", "0", "packets lost", 0.0),
        figure("agent, resident", "≤ 60 MB", "agent, resident", 60.0),
        figure("maps of the kernel", "≤ 80 MB", "maps of the kernel", 80.0),
    ]
}

/// The cluster that the figures of `scale` are about.
const SCALE: &str = "10000 services × 4 endpoints";
const WEIR: &str = "weir";
const WEIR_POLICIES: &str = "weir, 100 policies";

/// Where to find a row: bench, subject, setting.
type Place<'a> = (&'a str, &'a str, &'a str);

struct Look<'a> {
    report: &'a Report,
}

impl Look<'_> {
    /// A ratio that is to be small.
    fn at_most(&self, limit: f64, bench: &str, subject: &str, setting: &str, of: &str) -> Option<Reached> {
        let ratio = self.ratio((bench, subject, setting))?;
        Some(Reached { text: format!("{ratio:.2} {of}"), is_enough: ratio <= limit })
    }

    /// A rate that is to be large.
    fn at_least(&self, limit: f64, subject: &str, setting: &str) -> Option<Reached> {
        let ratio = self.ratio(("e2e", subject, setting))?;
        Some(Reached { text: format!("{ratio:.2} of plain routing"), is_enough: ratio >= limit })
    }

    /// A value of the bench `scale` that is to be small.
    fn value(&self, limit: f64, subject: &str) -> Option<Reached> {
        let row = self.report.row("scale", subject, SCALE)?;
        let value = row.value.median;
        Some(Reached { text: format!("{value:.2} {}", row.unit), is_enough: value <= limit })
    }

    /// How much of the rate in a small cluster is lost in a large one.
    fn loss(&self, percent: f64, subject: &str) -> Option<Reached> {
        let lost = (1.0 - self.ratio(("e2e", subject, growth::SETTING))?) * 100.0;
        let word = if lost < 0.0 { "more" } else { "less" };
        Some(Reached { text: format!("{:.1} % {word}", lost.abs()), is_enough: lost <= percent })
    }

    /// A time of the bench `prog` that is to be small.
    fn nanoseconds(&self, limit: f64, subject: &str, setting: &str) -> Option<Reached> {
        let value = self.report.row("prog", subject, setting)?.value.median;
        Some(Reached { text: format!("{value:.0} ns"), is_enough: value <= limit })
    }

    /// What dropping a denied source costs beside parsing.
    fn over_parse(&self, limit: f64, setting: &str) -> Option<Reached> {
        let median = |subject| Some(self.report.row("prog", subject, setting)?.value.median);
        let value = median(prog::DENIED)? - median(prog::PARSE)?;
        Some(Reached { text: format!("{value:.0} ns"), is_enough: value <= limit })
    }

    fn ratio(&self, (bench, subject, setting): Place<'_>) -> Option<f64> {
        Some(self.report.row(bench, subject, setting)?.ratio.as_ref()?.spread.median)
    }
}
