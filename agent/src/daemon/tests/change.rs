//! Applying, deleting, reloading, refusing.

use super::*;
use crate::{
    cluster::Name,
    daemon::enforcer::EnforceError,
    datapath::RuleOrigin,
    protocol::{FailureKind, Kind as Listed, Listing, PolicyName},
};

const NAME: &str = "networkpolicy.networking.k8s.io/demo/deny";

#[test]
fn an_applied_object_is_created_then_unchanged_then_configured() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    let created = engine.apply(DENY).unwrap();
    let unchanged = engine.apply(DENY).unwrap();
    let configured = engine.apply(ALLOW_WEB).unwrap();

    assert_eq!(outcomes(&created), [(NAME, Outcome::Created)]);
    assert_eq!(outcomes(&unchanged), [(NAME, Outcome::Unchanged)]);
    assert_eq!(outcomes(&configured), [(NAME, Outcome::Configured)]);
    assert_eq!((created.revision, unchanged.revision, configured.revision), (2, 2, 3));
    assert!(host.world().datapath.endpoints[&"10.0.0.2".parse().unwrap()].ingress.is_some());
}

#[test]
fn a_dry_run_changes_nothing() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    let commits = host.world().commits;

    let answer = engine.answer(Request::Change { change: applied(DENY), dry_run: true });

    assert!(
        matches!(answer, Response::Changed(changed) if changed.revision == 1 && changed.objects[0].outcome == Outcome::Created)
    );
    assert_eq!(host.world().commits, commits);
    assert_eq!(engine.policies(), 0);
}

#[test]
fn a_change_that_does_not_fit_is_found_before_it_is_made() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    host.world().room = Some(0);

    let dry_run = engine.answer(Request::Change { change: applied(DENY), dry_run: true });
    let diff = engine.answer(Request::Diff { change: applied(DENY) });

    for answer in [dry_run, diff] {
        let Response::Failed(failure) = answer else { panic!("{answer:?}") };
        assert_eq!(failure.kind, FailureKind::Kernel);
        assert_eq!(failure.message, "RULES is full; nothing was applied (revision 1 stays active)");
    }
}

#[test]
fn objects_that_contradict_each_other_are_refused_whole() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    let same_address = "\
apiVersion: v1
kind: Pod
metadata: {name: thief, namespace: demo}
spec: {nodeName: a, containers: [{name: c}]}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
";

    let failure = engine.apply(&format!("{DENY}---\n{same_address}")).unwrap_err();

    assert_eq!(failure.kind, FailureKind::Input);
    assert!(
        failure.message.contains("error: ") && failure.message.contains("10.0.0.2"),
        "{}",
        failure.message
    );
    assert!(
        failure.message.ends_with("1 error; nothing was applied (revision 1 stays active)"),
        "{}",
        failure.message
    );
    assert_eq!(engine.policies(), 0);
    assert_eq!(engine.ask_status().refused, 1);
}

#[test]
fn a_commit_that_the_kernel_refuses_leaves_everything_as_it_was() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    host.world().refuse_commit = Some(|| EnforceError::RolledBack("map PEERS is full".into()));

    let failure = engine.apply(DENY).unwrap_err();

    assert_eq!(failure.kind, FailureKind::RolledBack);
    assert!(failure.message.contains("PEERS is full") && failure.message.contains("revision 1 stays active"));
    host.world().refuse_commit = None;
    assert_eq!(engine.policies(), 0);
    assert_eq!(engine.apply(DENY).unwrap().revision, 2);
}

#[test]
fn watched_files_are_enforced_when_they_change() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    host.write(&format!("{CLUSTER}---\n{DENY}"));
    engine.reload().unwrap();
    assert_eq!((engine.policies(), engine.ask_status().revision), (1, 2));

    host.write(CLUSTER);
    engine.reload().unwrap();
    assert_eq!((engine.policies(), engine.ask_status().revision), (0, 3));

    let commits = host.world().commits;
    engine.reload().unwrap();
    assert_eq!(engine.ask_status().revision, 3);
    assert_eq!(host.world().commits, commits);
}

#[test]
fn bad_files_keep_the_last_good_revision_and_say_so_until_they_are_right() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    host.write(&format!("{CLUSTER}---\n{}", DENY.replace("podSelector", "podSelecter")));
    engine.reload().unwrap_err();
    let bad = engine.ask_status();
    host.write(CLUSTER);
    engine.reload().unwrap();
    let good = engine.ask_status();

    assert_eq!((bad.revision, bad.pods_enforced, bad.refused), (1, 2, 1));
    assert!(bad.problems[0].contains("podSelecter") && bad.problems[0].contains("^^^"), "{:?}", bad.problems);
    assert_eq!((good.problems, good.last_error), (Vec::new(), None));
}

