//! Active checks, and what people are shown of live connections.

use std::net::SocketAddr;

use serde_json::Value;
use weir_tests::live::{
    Live, file, isolated,
    manifests::{self, endpoints, ingress, service},
    traffic::{Connection, Echo},
    wait_until, weir,
};

const PORT: u16 = 7000;
const CHECK: &str =
    "annotations: {weir.dev/health-check: tcp, weir.dev/health-check-interval: 200ms}, namespace:";

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&weir(args).done()).unwrap()
}

/// A service of two backends on node 1, which any node may reach.
fn cluster(checked: bool) -> String {
    let plain = service("svc", 5);
    let service = if checked { plain.replace("namespace:", CHECK) } else { plain };
    manifests::cluster() + &service + &endpoints("svc", &[(1, 10), (1, 30)], PORT, PORT)
}

fn frontend() -> SocketAddr {
    "10.96.0.5:80".parse().unwrap()
}

/// The backends of the TCP port over IPv4 that are well in the eyes of every node.
fn well() -> Vec<String> {
    let list = json(&["describe", "service", "shop/svc", "-o", "json"]);
    let used = |report: &Value| -> Vec<String> {
        let backends = report["backends"].as_array().unwrap().iter();
        let used = backends.filter(|backend| {
            backend["port"] == "80/TCP"
                && backend["state"] == "ready"
                && backend["inside"]["own"].as_u64() > Some(0)
                && backend["backend"]["address"].as_str().unwrap().contains('.')
        });
        used.map(|backend| backend["backend"]["name"].as_str().unwrap().to_owned()).collect()
    };
    // Nodes that have found different reasons are reports of their own.
    let mut reports: Vec<_> = list["items"].as_array().unwrap().iter().map(used).collect();
    reports.dedup();
    match reports.len() {
        1 => reports.remove(0),
        _ => vec!["nodes differ".to_owned()],
    }
}

#[test]
fn a_backend_that_stops_listening_leaves_the_ring_and_comes_back() {
    isolated(|| {
        let live = Live::start(&cluster(true));
        let _client = Echo::open(live.netns("client"), PORT);
        let denied = Echo::open(live.netns("denied"), PORT);
        wait_until("both are well", || well() == ["shop/client", "shop/denied"]);

        drop(denied);
        wait_until("the one that listens is alone", || well() == ["shop/client"]);
        // Refused connections would show the other backend.
        for _ in 0..20 {
            assert!(Connection::open(live.netns("far"), frontend()).is_alive());
        }
        let events = weir(&["observe", "--last", "50", "--pod", "shop/denied"]).done();
        assert!(
            events.lines().any(|line| line
                .ends_with("service shop/svc backend shop/denied:7000 UNHEALTHY: connection refused")),
            "{events}"
        );

        let _denied = Echo::open(live.netns("denied"), PORT);
        wait_until("both are well again", || well() == ["shop/client", "shop/denied"]);
    });
}

#[test]
fn a_live_connection_is_listed_once_with_both_its_ends_and_diff_says_that_it_would_be_cut() {
    isolated(|| {
        let live = Live::start(&cluster(false));
        let _echoes = ["client", "denied"].map(|pod| Echo::open(live.netns(pod), PORT));
        let mut connection = Connection::open(live.netns("far"), frontend());
        assert!(connection.is_alive());

        let list = json(&["get", "connections", "--service", "shop/svc", "-o", "json"]);
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{list:#}");
        let one = &items[0];
        assert_eq!(one["nodes"], serde_json::json!(["node-1", "node-2"]), "{one:#}");
        assert_eq!(
            (&one["client"]["name"], &one["frontend"]["name"]),
            (&"shop/far".into(), &"shop/svc".into())
        );
        assert_eq!((&one["state"], &one["protocol"]), (&"established".into(), &"TCP".into()));
        assert!(one["idle"].as_u64() < Some(20), "{one:#}");
        let server = one["server"]["name"].as_str().unwrap();
        let app = server.strip_prefix("shop/").unwrap();

        let deny = file("deny.yaml", &ingress("deny", app, &["server"]));
        let diff = weir(&["diff", "-f", &deny]).exits(1);
        let cut = diff.out.lines().find(|line| line.contains("cut: ingress: isolated by shop/deny"));
        assert!(
            cut.is_some_and(|line| line.starts_with("shop/far:") && line.contains(server)),
            "{}",
            diff.out
        );
        let other = if app == "client" { "denied" } else { "client" };
        let harmless = file("harmless.yaml", &ingress("deny", other, &["server"]));
        assert!(!weir(&["diff", "-f", &harmless]).exits(1).out.contains("cut:"));

        weir(&["apply", "-f", &deny]).done();
        assert!(connection.is_cut());
    });
}
