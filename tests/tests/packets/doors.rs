//! What services may not be used for (attack tests 17 to 25): a way past policy, a way past the source check, a
//! circle, an answer to nobody.

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, Verdict, fragment_v4, fragment_v6, in_lab, l4_offset, read_tuple};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, FIN, OTHER, PSH, RST, SERVER, SYN, V4, dropped,
    exposed::{self, AWAY, Exposed, GUARDED, NEAR, TARGET},
    handed_over, through_stack,
};

/// Segments of connections that nobody opened.
const NOT_OPENING: [u8; 6] = [ACK, SYN | ACK, RST, RST | ACK, FIN | ACK, PSH | ACK];

fn on_node(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", &exposed::cluster(), test);
}

/// A connection from `client` to a door.
fn to(client: &str, (address, port): &(String, u16)) -> Ends {
    Ends::new(client, address, *port)
}

/// The same packet in two fragments, of which the second has another port where the header would be.
fn in_fragments(ends: &Ends, id: u16) -> [Vec<u8>; 2] {
    let segment = ends.tcp_segment(SYN, &[], &[0; 44]);
    let fragment = |offset, more, data: &[u8]| {
        if ends.src.is_ipv4() {
            fragment_v4(ends, 6, id, offset, more, data)
        } else {
            fragment_v6(ends, 6, id, offset, more, data)
        }
    };
    [fragment(0, true, &segment[..32]), fragment(32, false, &segment[32..])]
}

#[test]
fn what_policy_denies_no_door_opens_in_fragments_either() {
    on_node(|lab| {
        for family in FAMILIES {
            for (number, door) in GUARDED.doors(family).iter().enumerate() {
                let id = 7000 + number as u16;
                let (denied, allowed) = (to(family.other, door), to(family.client, door));
                let [first, later] = in_fragments(&denied, id);
                dropped(lab.send(OTHER, &first), Reason::PolicyDenied, &door.0);
                dropped(lab.send(OTHER, &later), Reason::FragmentNotFound, &door.0);

                for (what, fragment) in ["first", "later"].iter().zip(in_fragments(&allowed, id)) {
                    let sent = handed_over(lab.send(CLIENT, &fragment), what);
                    assert_eq!(sent[..6], lab.pod(SERVER).mac, "{what}");
                }
            }
        }
    });
}

#[test]
fn segments_without_syn_open_no_door() {
    on_node(|lab| {
        for family in FAMILIES {
            for flags in NOT_OPENING {
                for door in GUARDED.doors(family) {
                    let what = format!("{flags:#04x} to {}", door.0);
                    dropped(
                        lab.send(OTHER, &to(family.other, &door).tcp(flags)),
                        Reason::PolicyDenied,
                        &what,
                    );
                    let outside = lab.arrive(&to(family.outside, &door).tcp(flags));
                    assert!(!reaches(lab, SERVER, &outside), "{what} from outside: {outside:?}");
                }
            }
            for door in GUARDED.doors(family) {
                handed_over(lab.send(CLIENT, &to(family.client, &door).tcp(SYN)), &door.0);
            }
        }
    });
}

/// Whether a packet was put into a pod.
fn reaches(lab: &Lab, pod: &str, verdict: &Verdict) -> bool {
    verdict.as_ref().is_ok_and(|passed| passed.is_redirected && passed.frame[..6] == lab.pod(pod).mac)
}

#[test]
fn the_nodes_address_behind_a_door_is_not_the_nodes_right() {
    on_node(|lab| {
        for family in FAMILIES {
            // A client that came by another node's port has that node's address: policy does not know it.
            let node = if family.node == V4.node { "192.168.50.12" } else { "fd00:50::12" };
            let masqueraded = Ends::new(node, family.server, TARGET);
            dropped(lab.receive(SERVER, &masqueraded.tcp(SYN)), Reason::PolicyDenied, "by another node");
            // Nor does anybody outside have this one's.
            let forged = Ends::new(family.node, family.server, TARGET);
            dropped(lab.receive(SERVER, &forged.tcp(SYN)), Reason::InvalidSource, "forged");
            let direct = Ends::new(family.outside, family.server, TARGET);
            dropped(lab.receive(SERVER, &direct.tcp(SYN)), Reason::PolicyDenied, "from outside");

            let own = Ends::new(family.node, family.server, TARGET);
            through_stack(lab.receive_from_node(SERVER, &own.tcp(SYN)), "the node itself");
        }
        let admitted = exposed::cluster() + ADMITS_ONE_OUTSIDE;
        lab.commit(&admitted);
        for door in GUARDED.doors(V4) {
            handed_over(
                lab.arrive(&to("203.0.113.9", &door).tcp(SYN)),
                "an outside client that a rule names",
            );
            let denied = lab.arrive(&to("203.0.113.10", &door).tcp(SYN));
            dropped(denied, Reason::PolicyDenied, "its neighbour");
        }
    });
}

