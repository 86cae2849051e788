//! Session affinity (`sessionAffinity: ClientIP`): whom it binds, to whom, and for how long.

use std::{collections::BTreeSet, net::IpAddr, thread, time::Duration};

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, read_tuple, wrong_checksums};

use super::{CLIENT, CLUSTER, FAMILIES, Family, OTHER, SYN, V4, dropped, manifests, on_node, through_stack};

const TIMEOUT: Duration = Duration::from_secs(1);

/// A service whose endpoints are elsewhere, by the last number of their addresses and what they are.
fn sticky(endpoints: &[(u8, &str)]) -> String {
    let service = manifests::service(
        "sticky",
        60,
        "  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: dns, port: 53, targetPort: 5353, protocol: UDP}",
    );
    let ports = "{name: http, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}";
    let endpoints: Vec<_> = endpoints.iter().map(|&(host, conditions)| (2, host, conditions)).collect();
    [CLUSTER, &service, &manifests::slices("sticky", ports, &endpoints)].concat()
}

const READY: &str = "ready: true";
const THREE: [(u8, &str); 3] = [(11, READY), (12, READY), (13, READY)];

/// Where a new connection of a pod goes, from this port.
fn connect(lab: &Lab, family: Family, pod: &str, sport: u16) -> IpAddr {
    let (client, service) = match (pod, family.client == V4.client) {
        (CLIENT, true) => (family.client, "10.96.0.60"),
        (CLIENT, false) => (family.client, "fd00:10:96::60"),
        (_, true) => (family.other, "10.96.0.60"),
        (_, false) => (family.other, "fd00:10:96::60"),
    };
    let ends = Ends { sport, ..Ends::new(client, service, 80) };
    let sent = through_stack(lab.send(pod, &ends.tcp(SYN)), "there");
    assert_eq!(wrong_checksums(&sent), [""; 0]);
    read_tuple(&sent).dst
}

fn connect_many(lab: &Lab, family: Family, pod: &str, sports: std::ops::Range<u16>) -> BTreeSet<IpAddr> {
    sports.map(|sport| connect(lab, family, pod, sport)).collect()
}

#[test]
fn a_client_stays_with_its_backend_until_it_has_been_idle_for_the_timeout() {
    on_node(|lab| {
        lab.commit(&sticky(&THREE));
        for family in FAMILIES {
            // From as many ports, without affinity, all three would be used.
            assert_eq!(connect_many(lab, family, CLIENT, 1000..1040).len(), 1);
            // Each connection starts the time anew.
            let first = connect(lab, family, CLIENT, 1100);
            for sport in 1101..1104 {
                thread::sleep(TIMEOUT * 6 / 10);
                assert_eq!(connect(lab, family, CLIENT, sport), first);
            }
            let after_timeout = (0..8).map(|number| {
                thread::sleep(TIMEOUT * 11 / 10);
                connect(lab, family, CLIENT, 1200 + number)
            });
            assert!(after_timeout.collect::<BTreeSet<_>>().len() > 1, "the ring chooses again");
        }
    });
}

#[test]
fn affinity_is_for_a_client_at_a_port_of_the_service() {
    on_node(|lab| {
        lab.commit(&sticky(&THREE));
        for family in FAMILIES {
            let first = connect(lab, family, CLIENT, 1000);
            // A connection of another client, or to another port, is bound by none of this.
            let others = (1001..1040).map(|sport| {
                let ends = Ends { sport, ..Ends::new(family.client, family.web, 80) };
                read_tuple(&lab.send(CLIENT, &ends.tcp(SYN)).unwrap().frame).dst
            });
            assert_eq!(others.collect::<BTreeSet<_>>().len(), 1, "the only backend of another service");
            assert_eq!(connect_many(lab, family, OTHER, 1000..1040).len(), 1);
            assert_eq!(connect(lab, family, CLIENT, 1041), first);
        }
    });
}

#[test]
fn a_remembered_backend_is_used_only_while_it_may_be_chosen() {
    on_node(|lab| {
        for family in FAMILIES {
            lab.commit(&sticky(&THREE[..1]));
            let first = connect(lab, family, CLIENT, 2000);
            // New endpoints do not move the client.
            lab.commit(&sticky(&THREE));
            assert_eq!(connect_many(lab, family, CLIENT, 2001..2041), BTreeSet::from([first]));
            // One that drains does, although it still serves; and back it does not go by itself.
            for state in ["ready: false, serving: true, terminating: true", "ready: false, serving: false"] {
                lab.commit(&sticky(&[(11, state), THREE[1], THREE[2]]));
                let moved = connect_many(lab, family, CLIENT, 2100..2140);
                assert!(moved.len() == 1 && !moved.contains(&first), "{state}: {moved:?}");
                lab.commit(&sticky(&THREE));
                assert_eq!(connect_many(lab, family, CLIENT, 2200..2240), moved, "{state}");
                thread::sleep(TIMEOUT * 11 / 10);
                // Until the ring chooses the first once more, for what follows.
                lab.commit(&sticky(&THREE[..1]));
                assert_eq!(connect(lab, family, CLIENT, 2300), first);
                lab.commit(&sticky(&THREE));
            }
            // And one that is gone.
            lab.commit(&sticky(&THREE[1..]));
            assert!(!connect_many(lab, family, CLIENT, 2400..2440).contains(&first));
        }
    });
}

#[test]
fn a_forged_source_binds_nobody() {
    on_node(|lab| {
        lab.commit(&sticky(&THREE));
        for family in FAMILIES {
            // Two ports from which the ring alone sends the client to different backends.
            let unbound = |lab: &Lab, sport| {
                lab.forget_all();
                lab.forget_clients();
                connect(lab, family, CLIENT, sport)
            };
            let first = unbound(lab, 3000);
            let (other, second) = (3001..3040)
                .map(|sport| (sport, unbound(lab, sport)))
                .find(|(_, backend)| *backend != first)
                .expect("the ring has three");
            lab.forget_all();
            lab.forget_clients();
            let service = if family.client == V4.client { "10.96.0.60" } else { "fd00:10:96::60" };
            let forged = Ends { sport: 3000, ..Ends::new(family.client, service, 80) };
            dropped(lab.send(OTHER, &forged.tcp(SYN)), Reason::InvalidSource, "another's address");
            assert_eq!(connect(lab, family, CLIENT, other), second);
            assert_eq!(connect(lab, family, CLIENT, 3000), second, "the client binds itself");
        }
    });
}
