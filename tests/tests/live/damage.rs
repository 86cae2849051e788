//! Other tools that take weir's programs off (attack test 36).

use std::{fs, path::Path};

use weir_tests::live::{Live, apply, isolated, kernel, manifests, wait_until, weir};

/// Waits until the programs of so many interfaces are attached again.
fn mends(live: &mut Live, interfaces: u64) {
    wait_until("the agent attaches its programs again", || {
        let status = live.agent("node-1").status();
        status["repaired"] == interfaces && status["problems"].as_array().unwrap().is_empty()
    });
    assert!(live.agent("node-1").log().contains("somebody took the programs off"));
    assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
    assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
}

#[test]
fn programs_whose_links_were_removed_are_attached_again() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let links = kernel::walk(&Path::new(kernel::BPFFS).join("weir/node-1/v1/links"));
        assert_eq!(links.len(), 2 * 4 + 1, "three pods, the uplink, and the loopback interface: {links:?}");
        for link in links {
            fs::remove_file(link).unwrap();
        }
        mends(&mut live, 5);
    });
}

#[test]
fn filters_that_were_removed_are_attached_again() {
    isolated(|| {
        let mut live = Live::with_options(&manifests::cluster(), &["--attach-mode", "clsact"]);
        for interface in interfaces(&live) {
            live.command("node-1", "tc", &["qdisc", "del", "dev", &interface, "clsact"]);
        }
        mends(&mut live, 4);
    });
}

#[test]
fn one_filter_that_was_removed_is_attached_again() {
    for direction in ["ingress", "egress"] {
        isolated(|| {
            let mut live = Live::with_options(&manifests::cluster(), &["--attach-mode", "clsact"]);
            for interface in interfaces(&live) {
                live.command("node-1", "tc", &["filter", "del", "dev", &interface, direction]);
            }
            mends(&mut live, 4);
        });
    }
}

/// The interfaces of node 1 that lead to its pods, and the uplink.
fn interfaces(live: &Live) -> Vec<String> {
    let of_pods = live.plan.pods.iter().filter(|pod| pod.node == 0).filter_map(|pod| pod.interface.clone());
    of_pods.chain(["uplink".to_owned()]).collect()
}

#[test]
fn what_others_flush_is_not_weirs() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        for table in ["ip", "ip6", "inet"] {
            live.command("node-1", "nft", &["add", "table", table, "others"]);
        }
        live.command("node-1", "nft", &["flush", "ruleset"]);
        assert_eq!(live.command("node-1", "nft", &["list", "ruleset"]), "");
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        assert_eq!(live.agent("node-1").problems(), [""; 0]);
    });
}

#[test]
fn an_interface_that_is_renamed_stays_enforced() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let interface = live.pod("server").interface.clone().unwrap();
        live.command("node-1", "ip", &["link", "set", &interface, "name", "renamed"]);
        let is_enforced = |live: &mut Live| {
            assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
            assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
            assert_eq!(live.agent("node-1").problems(), [""; 0]);
        };
        is_enforced(&mut live);
        live.agent("node-1").kill();
        live.agent("node-1").restart();
        is_enforced(&mut live);
        // A change of policy reaches it, too.
        apply(&manifests::ingress("server", "server", &["denied"])).done();
        assert_eq!(live.reaches("denied", &["server"]), ["server"]);
        assert_eq!(live.reaches("client", &["server", "far"]), ["far"]);
    });
}

#[test]
fn pins_that_were_removed_are_missed() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        for path in kernel::walk(&Path::new(kernel::BPFFS).join("weir/node-1/v1/maps")) {
            fs::remove_file(path).unwrap();
        }
        wait_until("the status says so", || live.agent("node-1").problems().join("\n").contains("pin"));
        weir(&["status", "--node", "node-1"]).exits(1);
        // What is attached goes on.
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
    });
}

#[test]
fn an_interface_that_goes_down_and_up_stays_enforced() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let interface = live.pod("server").interface.clone().unwrap();
        live.command("node-1", "ip", &["link", "set", &interface, "down"]);
        live.command("node-1", "ip", &["link", "set", &interface, "mtu", "1400"]);
        live.command("node-1", "ip", &["link", "set", &interface, "up"]);
        // The kernel forgets IPv6 addresses of a link that is down.
        live.command("node-1", "ip", &["address", "replace", "fe80::1/64", "dev", &interface, "nodad"]);
        weir_tests::live::network::route_to(&live.plan, live.pod("server")).unwrap();
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        assert_eq!(live.agent("node-1").problems(), [""; 0]);
    });
}