const ADMITS_ONE_OUTSIDE: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: one, namespace: t}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{ipBlock: {cidr: 203.0.113.9/32}}]}]
";

#[test]
fn only_the_tuple_that_was_asked_through_a_door_may_answer() {
    on_node(|lab| {
        for family in FAMILIES {
            for service in [NEAR, AWAY] {
                let ask = Ends::new(family.server, &service.doors(family)[3].0, 53);
                let sent = lab.send(SERVER, &ask.udp(b"query")).expect("no policy is about what it sends");
                let answer = read_tuple(&sent.frame).back();
                let answered = |ends: &Ends| {
                    let frame = ends.udp(b"answer");
                    if service_is_local(service) { lab.send(OTHER, &frame) } else { lab.arrive(&frame) }
                };
                for other in [
                    Ends { dport: answer.dport ^ 1, ..answer },
                    Ends { sport: answer.sport ^ 1, ..answer },
                    Ends { dport: 9999, ..answer },
                ] {
                    let verdict = answered(&other);
                    assert!(!reaches(lab, SERVER, &verdict), "{other:?}: {verdict:?}");
                }
                let back = handed_over(answered(&answer), "the answer");
                assert_eq!(read_tuple(&back), ask.back());
            }
        }
    });
}

fn service_is_local(service: Exposed) -> bool {
    service.node_port(V4) == NEAR.node_port(V4)
}

#[test]
fn a_source_port_that_is_a_services_makes_no_answer_of_a_request_nor_the_reverse() {
    on_node(|lab| {
        for family in FAMILIES {
            // The server opens connections from the ports that its service has and leads to.
            for sport in [80, TARGET, 53] {
                let ask = Ends { sport, ..Ends::new(family.server, family.other, 9000) };
                let sent = handed_over(lab.send(SERVER, &ask.tcp(SYN)), "the server asks");
                assert_eq!(read_tuple(&sent), ask, "nothing translates it");
                let back = handed_over(lab.send(OTHER, &ask.back().tcp(SYN | ACK)), "and is answered");
                assert_eq!(read_tuple(&back), ask.back());
                // The way that this opened is for the answer alone.
                let other = Ends { sport: 9001, ..ask.back() };
                dropped(lab.send(OTHER, &other.tcp(SYN | ACK)), Reason::PolicyDenied, "another port");
            }
            // A client asks a service from the service's own port.
            let door = GUARDED.doors(family)[3].clone();
            let ask = Ends { sport: door.1, ..to(family.client, &door) };
            let sent = handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there");
            let back = handed_over(lab.send(SERVER, &read_tuple(&sent).back().tcp(SYN | ACK)), "back");
            assert_eq!(read_tuple(&back), ask.back());
        }
    });
}

#[test]
fn errors_about_flows_through_doors_are_for_their_clients_only() {
    on_node(|lab| {
        for family in FAMILIES {
            let door = NEAR.node_port(family);
            let ask = to(family.outside, &door);
            let sent = handed_over(lab.arrive(&ask.tcp(SYN)), "there");
            let node = Ends::new(family.other, family.node, 0);
            let error = handed_over(lab.send(OTHER, &node.unreachable(&sent)), "the backend's own");
            assert_eq!(read_tuple(&error).dst, ask.src, "for the client");
            let quoted = [&error[..14], &error[l4_offset(&error) + 8..]].concat();
            assert_eq!(read_tuple(&quoted), ask, "about what the client sent");

            let forger = Ends::new(family.client, family.node, 0);
            dropped(lab.send(CLIENT, &forger.unreachable(&sent)), Reason::IcmpUnrelated, "another pod's");
            let elsewhere = Ends::new(family.other, family.client, 0);
            let verdict = lab.send(OTHER, &elsewhere.unreachable(&sent));
            dropped(verdict, Reason::IcmpUnrelated, "to somebody else");
            let about = Ends { sport: ask.sport ^ 1, ..read_tuple(&sent) };
            let verdict = lab.send(OTHER, &node.unreachable(&about.tcp(SYN)));
            assert!(verdict.is_err(), "about a flow that is not: {verdict:?}");
        }
    });
}

