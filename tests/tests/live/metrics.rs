//! What an agent serves to Prometheus.

use weir_tests::live::{Live, isolated, manifests};

const NODE: &str = "node-1";
const ADDRESS: &str = "127.0.0.1:9469";

fn page(live: &Live) -> String {
    let ask = format!(
        "exec 3<>/dev/tcp/{}; printf 'GET /metrics HTTP/1.1\\r\\nHost: node\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
         timeout 10 cat <&3",
        ADDRESS.replace(':', "/")
    );
    live.command(NODE, "bash", &["-c", &ask])
}

/// The value of a metric; 0 where it is not on the page.
fn value(page: &str, metric: &str) -> u64 {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    lines.next().map_or(0, |value| value.trim().parse().unwrap())
}

#[test]
fn metrics_are_what_status_says_and_count_what_is_dropped() {
    isolated(|| {
        let mut live = Live::with_options(&manifests::cluster(), &["--metrics", ADDRESS]);
        let denied = r#"weir_dropped_packets_total{hook="from_pod",reason="POLICY_DENIED"}"#;
        let before = page(&live);
        assert!(before.starts_with("HTTP/1.1 200 OK\r\n"), "{before}");
        assert_eq!(value(&before, "weir_revision"), live.revision());
        assert_eq!(value(&before, "weir_problems"), 0);
        assert_eq!(value(&before, r#"weir_pods{state="waiting"}"#), 0);

        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        assert_eq!(live.reaches("client", &["server"]), ["server"]);

        let after = page(&live);
        assert!(value(&after, denied) > value(&before, denied), "{before}\n{after}");
        let forwarded = live.agent(NODE).forwarded("from_pod");
        let counted = value(&after, r#"weir_forwarded_packets_total{hook="from_pod"}"#);
        assert!(counted > 0 && counted <= forwarded, "{counted} of {forwarded}");
    });
}
