//! Several agents on one host.

use weir_tests::live::{Live, apply, file, isolated, manifests, netns, weir};

#[test]
fn a_change_goes_to_all_agents_or_to_the_one_that_is_named() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let before = live.revision();
        let deny = manifests::ingress("nobody", "client", &[]);
        let said = apply(&deny).done();
        for node in ["node-1", "node-2"] {
            assert!(said.contains(&format!("{node}: revision {} enforced", before + 1)), "{said}");
        }
        weir(&["delete", "-f", &file("deny.yaml", &deny), "--node", "node-2"]).done();
        let revisions: Vec<_> = live.agents.values().map(|agent| agent.revision() - before).collect();
        assert_eq!(revisions, [1, 2]);
    });
}

#[test]
fn what_one_agent_refuses_no_agent_applies() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        // A pod that node 2 alone knows; another with its address is right for node 1 and wrong for node 2.
        let known = manifests::pod("known", 2, 77);
        weir(&["apply", "--node", "node-2", "-f", &file("known.yaml", &known)]).done();
        let before = [live.agent("node-1").revision(), live.agent("node-2").revision()];
        let twin = manifests::pod("twin", 2, 77) + &manifests::ingress("far", "far", &[]);

        let answer = apply(&twin).exits(3);

        assert!(answer.err.contains("10.244.2.77"), "{}", answer.err);
        assert_eq!([live.agent("node-1").revision(), live.agent("node-2").revision()], before);
        assert_eq!(live.reaches("client", &["far"]), ["far"]);
    });
}

#[test]
fn a_second_agent_of_a_node_is_refused_and_the_first_goes_on() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let args = ["agent", "--node", "node-1", "--manifests", weir_tests::live::MANIFESTS];
        let answer = netns::within(live.netns("node-1"), || Ok(weir(&args))).unwrap().exits(5);
        assert!(answer.err.contains("another agent"), "{}", answer.err);
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        weir(&["status"]).exits(0);
    });
}
