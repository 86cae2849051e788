//! Pods and nodes: what a pod may want of a node, its own or another, and a node of a pod (attack test 29).

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use weir::cluster::Protocol;
use weir_tests::live::{
    Live, Outcome, isolated,
    manifests::{self, TCP},
    netns,
    traffic::Echo,
};

/// What listens on nodes, such as the kubelet.
const PORT: u16 = 10250;
/// Longer than a SYN takes to be sent again.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Lets `denied` send to `client` and to nobody else.
const CONFINED: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: confined, namespace: shop}
spec:
  podSelector: {matchLabels: {app: denied}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: client}}}]}]
";

fn connects(live: &Live, from: &str, to: SocketAddr) -> bool {
    netns::within(live.netns(from), || Ok(TcpStream::connect_timeout(&to, PATIENCE).is_ok())).unwrap()
}

#[test]
fn a_pod_reaches_the_ports_of_nodes_as_far_as_its_egress_policy_goes() {
    isolated(|| {
        let live = Live::start(&(manifests::cluster() + CONFINED));
        let _nodes = ["node-1", "node-2"].map(|node| Echo::open(live.netns(node), PORT));
        for node in [1, 2] {
            for address in [format!("172.18.0.{node}0:{PORT}"), format!("[fd00:172:18::{node}0]:{PORT}")] {
                let to = address.parse().unwrap();
                for from in ["client", "far"] {
                    assert!(connects(&live, from, to), "{from}, whose egress is open, to {to}");
                }
                assert!(!connects(&live, "denied", to), "a pod that may send to one other pod, to {to}");
            }
        }
        assert_eq!(live.reaches("denied", &["client"]), ["client"]);
    });
}

#[test]
fn a_node_reaches_its_own_pods_and_is_a_peer_like_others_to_those_of_other_nodes() {
    isolated(|| {
        let live = Live::start(&(manifests::cluster() + CONFINED));
        for to in live.at("server", TCP) {
            let own = live.probe("node-1", Protocol::Tcp, to);
            assert_eq!(
                own,
                Outcome::Answer("shop/server".to_owned()),
                "a health check of the kubelet, to {to}"
            );
            assert_eq!(live.probe("node-2", Protocol::Tcp, to), Outcome::Silence, "{to}");
        }
        for to in live.at("client", TCP) {
            let open = live.probe("node-2", Protocol::Tcp, to);
            assert_eq!(open, Outcome::Answer("shop/client".to_owned()), "a pod that is open to all, at {to}");
        }
        for to in live.at("denied", TCP) {
            // Whatever it may send of its own accord.
            let confined = live.probe("node-1", Protocol::Tcp, to);
            assert_eq!(confined, Outcome::Answer("shop/denied".to_owned()), "{to}");
        }
    });
}

#[test]
fn an_agent_listens_on_no_port_that_nobody_asked_for() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let _kubelet = Echo::open(live.netns("node-1"), PORT);
        let sockets = live.command("node-1", "ss", &["-Hltun"]);
        let others: Vec<_> = sockets.lines().filter(|line| !line.contains(&format!(":{PORT} "))).collect();
        assert_eq!((sockets.lines().count(), others), (1, vec![]));
    });
}
