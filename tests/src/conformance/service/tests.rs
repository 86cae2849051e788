//! The runner notices when an expectation is not met: cases are falsified one expectation at a time.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{case::Case, run_case};

/// Every case, with its directory.
fn cases() -> impl Iterator<Item = (PathBuf, Value)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/service");
    let directories = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    directories.map(|directory| {
        let text = fs::read(directory.join("expect.json")).unwrap();
        (directory, serde_json::from_slice(&text).unwrap())
    })
}

/// Falsifies each expectation of a kind with `falsify`, which says whether it could, and demands that each
/// is noticed. Returns how many there were.
fn noticed(kind: &str, falsify: impl Fn(&mut Value) -> bool) -> usize {
    let mut count = 0;
    for (directory, case) in cases() {
        for step in 0..case["steps"].as_array().unwrap().len() {
            for index in 0..case["steps"][step][kind].as_array().map_or(0, Vec::len) {
                let mut false_case = case.clone();
                let expectation = &mut false_case["steps"][step][kind][index];
                if !falsify(expectation) {
                    continue;
                }
                let told = expectation.to_string();
                let case: Case = serde_json::from_value(false_case).unwrap();
                let failures = run_case(&directory, &case).unwrap().failures;
                assert_eq!(failures.len(), 1, "{}: {told}: {failures:?}", directory.display());
                count += 1;
            }
        }
    }
    count
}

#[test]
fn a_wrong_verdict_is_noticed() {
    let count = noticed("packets", |packet| {
        packet["expect"] = json!(if packet["expect"] == "drop" { "reject" } else { "drop" });
        true
    });
    assert!(count > 200);
}

#[test]
fn a_backend_too_many_or_too_few_is_noticed() {
    let with = noticed("packets", |packet| {
        let backends = packet["backends"].as_array_mut();
        backends.map(|backends| backends.push(json!("203.0.113.1:1"))).is_some()
    });
    let without = noticed("packets", |packet| {
        // Where the answer depends on earlier steps, the backends are those that may be chosen.
        let backends = packet["backends"].as_array_mut().filter(|backends| backends.len() > 1);
        backends.map(|backends| backends.pop()).is_some()
    });
    assert!(with > 100 && without > 50, "{with} {without}");
}

#[test]
fn a_wrong_masquerade_is_noticed() {
    let count = noticed("packets", |packet| {
        let Some(snat) = packet["snat"].as_bool() else { return false };
        match packet.get_mut("snat_by_backend").and_then(Value::as_object_mut) {
            Some(each) => each.values_mut().for_each(|snat| *snat = json!(!snat.as_bool().unwrap())),
            None => packet["snat"] = json!(!snat),
        }
        true
    });
    assert!(count > 100);
}

#[test]
fn a_wrong_answer_or_timeout_is_noticed() {
    for (field, wrong) in [
        ("reject_with", json!("tcp-reset")),
        ("sticky_timeout_s", json!(3)),
        ("distribution", json!("skewed")),
    ] {
        let count = noticed("packets", |packet| {
            let given = packet.get(field).is_some();
            packet[field] = wrong.clone();
            given
        });
        assert!(count > 0, "{field}");
    }
}

#[test]
fn a_client_that_does_not_stick_is_noticed() {
    let count = noticed("packets", |packet| {
        let several = packet["backends"].as_array().is_some_and(|backends| backends.len() > 1);
        let free = several && packet.get("sticky").is_none();
        packet["sticky"] = json!(true);
        free
    });
    assert!(count > 50);
}

#[test]
fn a_flow_that_goes_elsewhere_is_noticed() {
    for wrong in [json!(["203.0.113.1:1"]), json!([])] {
        assert_eq!(
            noticed("flows", |flow| {
                flow["after"] = wrong.clone();
                true
            }),
            4
        );
    }
}

#[test]
fn a_wrong_health_check_is_noticed() {
    for (field, wrong) in
        [("status", json!(503)), ("localEndpoints", json!(7)), ("service", json!("default/other"))]
    {
        let count = noticed("healthz", |health| {
            // Nobody listens for the other service either.
            let told = field == "status" || !health["status"].is_null();
            health[field] = wrong.clone();
            told
        });
        assert!(count > 0, "{field}");
    }
}
