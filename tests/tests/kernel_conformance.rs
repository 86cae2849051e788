//! Every case of the project on the loaded programs. Needs root and the kernel programs.

use std::path::Path;

use weir_tests::{
    conformance::{self, Loaded, Report, Subset},
    packets::in_namespace,
};

/// Runs the cases of these folders. Gives what they came to, and the number of packets that the edge has sent on.
fn run(folders: &[&str]) -> (Report, u64) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let folders: Vec<_> = folders.iter().map(|folder| cases.join(folder)).collect();
    let (report, sent_on) = in_namespace(|| {
        let mut level = Loaded::default();
        let report = conformance::run(&folders, Subset::ALL, &mut level, &mut |_, _, _| ()).unwrap();
        (report, level.sent_on_at_edge().unwrap())
    });
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.failed, report.skipped), (0, 0), "{}", findings.join("\n"));
    (report, sent_on)
}

#[test]
fn every_policy_case_holds_in_the_loaded_programs() {
    let (report, _) =
        run(&["policy", "policy-cluster", "policy-cluster-random", "policy-e2e", "policy-random"]);
    assert!(report.passed >= 30_000, "only {report}");
}

#[test]
fn every_service_case_holds_in_the_loaded_programs() {
    let (report, sent_on) = run(&["service"]);
    assert!(report.passed >= 216, "only {report}");
    assert!(sent_on >= 1000, "of masqueraded flows only {sent_on} packets were sent on at XDP");
}
