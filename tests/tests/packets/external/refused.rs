//! Who is kept out, and what is nobody's.

use super::{
    super::{
        SERVER,
        exposed::{EMPTY, GUARDED, HTTP, RANGED},
        set_hops,
    },
    *,
};

#[test]
fn only_source_ranges_may_use_the_load_balancers_address() {
    on_node(|lab| {
        for family in FAMILIES {
            let stranger = if family.node.contains(':') { "2001:db8:0:1::9" } else { "192.0.2.9" };
            let balancer = RANGED.balancer(family);
            handed_over(lab.arrive(&to(family.outside, &balancer).tcp(SYN)), "in the ranges");
            dropped(
                lab.arrive(&to(stranger, &balancer).tcp(SYN)),
                Reason::SourceRange,
                "outside of the ranges",
            );
            dropped(
                lab.send(CLIENT, &to(family.client, &balancer).tcp(SYN)),
                Reason::SourceRange,
                "a pod is in none either",
            );
            handed_over(lab.arrive(&to(stranger, &RANGED.node_port(family)).tcp(SYN)), "its node port");
            handed_over(lab.arrive(&to(stranger, &NEAR.balancer(family)).tcp(SYN)), "another service");
        }
    });
}

/// Attack 21, by every other door; Attack 24.
#[test]
fn policy_judges_the_real_client_behind_every_door() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in GUARDED.doors(family) {
                let denied = to(family.outside, &door);
                dropped(lab.arrive(&denied.tcp(SYN)), Reason::PolicyDenied, &door.0);
                dropped(
                    lab.send(OTHER, &to(family.other, &door).tcp(SYN)),
                    Reason::PolicyDenied,
                    "another pod",
                );
                let allowed = handed_over(lab.send(CLIENT, &to(family.client, &door).tcp(SYN)), "the client");
                assert_eq!(allowed[..6], lab.pod(SERVER).mac);
            }
        }
    });
}

#[test]
fn a_service_without_endpoints_is_not_routed_out() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in EMPTY.doors(family) {
                let no_backend = Reason::ServiceNoBackend;
                dropped(lab.arrive(&to(family.outside, &door).tcp(SYN)), no_backend, "from outside");
                dropped(lab.send(CLIENT, &to(family.client, &door).tcp(SYN)), no_backend, "from a pod");
                dropped(lab.leave(&to(family.node, &door).tcp(SYN)), no_backend, "from the node");
            }
            let free = Ends::new(family.outside, family.unallocated, HTTP).tcp(SYN);
            dropped(lab.arrive(&free), Reason::ServiceUnallocated, "an address of no service");
            let free = Ends::new(family.node, family.unallocated, HTTP).tcp(SYN);
            dropped(lab.leave(&free), Reason::ServiceUnallocated, "the node's");
            let other = Ends::new(family.outside, family.web, 81).tcp(SYN);
            dropped(lab.arrive(&other), Reason::ServicePortUnknown, "another port");
            let own = Ends::new(family.outside, family.node, 22).tcp(SYN);
            assert_eq!(through_stack(lab.arrive(&own), "the node's own port"), own);
        }
    });
}

#[test]
fn a_source_that_cannot_be_outside_is_refused() {
    on_node(|lab| {
        for family in FAMILIES {
            let door = NEAR.node_port(family);
            for forged in [family.node, family.client, family.web, family.unallocated] {
                dropped(lab.arrive(&to(forged, &door).tcp(SYN)), Reason::InvalidSource, forged);
            }
            handed_over(lab.arrive(&to(family.remote, &door).tcp(SYN)), "a pod of another node");
        }
    });
}

#[test]
fn the_last_hop_ends_at_the_node() {
    on_node(|lab| {
        for family in FAMILIES {
            let mut frame = to(family.outside, &NEAR.node_port(family)).tcp(SYN);
            set_hops(&mut frame, 2);
            handed_over(lab.arrive(&frame), "two left");
            set_hops(&mut frame, 1);
            dropped(lab.arrive(&frame), Reason::TtlExceeded, "one left");
            let mut frame = to(family.outside, &NEAR.balancer(family)).tcp(SYN);
            set_hops(&mut frame, 1);
            assert_eq!(through_stack(lab.arrive(&frame), "for the stack to report"), frame);
        }
    });
}
