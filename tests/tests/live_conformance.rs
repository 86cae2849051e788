//! Every policy case on two nodes with agents and real sockets. Needs root and the kernel programs.

use std::path::Path;

use weir_tests::{
    conformance::{self, Live, Subset},
    live::isolated,
};

#[test]
fn every_policy_case_holds_on_live_nodes() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let folders = ["policy", "policy-cluster", "policy-cluster-random", "policy-e2e", "policy-random"];
    let folders = folders.map(|folder| cases.join(folder));
    let mut run = 0;
    let report = isolated(|| {
        conformance::run(&folders, Subset::ALL, &mut Live::default(), &mut |_, all, _| run = all)
    });
    let report = report.unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.failed, report.skipped), (0, 0), "{}", findings.join("\n"));
    assert!(run >= 250 && report.passed >= 39_000, "only {report} in {run} cases");
}
