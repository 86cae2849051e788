//! Every policy case of the project on the loaded programs. Needs root and the kernel programs.

use std::path::Path;

use weir_tests::{
    conformance::{self, Loaded, Subset},
    packets::in_namespace,
};

#[test]
fn every_policy_case_holds_in_the_loaded_programs() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let folders = ["policy", "policy-cluster", "policy-cluster-random", "policy-e2e", "policy-random"];
    let folders = folders.map(|folder| cases.join(folder));
    let mut run = 0;
    let report = in_namespace(|| {
        conformance::run(&folders, Subset::ALL, &mut Loaded::default(), &mut |_, all, _| run = all)
    })
    .unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.failed, report.skipped), (0, 0), "{}", findings.join("\n"));
    assert!(run >= 250 && report.passed >= 30_000, "only {report} in {run} cases");
}
