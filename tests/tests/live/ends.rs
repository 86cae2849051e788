//! A pod's own end of its interface changes between two changes of the manifests.

use std::{thread, time::Duration};

use weir_tests::live::{Live, apply, isolated, manifests, netns, network, wait_until};

/// After which the agents keep what they read of the network.
const STILL: Duration = Duration::from_millis(1500);

/// A cluster whose agents have read their network and keep it.
fn settled() -> Live {
    let live = Live::start(&manifests::cluster());
    thread::sleep(STILL);
    change(1);
    change(2);
    assert_eq!(live.reaches("client", &["server"]), ["server"]);
    live
}

/// A change that has nothing to do with interfaces, nor with any pod there is.
fn change(number: u16) {
    apply(&manifests::ingress("other", "nobody", &[&format!("nobody-{number}")])).done();
}

#[test]
fn a_pod_with_another_mac_address_is_reached() {
    isolated(|| {
        let live = settled();
        let rename = |address: &str| {
            live.command("server", "ip", &["link", "set", "eth0", "address", address]);
        };

        rename("02:00:00:00:77:01");
        wait_until("it is reached without a change", || live.reaches("client", &["server"]) == ["server"]);

        for number in 2..6 {
            rename(&format!("02:00:00:00:77:0{number}"));
            change(10 + number);
            assert_eq!(live.reaches("client", &["server"]), ["server"], "after the next change");
            assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        }
    });
}

#[test]
fn a_pod_with_another_mac_address_is_reached_when_announcements_were_lost() {
    isolated(|| {
        let live = settled();
        let server = live.netns("server");
        // More than there is room for, of an interface that is none of ours.
        let mut lines: Vec<_> = (0..3000).map(|number| format!("link set lo alias a{number}")).collect();
        lines.push("link set eth0 address 02:00:00:00:77:01".to_owned());

        netns::ip(Some(server), &lines).unwrap();
        change(3);

        assert_eq!(live.reaches("client", &["server"]), ["server"]);
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
    });
}

#[test]
fn an_interface_in_the_place_of_another_is_closed_and_its_pod_is_reached() {
    isolated(|| {
        let live = settled();
        let server = live.pod("server");
        let interface = server.interface.as_ref().unwrap();
        let annotation = format!("annotations: {{weir.dev/interface: {interface}}}, labels:");
        apply(&manifests::pod("server", 1, 20).replace("labels:", &annotation)).done();

        let node = &live.plan.nodes[server.node];
        netns::ip(Some(&node.netns), &[format!("link delete {interface}")]).unwrap();
        network::build_pod(node, server).unwrap();
        change(3);
        network::bring_up(&live.plan, server).unwrap();
        network::route_to(&live.plan, server).unwrap();

        assert_eq!(live.reaches("client", &["server"]), ["server"]);
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
    });
}
