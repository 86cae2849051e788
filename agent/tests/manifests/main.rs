//! Reading manifests through the public interface.

mod cluster;
mod conformance;
mod errors;
mod files;
mod kept;
mod kinds;
mod probes;
mod robust;

use weir::{
    cluster::{Cluster, Objects},
    manifest::{self, Diagnostics, Documents},
};

/// What is read from a text that is right.
fn read(text: &str) -> Documents {
    manifest::from_text("test.yaml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// The messages about a text that is wrong, without the excerpts.
fn errors(text: &str) -> Vec<String> {
    match manifest::from_text("test.yaml", text) {
        Ok(documents) => panic!("accepted: {documents:#?}"),
        Err(diagnostics) => messages(&diagnostics),
    }
}

fn messages(diagnostics: &Diagnostics) -> Vec<String> {
    let message =
        |diagnostic: &manifest::Diagnostic| format!("{}: {}", diagnostic.source, diagnostic.message);
    diagnostics.iter().map(message).collect()
}

/// The objects of a text that is right.
fn objects(text: &str) -> Objects {
    let mut objects = Objects::default();
    objects.insert_all(read(text));
    objects
}

fn cluster(text: &str) -> Cluster {
    objects(text).build().unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// An object of a kind with the rest of its text, both indented as they come.
fn object(api_version: &str, kind: &str, name: &str, rest: &str) -> String {
    format!("---\napiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}}}\n{rest}\n")
}

fn service(name: &str, spec: &str) -> String {
    object("v1", "Service", name, &format!("spec: {spec}"))
}

fn policy(spec: &str) -> String {
    object("networking.k8s.io/v1", "NetworkPolicy", "p", &format!("spec: {spec}"))
}

fn cluster_policy(spec: &str) -> String {
    let spec = format!("spec: {spec}");
    object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "c", &spec)
}

fn pod(name: &str, spec: &str, status: &str) -> String {
    object("v1", "Pod", name, &format!("spec: {spec}\nstatus: {status}"))
}

/// Each text is refused with one error, which has the words; the empty words stand for a text that is right.
fn assert_each(cases: &[(String, &str)]) {
    for (text, words) in cases {
        match (manifest::from_text("test.yaml", text), *words) {
            (Ok(_), "") => {}
            (Ok(_), _) => panic!("accepted: {text}"),
            (Err(diagnostics), "") => panic!("{text}\n{diagnostics}"),
            (Err(diagnostics), words) => {
                let said = messages(&diagnostics);
                assert!(said.len() == 1 && said[0].contains(words), "{text}\n{diagnostics}\nwants: {words}");
            }
        }
    }
}