#[test]
fn a_file_that_disappears_removes_nothing() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    fs::remove_file(host.file()).unwrap();

    assert!(engine.reload().is_err());
    assert_eq!(engine.ask_status().pods_enforced, 2);
}

#[test]
fn what_a_client_applied_stays_over_the_files_until_they_say_something_new_about_it() {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{DENY}"));
    let mut engine = host.start().unwrap();
    engine.apply(ALLOW_WEB).unwrap();

    // The object moves to another line, and a neighbour changes: neither is news about it.
    host.write(&format!("{DENY}---\n{}", CLUSTER.replace("app: web", "app: shop")));
    engine.reload().unwrap();
    assert_eq!(rules(&mut engine), "1");

    host.write(&format!("{CLUSTER}---\n{}", DENY.replace("[Ingress]", "[Ingress, Egress]")));
    engine.reload().unwrap();
    assert_eq!(rules(&mut engine), "0");
}

/// Number of ingress rules of the one policy.
fn rules(engine: &mut Engine<Fake, Fake>) -> String {
    listing(engine, Listed::Policies).rows[0].cells[1].clone()
}

fn listing(engine: &mut Engine<Fake, Fake>, kind: Listed) -> Listing {
    match engine.answer(Request::Get { kind, name: None, namespace: None }) {
        Response::Listing(listing) => listing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deleted_object_of_the_files_stays_deleted_until_they_say_something_new_about_it() {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{DENY}"));
    let mut engine = host.start().unwrap();

    let deleted = engine.delete(Kind::NetworkPolicy, "demo", "deny").unwrap();
    assert_eq!(outcomes(&deleted), [(NAME, Outcome::Deleted)]);
    engine.reload().unwrap();
    assert_eq!(engine.policies(), 0);

    host.write(&format!("{CLUSTER}---\n{ALLOW_WEB}"));
    engine.reload().unwrap();
    assert_eq!(engine.policies(), 1);
}

#[test]
fn applying_what_the_files_say_brings_the_files_back_in_charge() {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{DENY}"));
    let mut engine = host.start().unwrap();
    engine.apply(ALLOW_WEB).unwrap();
    engine.apply(DENY).unwrap();

    host.write(CLUSTER);
    engine.reload().unwrap();

    assert_eq!(engine.policies(), 0);
}

#[test]
fn deleting_what_is_not_there_is_a_negative_answer() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    let failure = engine.delete(Kind::NetworkPolicy, "demo", "nothing").unwrap_err();

    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("NetworkPolicy demo/nothing is not there"), "{}", failure.message);
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let host = Host::new();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n";
    host.write(&format!("{CLUSTER}---\n{DENY}---\n{namespace}"));
    let mut engine = host.start().unwrap();

    let deleted = engine.delete(Kind::Namespace, "", "demo").unwrap();

    assert_eq!(deleted.objects.len(), 4);
    assert_eq!(engine.policies(), 0);
    assert!(host.world().interfaces.is_empty());
}

#[test]
fn the_last_change_can_be_undone_once() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    engine.apply(DENY).unwrap();

    let undone = engine.answer(Request::Undo { revision: 2 });
    assert!(matches!(undone, Response::Changed(changed) if changed.revision == 3));
    assert_eq!(engine.policies(), 0);

    let again = engine.answer(Request::Undo { revision: 3 });
    assert!(matches!(again, Response::Failed(Failure { kind: FailureKind::NotFound, .. })));
}

#[test]
fn a_difference_shows_objects_and_verdicts() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    let Response::Difference(deny) = engine.answer(Request::Diff { change: applied(DENY) }) else { panic!() };
    let Response::Difference(nothing) = engine.answer(Request::Diff { change: applied(CLUSTER) }) else {
        panic!()
    };

    assert_eq!(deny.objects.len(), 1);
    assert!(deny.objects[0].before.is_empty() && deny.objects[0].after.contains("podSelector"));
    let verdicts: Vec<_> = deny
        .verdicts
        .iter()
        .map(|verdict| {
            (
                verdict.source.as_str(),
                verdict.destination.as_str(),
                verdict.port.as_str(),
                verdict.before,
                verdict.after,
            )
        })
        .collect();
    assert_eq!(verdicts, [("demo/web", "demo/db", "5432/TCP", true, false)]);
    assert_eq!(nothing, Default::default());
}

