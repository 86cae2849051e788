//! Every case of the project, at the level of the model.

use std::path::Path;

use weir_tests::conformance::{self, Model, Subset};

#[test]
fn every_case_holds_in_the_model() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut run = 0;
    let report =
        conformance::run(&[cases], Subset::ALL, &mut Model::default(), &mut |_, all, _| run = all).unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.failed, report.skipped), (0, 0), "{}", findings.join("\n"));
    assert!(run >= 400 && report.passed >= 39_700, "only {report} in {run} cases");
}
