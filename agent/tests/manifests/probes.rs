//! Annotations that say how backends are checked.

use std::time::Duration;

use weir::cluster::{Probe, ProbeKind};

use super::{assert_each, cluster};

fn service(annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, annotations: {{{annotations}}}}}\n\
         spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n"
    )
}

fn probe(annotations: &str) -> Option<Probe> {
    cluster(&service(annotations)).services.values().next().unwrap().probe.as_deref().cloned()
}

#[test]
fn a_check_has_defaults_for_what_is_not_said() {
    let seconds = Duration::from_secs;
    assert_eq!(probe("weir.dev/interface: x"), None);
    assert_eq!(
        probe("weir.dev/health-check: tcp"),
        Some(Probe {
            kind: ProbeKind::Tcp,
            interval: seconds(5),
            timeout: seconds(1),
            failures: 3,
            successes: 2
        })
    );
    assert_eq!(
        probe(
            "weir.dev/health-check: http, weir.dev/health-check-path: /ready?full=1, \
             weir.dev/health-check-interval: 2m, weir.dev/health-check-timeout: 1500ms, \
             weir.dev/health-check-failures: \"5\", weir.dev/health-check-successes: \"1\""
        ),
        Some(Probe {
            kind: ProbeKind::Http { path: "/ready?full=1".to_owned() },
            interval: seconds(120),
            timeout: Duration::from_millis(1500),
            failures: 5,
            successes: 1,
        })
    );
    assert_eq!(probe("weir.dev/health-check: http").unwrap().kind, ProbeKind::Http { path: "/".to_owned() });
    let quick = probe("weir.dev/health-check: tcp, weir.dev/health-check-interval: 500ms").unwrap();
    assert_eq!(quick.timeout, Duration::from_millis(500), "no longer than the interval");
}

#[test]
fn a_check_that_makes_no_sense_is_refused_at_its_place() {
    let tcp = |rest: &str| service(&format!("weir.dev/health-check: tcp, weir.dev/health-check-{rest}"));
    let http = |rest: &str| service(&format!("weir.dev/health-check: http, weir.dev/health-check-{rest}"));
    assert_each(&[
        (service("weir.dev/health-check: https"), "test.yaml:4:60: "),
        (service("weir.dev/health-check: https"), "unsupported value `https`; it is one of tcp, http"),
        (service("weir.dev/health-check-interval: 5s"), "without effect: weir.dev/health-check is not set"),
        (tcp("interval: 5s"), ""),
        (tcp("interval: 5"), "expected a string"),
        (tcp("interval: \"5\""), "`5` is not a time from 100ms to 60m"),
        (tcp("interval: 50ms"), "is not a time"),
        (tcp("interval: 2h"), "is not a time"),
        (tcp("interval: +5s"), "is not a time"),
        (tcp("timeout: 6s"), "the timeout is longer than the interval, 5s"),
        (tcp("failures: \"0\""), "`0` is not a number from 1 to 100"),
        (tcp("successes: \"101\""), "is not a number"),
        (tcp("successes: 2"), "put it in quotes"),
        (tcp("path: /ready"), "only a check by http has a path"),
        (tcp("intervall: 5s"), "unknown annotation `weir.dev/health-check-intervall`"),
        (http("path: /ready"), ""),
        (http("path: ready"), "is not a path of a request"),
        (http("path: \"/a b\""), "is not a path of a request"),
        (http("path: \"/a\\r\\nX: y\""), "is not a path of a request"),
    ]);
}