#[test]
fn a_denied_connection_is_explained_by_the_policy_and_its_place() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    let explain = || Request::Explain { source: "demo/web".into(), destination: "demo/db:5432".into() };

    let Response::Explained { allowed: before, .. } = engine.answer(explain()) else { panic!() };
    engine.apply(DENY).unwrap();
    let Response::Explained { allowed: after, text } = engine.answer(explain()) else { panic!() };

    assert!(before && !after);
    assert!(text.starts_with("DENIED demo/web -> demo/db:5432/TCP\n"), "{text}");
    assert!(text.contains("isolated by demo/deny (cli.yaml:1:1)"), "{text}");
}

#[test]
fn every_kind_is_listed_with_a_cell_for_each_column() {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{DENY}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: demo}}\nspec: {{clusterIP: 10.96.0.1, selector: {{app: web}}, ports: [{{port: 80}}]}}\n"));
    let mut engine = host.start().unwrap();

    for (kind, number) in [
        (Listed::Pods, 2),
        (Listed::Services, 1),
        (Listed::Policies, 1),
        (Listed::Endpoints, 2),
        (Listed::Nodes, 1),
        (Listed::Namespaces, 1),
    ] {
        let listing = listing(&mut engine, kind);
        let names: Vec<_> = listing.rows.iter().map(|row| &row.name).collect();
        assert!(listing.rows.len() >= number, "{kind:?}: {names:?}");
        assert!(listing.rows.iter().all(|row| row.cells.len() == listing.columns.len()), "{kind:?}");
    }
}

#[test]
fn policies_are_listed_with_what_they_decided_and_rules_one_by_one() {
    let host = Host::new();
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: demo}\nspec:\n  podSelector: {}\n  ingress:\n  - {from: [{podSelector: {}}]}\n  - {ports: [{port: 80}]}\n";
    let absent = policy
        .replace("name: db", "name: absent")
        .replace("podSelector: {}\n", "podSelector: {matchLabels: {no: pod}}\n");
    host.write(&format!("{CLUSTER}---\n{policy}---\n{absent}"));
    let mut engine = host.start().unwrap();
    let rules = engine.active.as_ref().unwrap().datapath.rules.clone();
    // The fake kernel counts as many connections as the number of the rule, of ten packets each.
    let number = |wanted: Option<usize>| {
        let is_it = |origin: &RuleOrigin| match origin {
            RuleOrigin::Policy { index, .. } => Some(*index) == wanted,
            _ => wanted.is_none(),
        };
        let found = rules.iter().find(|(_, origin)| is_it(origin));
        found.map(|(rule, _)| format!("{rule} {}", rule * 10)).unwrap()
    };

    let policies = listing(&mut engine, Listed::Policies);
    let listed = listing(&mut engine, Listed::Rules);
    let name = PolicyName::Namespaced(Name { namespace: "demo".into(), name: "db".into() });
    let described = engine.answer(Request::DescribePolicy(name));

    let column = policies.columns.iter().position(|column| column.header == "CONNECTIONS").unwrap();
    assert!(policies.columns[column].sum && !policies.columns[column].wide);
    let all: u32 = rules.keys().sum();
    assert!(policies.columns[column + 1].header == "PACKETS" && policies.columns[column + 1].sum);
    let counts: Vec<_> = policies
        .rows
        .iter()
        .map(|row| (row.name.as_str(), row.cells[column..column + 2].join(" ")))
        .collect();
    assert_eq!(counts, [("absent", " ".to_owned()), ("db", format!("{all} {}", all * 10))]);
    let of_db = listed.rows.iter().filter(|row| row.name == "db");
    let cells: Vec<_> = of_db.map(|row| row.cells[..4].join(" ")).collect();
    assert_eq!(
        cells,
        [
            format!("ingress[0] Accept {}", number(Some(0))),
            format!("ingress[1] Accept {}", number(Some(1))),
            format!("ingress, no rule matches Deny {}", number(None)),
        ]
    );
    assert!(listed.rows.iter().all(|row| row.cells[4].contains(".yaml:")), "{listed:?}");
    let Response::Policy(report) = described else { panic!("{described:?}") };
    let counts = report.rules.iter().map(|rule| rule.counts.unwrap());
    let counts: Vec<_> = counts.map(|counts| format!("{} {}", counts.connections, counts.packets)).collect();
    assert_eq!(counts, [Some(0), Some(1), None].map(number));
    assert_eq!(report.nodes, [engine.settings.node.as_str()]);
}
