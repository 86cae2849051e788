//! Every case of the project on nodes with agents and real traffic. Needs root and the kernel programs.

use std::path::Path;

use weir_tests::{
    conformance::{self, Live, Report, Subset},
    live::isolated,
};

fn run(folders: &[&str]) -> Report {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let folders: Vec<_> = folders.iter().map(|folder| cases.join(folder)).collect();
    let report =
        isolated(|| conformance::run(&folders, Subset::ALL, &mut Live::default(), &mut |_, _, _| ()))
            .unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.failed, report.skipped), (0, 0), "{}", findings.join("\n"));
    report
}

#[test]
fn cases_of_both_kinds_run_one_after_the_other() {
    let case = "policy/both-ends-protocol-intersection";
    let report = run(&[case, "service/clusterip-udp", case, "service/dual-stack"]);
    assert!(report.passed > 4, "only {report}");
}

#[test]
fn every_policy_case_holds_on_live_nodes() {
    let report = run(&["policy", "policy-cluster", "policy-cluster-random", "policy-e2e", "policy-random"]);
    assert!(report.passed >= 39_000, "only {report}");
}

#[test]
fn every_service_case_holds_on_live_nodes() {
    let report = run(&["service"]);
    assert!(report.passed >= 216, "only {report}");
}
