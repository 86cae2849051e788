//! Every service case, at the level of the compiled datapath's own model.

use std::{fs, path::Path};

use weir_tests::conformance::service;

#[test]
fn every_service_case_holds_in_the_model() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/service");
    let (mut run, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(cases).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match service::run(&case) {
            Ok(report) => {
                assert!(report.checks > 0, "{name}: nothing was checked");
                assert!(report.unknown.is_empty(), "{name}: nothing is done with {:?}", report.unknown);
                failures.extend(report.failures.iter().map(|failure| format!("{name}: {failure}")));
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
        run += 1;
    }
    assert!(run >= 90, "only {run} cases");
    assert!(failures.is_empty(), "{} failures in {run} cases:\n{}", failures.len(), failures.join("\n"));
}
