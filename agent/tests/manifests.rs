//! Reading manifests through the public interface: every conformance object, and what no reader may choke on.

use std::{fs, path::Path};

use weir::{
    cluster::{Cluster, Objects},
    manifest::{self, Diagnostics, Documents},
};

fn errors(text: &str) -> String {
    match manifest::from_text("test.yaml", text) {
        Ok(documents) => panic!("accepted: {documents:#?}"),
        Err(diagnostics) => diagnostics.render(false),
    }
}

fn read(text: &str) -> Documents {
    manifest::from_text("test.yaml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn cluster(text: &str) -> Result<Cluster, Diagnostics> {
    let mut objects = Objects::default();
    objects.insert_all(read(text));
    objects.build()
}

#[test]
fn objects_that_an_api_server_refuses_are_refused_and_the_others_are_not() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/policy-invalid");
    let mut count = 0;
    for case in fs::read_dir(&cases).unwrap() {
        let case = case.unwrap().path();
        let expected: serde_json::Value =
            serde_json::from_slice(&fs::read(case.join("expect.json")).unwrap()).unwrap();
        let result = manifest::read(&[case.join("object.yaml")]);
        assert_eq!(result.is_ok(), expected["valid"] == true, "{}: {result:?}", case.display());
        count += 1;
        if let Err(diagnostics) = result {
            eprint!("{}\n{diagnostics}", expected["reason"]);
        }
    }
    assert!(count >= 37, "{count} cases");
}

#[test]
