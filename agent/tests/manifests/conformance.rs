//! The conformance data of the repository.

use std::{fs, path::Path};

use weir::manifest;

#[test]
fn what_an_api_server_refuses_is_refused_at_its_field_and_the_rest_is_not() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/policy-invalid");
    let mut count = 0;
    for case in fs::read_dir(&cases).unwrap() {
        let case = case.unwrap().path();
        let expected = fs::read(case.join("expect.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let result = manifest::read(&[case.join("object.yaml")]);
        assert_eq!(result.is_ok(), expected["valid"] == true, "{}: {result:?}", case.display());
        if let Err(diagnostics) = result {
            assert_eq!(diagnostics.errors(), 1, "{diagnostics}");
            assert!(diagnostics.iter().all(|error| error.message.starts_with("spec.")), "{diagnostics}");
        }
        count += 1;
    }
    assert!(count >= 37, "{count} cases");
}
