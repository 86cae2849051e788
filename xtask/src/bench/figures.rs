//! The figures that weir is to reach, each with what a run reached.

use super::{prog, report::Report};

/// A figure.
pub(super) struct Figure {
    /// What is measured.
    pub(super) path: &'static str,
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

/// All figures.
pub(super) fn of(report: &Report) -> Vec<Figure> {
    let figure = |path, goal, reached| Figure { path, goal, reached };
    let look = Look { report };
    let (many, most) = (prog::flows(10_000), prog::flows(100_000));
    let connect = "TCP connect/request/close, 1,000 services";
    let mut figures = vec![
        figure(
            "TC, pod to ClusterIP, policy at both ends, established, 10,000 flows",
            "≤ 2 × LRU look-up",
            look.at_most(2.0, "prog", "from_pod: to a ClusterIP", &many, "× LRU look-up"),
        ),
        figure(
            "the same, 100,000 flows",
            "(no goal)",
            look.at_most(f64::MAX, "prog", "from_pod: to a ClusterIP", &most, "× LRU look-up"),
        ),
        figure(
            "the same, new flow, the table full",
            "≤ 2 × LRU update",
            look.at_most(2.0, "prog", "from_pod: to a ClusterIP", prog::EVICTION, "× LRU update"),
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
            "TCP connect/request/close, 1 → 10,000 services",
            "within 3 %",
            look.loss(
                3.0,
                ("e2e", WEIR, "TCP connect/request/close, 1 service"),
                ("e2e", WEIR, "TCP connect/request/close, 10,000 services"),
            ),
        ),
    ];
    figures.extend(of_scale(&look));
    figures
}

/// Of the bench `scale`.
fn of_scale(look: &Look<'_>) -> Vec<Figure> {
    let figure = |path, goal, subject, limit| Figure { path, goal, reached: look.value(limit, subject) };
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

    /// How much of a ratio is lost between two settings.
    fn loss(&self, percent: f64, from: Place<'_>, to: Place<'_>) -> Option<Reached> {
        let lost = (1.0 - self.ratio(to)? / self.ratio(from)?) * 100.0;
        Some(Reached { text: format!("{lost:.1} % less"), is_enough: lost <= percent })
    }

    fn ratio(&self, (bench, subject, setting): Place<'_>) -> Option<f64> {
        Some(self.report.row(bench, subject, setting)?.ratio.as_ref()?.spread.median)
    }
}
