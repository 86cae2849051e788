//! Services with many backends at the edge, whose rings have 65,537 slots.

use std::net::IpAddr;

use weir_common::reason::Reason;
use weir_tests::packets::Ends;

use super::{
    ACK, CLUSTER, SYN, V4, dropped,
    edge::{SERVICE, VIPS, on_edge, unwrap},
    handed_over,
};

/// The host number of the backend that goes.
const GONE: u8 = 42;

/// The cluster with a hundred backends of the service on the other node, those that are `there`. Over TCP alone: the
/// lab's maps have no room for the rings of both ports, old and new.
fn cluster(there: impl Fn(u8) -> bool) -> String {
    let endpoint = |host| format!("{{addresses: [10.244.2.{host}], nodeName: n2}}");
    let endpoints: Vec<_> = (1..=100).filter(|host| there(*host)).map(endpoint).collect();
    let one = "endpoints: [{addresses: [10.244.2.10], nodeName: n2}]";
    assert!(SERVICE.contains(one));
    let service = SERVICE.replace(one, &format!("endpoints: [{}]", endpoints.join(", ")));
    [CLUSTER, &service.replace(", {name: dns, port: 5353, protocol: UDP}]", "]")].concat()
}

#[test]
fn a_backend_of_a_hundred_that_goes_takes_no_other_ones_flow_along() {
    on_edge(|lab| {
        lab.commit(&cluster(|_| true));
        let to = |sent: &[u8]| unwrap(sent).1;
        let flows: Vec<_> = (0..1000).map(|_| Ends::new(V4.outside, VIPS[0], 80)).collect();
        let opened: Vec<_> = flows
            .iter()
            .map(|ends| {
                lab.meet_edge(&ends.tcp(SYN)).expect("a new flow");
                to(&lab.meet_edge(&ends.tcp(ACK)).expect("an open one"))
            })
            .collect();
        let gone: IpAddr = format!("10.244.2.{GONE}").parse().unwrap();
        assert!(opened.contains(&gone), "the backend has flows");

        lab.commit(&cluster(|host| host != GONE));
        for (ends, backend) in flows.iter().zip(&opened) {
            if *backend == gone {
                dropped(
                    lab.arrive(&ends.tcp(ACK)),
                    Reason::ServiceBackendGone,
                    "of the backend that is gone",
                );
            } else {
                let sent = handed_over(lab.arrive(&ends.tcp(ACK)), "of another one");
                assert_eq!(to(&sent), *backend);
            }
        }

        // A node that has not seen the flows chooses the same backends for nearly all.
        lab.forget_all();
        let others = flows.iter().zip(&opened).filter(|(_, backend)| **backend != gone);
        let chosen = others.clone().map(|(ends, _)| to(&lab.meet_edge(&ends.tcp(ACK)).expect("a new flow")));
        let moved = chosen.zip(others.clone()).filter(|(now, (_, before))| now != *before).count();
        assert!(moved * 100 < others.count() * 2, "{moved} would go elsewhere");
    });
}
