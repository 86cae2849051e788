//! Services with many backends at the edge, whose rings have 65,537 slots.

use std::{collections::BTreeSet, net::IpAddr};

use weir::datapath::Frontend;
use weir_common::{
    addr::{Addr, Be16, V4 as AddrV4, V6 as AddrV6},
    flow::FlowKey,
    reason::Reason,
};
use weir_tests::packets::Ends;

use super::{
    ACK, CLUSTER, SYN, V4, dropped,
    edge::{SERVICE, VIPS, families, on_edge, unwrap},
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

/// The cluster with so many backends of the service on the other node, in each family.
fn cluster_of(backends: u32) -> String {
    let list = |endpoint: &dyn Fn(u32) -> String| {
        let endpoints: Vec<_> =
            (1..=backends).map(|n| format!("{{addresses: [{}], nodeName: n2}}", endpoint(n))).collect();
        format!("endpoints: [{}]", endpoints.join(", "))
    };
    let v4 = list(&|n| format!("10.245.{}.{}", n >> 8, n & 0xff));
    let v6 = list(&|n| format!("\"fd00:10:245::{n:x}\""));
    let service = SERVICE
        .replace("endpoints: [{addresses: [10.244.2.10], nodeName: n2}]", &v4)
        .replace("endpoints: [{addresses: [\"fd00:10:244:2::10\"], nodeName: n2}]", &v6);
    assert!(service.contains(&v4) && service.contains(&v6));
    [CLUSTER, &service].concat()
}

/// The number that chooses a slot for what is sent over TCP.
fn number(ends: &Ends) -> usize {
    fn of<A: Addr>(src: A, dst: A, ends: &Ends) -> usize {
        let (sport, dport) = (Be16::new(ends.sport), Be16::new(ends.dport));
        (FlowKey { src, dst, sport, dport, scope: 0, protocol: 6 }.hash() >> 32) as usize
    }
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            of(AddrV4::from_octets(src.octets()), AddrV4::from_octets(dst.octets()), ends)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            of(AddrV6::from_octets(src.octets()), AddrV6::from_octets(dst.octets()), ends)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_kernel_reads_slots_of_one_byte_and_of_two_as_the_compiler_made_them() {
    on_edge(|lab| {
        // Slots take one byte for up to 256 backends.
        for backends in [256, 257] {
            lab.commit(&cluster_of(backends));
            lab.forget_all();
            for (family, vip) in families() {
                let frontend = Frontend { address: vip.parse().unwrap(), port: 80, protocol: 6 };
                let ring = lab.datapath().frontends[&frontend].external.clone();
                assert_eq!((ring.len(), ring.backends().len()), (65_537, backends as usize));
                let mut found = BTreeSet::new();
                for _ in 0..3 * backends {
                    let ends = Ends::new(family.outside, vip, 80);
                    let sent = lab.meet_edge(&ends.tcp(SYN)).expect("a new flow");
                    let chosen = unwrap(&sent).1;
                    assert_eq!(chosen, ring.at(number(&ends)).address, "{backends} backends, {ends:?}");
                    found.insert(chosen);
                }
                assert!(found.len() > backends as usize / 2, "{} of {backends} were chosen", found.len());
            }
        }
    });
}
