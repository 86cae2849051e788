//! Weir taken off a host.

use std::path::{Path, PathBuf};

use weir_tests::live::{Live, isolated, kernel, manifests, wait_until, weir};

/// Everything of the interfaces of the nodes that weir may change.
fn traces(live: &Live) -> Vec<String> {
    let mut traces = Vec::new();
    for node in ["node-1", "node-2"] {
        let links = live.command(node, "ip", &["-br", "link"]);
        let mut names: Vec<_> = links.lines().filter_map(|line| line.split(['@', ' ']).next()).collect();
        names.sort_unstable();
        for name in names {
            for hook in ["ingress", "egress"] {
                traces.push(format!(
                    "{node} {name} {hook}: {}",
                    live.command(node, "tc", &["filter", "show", "dev", name, hook])
                ));
            }
            traces.push(live.command(node, "tc", &["qdisc", "show", "dev", name]));
            traces.push(live.command(node, "ip", &["-d", "-o", "link", "show", name]));
        }
    }
    traces
}

fn leaves_no_trace(options: &[&str]) {
    let mut live = Live::with_options(&manifests::cluster(), options);
    let attached = traces(&live);
    let ids = kernel::pinned();
    assert_eq!(ids.loaded(), ids, "what is pinned is loaded");
    assert!(ids.programs.len() >= 4 && !ids.maps.is_empty(), "{ids:?}");

    weir(&["detach", "--all"]).done();

    for agent in live.agents.values_mut() {
        assert!(agent.wait_end().success());
    }
    assert!(!Path::new(kernel::BPFFS).join("weir").exists());
    assert_eq!(kernel::walk(Path::new("/run/weir")), [] as [PathBuf; 0]);
    // The kernel frees them a moment later.
    wait_until("programs and maps are gone", || ids.loaded() == kernel::Ids::default());
    let detached = traces(&live);
    assert!(!detached.join("").contains("bpf") && !detached.join("").contains("clsact"), "{detached:#?}");
    if !options.is_empty() {
        assert!(attached.join("").contains("clsact"), "there was something to see: {attached:#?}");
    }
    // And nothing is in anybody's way.
    assert_eq!(live.reaches("denied", &["server", "far"]), ["server", "far"]);
}

#[test]
fn detach_all_leaves_no_trace() {
    isolated(|| leaves_no_trace(&[]));
}

#[test]
fn detach_all_leaves_no_filter_and_no_qdisc() {
    isolated(|| leaves_no_trace(&["--attach-mode", "clsact"]));
}

#[test]
fn detach_all_works_when_the_agents_are_dead() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let ids = kernel::pinned();
        live.agents.values_mut().for_each(weir_tests::live::Agent::kill);

        weir(&["detach", "--all"]).done();

        assert!(!Path::new(kernel::BPFFS).join("weir").exists());
        wait_until("programs and maps are gone", || ids.loaded() == kernel::Ids::default());
        assert_eq!(live.reaches("denied", &["server", "far"]), ["server", "far"]);
    });
}
