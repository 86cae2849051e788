//! Every case of the project on the loaded programs. Needs root and the kernel programs.

use std::path::Path;

use weir_tests::{
    conformance::{self, Loaded, Report, Subset},
    packets::in_namespace,
};

fn run(folders: &[&str]) -> Report {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let folders: Vec<_> = folders.iter().map(|folder| cases.join(folder)).collect();
    let report =
        in_namespace(|| conformance::run(&folders, Subset::ALL, &mut Loaded::default(), &mut |_, _, _| ()))
            .unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.failed, report.skipped), (0, 0), "{}", findings.join("\n"));
    report
}

#[test]
fn every_policy_case_holds_in_the_loaded_programs() {
    let report = run(&["policy", "policy-cluster", "policy-cluster-random", "policy-e2e", "policy-random"]);
    assert!(report.passed >= 30_000, "only {report}");
}

#[test]
fn every_service_case_holds_in_the_loaded_programs() {
    let report = run(&["service"]);
    assert!(report.passed >= 216, "only {report}");
}