/// Services whose endpoints are services: `one` and `two` of each other, `self` of itself.
fn circles(policy: &str) -> String {
    let service = |number: u8, next: u8| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: circle-{number}, namespace: t}}
spec: {{type: LoadBalancer, clusterIP: 10.96.2.{number}, externalTrafficPolicy: {policy},
  ports: [{{port: 80, nodePort: 3010{number}}}]}}
status: {{loadBalancer: {{ingress: [{{ip: 198.51.100.20{number}}}]}}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: circle-{number}, namespace: t, labels: {{kubernetes.io/service-name: circle-{number}}}}}
addressType: IPv4
ports: [{{port: 80, protocol: TCP}}]
endpoints: [{{addresses: [198.51.100.20{next}], nodeName: n1}}]
---
apiVersion: v1
kind: Service
metadata: {{name: ring-{number}, namespace: t}}
spec: {{clusterIP: 10.96.3.{number}, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: ring-{number}, namespace: t, labels: {{kubernetes.io/service-name: ring-{number}}}}}
addressType: IPv4
ports: [{{port: 80, protocol: TCP}}]
endpoints: [{{addresses: [10.96.3.{next}], nodeName: n1}}]
"
        )
    };
    [CLUSTER.to_owned(), service(1, 2), service(2, 1), service(3, 3)].concat()
}

#[test]
fn services_of_services_send_nobody_in_circles() {
    for policy in ["Cluster", "Local"] {
        in_lab("n1", &circles(policy), |lab| {
            for number in 1..=3 {
                for door in [
                    (V4.node.to_owned(), 30100 + number),
                    (format!("198.51.100.20{number}"), 80),
                    (format!("10.96.2.{number}"), 80),
                    (format!("10.96.3.{number}"), 80),
                ] {
                    let (pod, outside, node) =
                        (to(V4.client, &door), to(V4.outside, &door), to(V4.node, &door));
                    assert!(
                        times_out(lab, lab.send(CLIENT, &pod.tcp(SYN))) <= 1,
                        "a pod: {door:?}, {policy}"
                    );
                    assert!(
                        times_out(lab, lab.arrive(&outside.tcp(SYN))) <= 1,
                        "outside: {door:?}, {policy}"
                    );
                    assert!(times_out(lab, lab.leave(&node.tcp(SYN))) <= 1, "the node: {door:?}, {policy}");
                }
            }
        });
    }
    // The same services in front of a pod are served.
    let open =
        circles("Cluster").replace("198.51.100.20", "10.244.1.3").replace("10.244.1.33", "10.244.1.30");
    in_lab("n1", &open.replace("ingress: [{ip: 10.244.1.3", "ingress: [{ip: 198.51.100.20"), |lab| {
        handed_over(lab.send(CLIENT, &Ends::new(V4.client, "10.96.2.3", 80).tcp(SYN)), "a pod behind it");
    });
}

/// How often a packet leaves the node, when whatever leaves is sent back by the router.
fn times_out(lab: &Lab, first: Verdict) -> usize {
    const ENOUGH: usize = 8;
    let mut next = first;
    for count in 0..ENOUGH {
        let Ok(passed) = next else { return count };
        let dst = read_tuple(&passed.frame).dst;
        if passed.frame[14 + 9] != 6 || dst == V4.outside.parse::<std::net::IpAddr>().unwrap() {
            // An answer to whoever asked.
            return count;
        }
        next = lab.arrive(&passed.frame);
    }
    ENOUGH
}

#[test]
fn the_loopback_addresses_are_no_door() {
    on_node(|lab| {
        for (family, loopback) in [(FAMILIES[0], "127.0.0.1"), (FAMILIES[1], "::1")] {
            let port = GUARDED.node_port(family).1;
            let frame = Ends::new(family.client, loopback, port).tcp(SYN);
            dropped(lab.send(CLIENT, &frame), Reason::InvalidDestination, "from a pod");
            let frame = Ends::new(family.outside, loopback, port).tcp(SYN);
            assert_eq!(through_stack(lab.arrive(&frame), "for the stack to refuse"), frame);
            let own = Ends::new(loopback, loopback, port).tcp(SYN);
            assert_eq!(through_stack(lab.loop_back(&own), "the node's own"), own);
            handed_over(lab.send(CLIENT, &to(family.client, &GUARDED.node_port(family)).tcp(SYN)), "a door");
        }
    });
}
