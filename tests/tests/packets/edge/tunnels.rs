//! Tunnels that arrive: what may come out of one, and who judges it.

use weir_tests::packets::ip;

use super::{
    super::{CLIENT, V6, early, through_stack},
    *,
};

/// What the node n1 sends to the backend of the service.
fn tunnelled(family: Family, from: &str, to: &str, inner: &[u8]) -> Vec<u8> {
    let number = if family.node.contains(':') { 41 } else { 4 };
    ip(from.parse().unwrap(), to.parse().unwrap(), number, &inner[14..])
}

/// Runs a test on node n2, where the backend is.
fn at_backend(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n2", &[CLUSTER, SERVICE].concat(), test);
}

#[test]
fn a_tunnel_ends_at_the_backend_which_answers_the_client_itself() {
    at_backend(|lab| {
        for (family, vip) in families() {
            for (port, backend_port) in [(80, 8080), (53, 5353)] {
                let ends = Ends::new(family.outside, vip, port);
                let there = Ends { dst: family.remote.parse().unwrap(), dport: backend_port, ..ends };
                let frame = |ends: &Ends, flags| if port == 80 { ends.tcp(flags) } else { ends.udp(b"q") };
                for flags in [SYN, ACK] {
                    let inner = frame(&ends, flags);
                    let arrived = tunnelled(family, family.node, family.remote, &inner);
                    let sent = handed_over(lab.arrive(&arrived), "to the backend");
                    assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (there, vec![]));
                    assert_eq!(sent.len(), inner.len());
                }
                let back =
                    handed_over(lab.send("t/remote", &frame(&there.back(), SYN | ACK)), "past the stack");
                assert_eq!((read_tuple(&back), wrong_checksums(&back)), (ends.back(), vec![]));
            }
        }
    });
}

#[test]
fn fragments_out_of_a_tunnel_follow_their_first_and_do_not_wait_for_it() {
    at_backend(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 53);
            let by = |id, piece: usize| {
                let inner = &early::datagram(&ends, id)[piece];
                lab.arrive(&tunnelled(family, family.node, family.remote, inner))
            };
            handed_over(by(1, 0), "the first");
            handed_over(by(1, 1), "behind it");
            dropped(by(2, 1), Reason::FragmentNotFound, "before it");
            handed_over(by(2, 0), "its first");
        }
    });
}

#[test]
fn what_comes_out_of_a_tunnel_is_for_a_backend_of_its_service_or_dropped() {
    at_backend(|lab| {
        for (family, vip) in families() {
            let to = |address, port| Ends::new(family.outside, address, port);
            let legal = to(vip, 80).tcp(SYN);
            let by = |from, inner: &[u8]| lab.arrive(&tunnelled(family, from, family.remote, inner));
            for forged in [family.outside, family.other, family.remote, family.unallocated] {
                dropped(by(forged, &legal), Reason::InvalidTunnel, "from no node");
            }
            dropped(by(family.node, &to(vip, 81).tcp(SYN)), Reason::InvalidTunnel, "no port of the service");
            dropped(by(family.node, &to(family.far, 80).tcp(SYN)), Reason::InvalidTunnel, "no DSR service");
            dropped(
                by(family.node, &to(family.remote, 8080).tcp(SYN)),
                Reason::InvalidTunnel,
                "the pod itself",
            );
            dropped(by(family.node, &to(vip, 80).tcp(0)), Reason::InvalidTcpFlags, "no TCP");
            for source in [family.client, family.remote, family.node] {
                let inner = Ends::new(source, vip, 80).tcp(SYN);
                dropped(by(family.node, &inner), Reason::InvalidSource, "a client of the cluster");
            }
            handed_over(by(family.node, &legal), "the legal one");
            // What is no pod's is the node's own business.
            let own = tunnelled(family, family.node, family.unallocated, &legal);
            assert_eq!(through_stack(lab.arrive(&own), "another tunnel"), own);
        }
    });
}

#[test]
fn a_tunnel_to_a_pod_that_is_no_backend_is_dropped() {
    let away =
        SERVICE.replace("10.244.2.10", "10.244.2.11").replace("fd00:10:244:2::10", "fd00:10:244:2::11");
    in_lab("n2", &[CLUSTER, &away].concat(), |lab| {
        for (family, vip) in families() {
            let inner = Ends::new(family.outside, vip, 80).tcp(SYN);
            let frame = tunnelled(family, family.node, family.remote, &inner);
            dropped(lab.arrive(&frame), Reason::InvalidTunnel, "no backend");
        }
        lab.commit(&[CLUSTER, SERVICE].concat());
        for (family, vip) in families() {
            let inner = Ends::new(family.outside, vip, 80).tcp(SYN);
            handed_over(lab.arrive(&tunnelled(family, family.node, family.remote, &inner)), "a backend");
        }
    });
}

#[test]
fn policy_judges_the_client_behind_a_tunnel() {
    // The server lets in the client pod alone.
    let local =
        SERVICE.replace("10.244.2.10", "10.244.1.20").replace("fd00:10:244:2::10", "fd00:10:244:1::20");
    let world = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: world, namespace: t}\nspec:\n  podSelector: {matchLabels: {app: server}}\n  ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/28}}, {ipBlock: {cidr: \"2001:db8::/125\"}}]}]\n";
    in_lab("n1", &[CLUSTER, &local, world].concat(), |lab| {
        for ((_, vip), (denied, allowed)) in
            families().zip([("203.0.113.99", "203.0.113.9"), ("2001:db8::9", "2001:db8::7")])
        {
            let family = if vip.contains(':') { V6 } else { V4 };
            let node = if vip.contains(':') { "fd00:50::12" } else { "192.168.50.12" };
            let by = |client| {
                let inner = Ends::new(client, vip, 80).tcp(SYN);
                lab.arrive(&tunnelled(family, node, family.server, &inner))
            };
            dropped(by(denied), Reason::PolicyDenied, "nobody lets it in");
            handed_over(by(allowed), "let in by its address");
        }
    });
}

#[test]
fn a_pod_makes_no_tunnels() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let inner = Ends::new(family.outside, vip, 80).tcp(SYN);
            let frame = tunnelled(family, family.client, family.remote, &inner);
            let reason =
                if vip.contains(':') { Reason::InvalidExtensionHeader } else { Reason::UnsupportedL4 };
            dropped(lab.send(CLIENT, &frame), reason, "a tunnel of a pod's");
            handed_over(lab.send(CLIENT, &Ends::new(family.client, family.web, 80).tcp(SYN)), "its own");
        }
    });
}
