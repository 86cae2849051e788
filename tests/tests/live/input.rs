//! Manifests that are wrong, and exit statuses.

use std::fs;

use weir_tests::live::{Live, MANIFESTS, apply, file, isolated, manifests, wait_until, watched, weir};

/// Three errors, on lines that the test names.
const WRONG: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: wrong
  namespace: shop
spec:
  podSelecter: {}
  policyTypes: [Ingress]
  ingress:
    - ports:
        - port: 70000
---
apiVersion: v1
kind: Service
metadata: {name: wrong, namespace: shop}
spec:
  clusterIP: 10.96.0.300
  ports: [{port: 80}]
";

#[test]
fn a_wrong_file_is_refused_with_every_error_and_changes_nothing() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let before = live.revision();
        let path = file("wrong.yaml", &(manifests::ingress("far", "far", &[]) + "---\n" + WRONG));

        let answer = weir(&["apply", "-f", &path]).exits(3);

        // The policy in front of them, which is right, has ten lines, and there is a separator.
        let first = 1 + manifests::ingress("far", "far", &[]).lines().count();
        for (line, column) in [(7, 3), (11, 17), (17, 14)] {
            let place = format!("{path}:{}:{column}: error: ", first + line);
            assert!(answer.err.contains(&place), "{place}\n{}", answer.err);
        }
        assert!(answer.err.contains("podSelecter"), "{}", answer.err);
        assert!(
            answer
                .err
                .lines()
                .filter(|line| line.trim().trim_start_matches('|').trim().starts_with('^'))
                .count()
                >= 3,
            "{}",
            answer.err
        );
        let last = format!("nothing was applied (revision {before} stays active)");
        assert!(answer.err.contains(&last), "{}", answer.err);
        assert_eq!(live.revision(), before);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
    });
}

#[test]
fn a_wrong_watched_file_leaves_the_last_good_revision_until_it_is_mended() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let before = live.revision();
        let bad = watched("more.yaml", WRONG);
        for node in ["node-1", "node-2"] {
            wait_until("the status says so", || !live.agent(node).problems().is_empty());
            let problems = live.agent(node).problems().join("\n");
            assert!(problems.contains("more.yaml:7:3: error:"), "{problems}");
        }
        assert!(weir(&["status"]).exits(1).out.contains("not ok"));
        assert_eq!(live.revision(), before);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);

        // A restart while it is wrong goes on from the accepted state.
        live.agent("node-1").kill();
        live.agent("node-1").restart();
        assert_eq!(live.revision(), before);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        assert_eq!(live.reaches("denied", &["server", "far"]), [""; 0]);

        watched("more.yaml", &manifests::ingress("nobody", "client", &[]));
        wait_until("it goes on", || {
            live.agents.values().all(|agent| agent.revision() > before && agent.problems().is_empty())
        });
        assert_eq!(live.reaches("denied", &["client"]), [""; 0]);
        fs::remove_file(bad).unwrap();
        wait_until("the policy goes with its file", || {
            live.agents.values().all(|agent| agent.revision() > before + 1)
        });
        assert_eq!(live.reaches("denied", &["client"]), ["client"]);
        weir(&["status"]).exits(0);
    });
}

#[test]
fn exit_statuses_say_what_happened() {
    isolated(|| {
        let deny = file("deny.yaml", &manifests::ingress("nobody", "client", &[]));
        // Before there is an agent.
        weir(&["status"]).exits(4);
        weir(&["apply", "-f", &deny]).exits(4);
        weir(&["apply"]).exits(2);
        weir(&["get", "nonsense"]).exits(2);
        fs::create_dir(MANIFESTS).unwrap();
        weir(&["agent", "--node", "node-1", "--manifests", &file("wrong.yaml", WRONG)]).exits(3);
        let nodes = file("nodes.yaml", &manifests::nodes(1));
        // The state directory is no BPF file system.
        weir(&["agent", "--node", "node-1", "--manifests", &nodes, "--bpffs", "/run/no-bpffs"]).exits(5);
        let _ = fs::remove_dir_all("/run/weir");

        let mut live = Live::start(&manifests::cluster());
        weir(&["diff", "-f", &deny]).exits(1);
        weir(&["explain", "shop/denied", "shop/server:8080"]).exits(1);
        weir(&["explain", "shop/client", "shop/server:8080"]).exits(0);
        weir(&["apply", "-f", &deny]).exits(0);
        weir(&["diff", "-f", &deny]).exits(0);
        weir(&["apply", "-f", "/run/no-such-file.yaml"]).exits(3);
        weir(&["detach", "--pod", "shop/nobody"]).exits(1);
        let missing = ["attach", "--node", "node-1", "--pod", "shop/x", "--interface", "missing"];
        assert_eq!(weir(&missing).exits(1).err.matches("missing").count(), 1);
        live.agent("node-1").kill();
        weir(&["status"]).exits(4);
        let revision = live.agent("node-2").revision();
        apply(&manifests::ingress("nobody", "client", &["far"])).exits(4);
        assert_eq!(live.agent("node-2").revision(), revision, "nobody changes what one cannot");
        assert_eq!(live.agent("node-2").problems(), [""; 0]);
    });
}
