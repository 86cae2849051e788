//! What `weir describe policy` says that rules have decided.

use serde_json::Value;
use weir_tests::live::{
    Live, apply, isolated, manifests,
    traffic::{Sender, Sink},
    weir,
};

const PORT: u16 = 7000;

/// Connections and packets of a rule of the policy `shop/server`.
fn counted(rule: &str) -> (u64, u64) {
    let report = weir(&["describe", "policy", "shop/server", "-o", "json"]).done();
    let report: Value = serde_json::from_str(&report).unwrap();
    let items = report["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "both nodes see one policy: {report}");
    let rules = items[0]["rules"].as_array().unwrap();
    let counts = &rules.iter().find(|found| found["rule"] == rule).expect("the rule")["counts"];
    (counts["connections"].as_u64().unwrap(), counts["packets"].as_u64().unwrap())
}

#[test]
fn rules_count_what_they_allow_and_deny_through_a_change_and_a_restart() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let server = Sink::open(live.netns("server"), PORT);
        let send = |from: &str| live.at("server", PORT).map(|to| Sender::start(live.netns(from), to));
        // From this node, from the other one, and from a pod that nobody lets in.
        let (mut near, mut far, mut denied) = (send("client"), send("far"), send("denied"));
        let senders = || near.iter().chain(&far).chain(&denied);
        senders().for_each(|sender| sender.advance(50));
        let (rule, isolation) = ("ingress[0]", "ingress, no rule matches");
        let before = (counted(rule), counted(isolation));
        assert_eq!(before.0.0, 4, "a connection for each sender");
        assert!(before.0.1 >= 4 * 50, "{before:?}");
        assert!(
            before.1.0 >= 2 * 50 && before.1.0 == before.1.1,
            "UDP is denied packet by packet: {before:?}"
        );

        // A change that concerns neither rule, and an agent that is away for a while.
        apply(&manifests::ingress("client", "client", &["far"])).done();
        live.agent("node-1").kill();
        near.iter().chain(&far).chain(&denied).for_each(|sender| sender.advance(50));
        live.agent("node-1").restart();

        let after = (counted(rule), counted(isolation));
        assert_eq!(after.0.0, 4, "no connection counts twice");
        assert!(after.0.1 >= before.0.1 + 4 * 50, "{before:?} {after:?}");
        assert!(after.1.1 >= before.1.1 + 2 * 50, "{before:?} {after:?}");
        near.iter_mut().chain(&mut far).for_each(|sender| sender.finish_whole(&server));
        denied.iter_mut().for_each(|sender| sender.finish_empty(&server));
        let sent = near.iter().chain(&far).map(Sender::sent).sum::<u64>();
        let answers = near.iter().chain(&far).map(|sender| sender.answered().len() as u64).sum::<u64>();
        assert_eq!(counted(rule), (4, sent + answers), "every packet, once");
    });
}
