//! Floods: what a sender of very many packets takes from others (attack 35).

use weir::kernel::{Program, sys::Packet};
use weir_common::{flow::state, reason::Reason};
use weir_tests::packets::{At, Ends, Lab, in_lab_of, read_tuple};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, Family, OTHER, SERVER, SYN, V4, dropped, handed_over, on_node,
    through_stack,
};

/// Sets of the flow tables: 512 entries for each family.
const SETS: u32 = 64;
/// Many times more flows than that.
const FLOOD: u16 = 20_000;

/// A connection of the client to the server, established.
fn connect(lab: &Lab, family: Family) -> Ends {
    let ends = family.to_server(80);
    handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "there");
    handed_over(lab.send(SERVER, &ends.back().tcp(SYN | ACK)), "back");
    handed_over(lab.send(CLIENT, &ends.tcp(ACK)), "established");
    ends
}

/// Both directions of the connection, as the table has them.
fn established(lab: &Lab, ends: &Ends) -> usize {
    let both = [*ends, ends.back()];
    let flows = lab.flows().into_iter().filter(|flow| {
        let (sport, dport) = (flow.src.port(), flow.dst.port());
        both.contains(&Ends { src: flow.src.ip(), dst: flow.dst.ip(), sport, dport })
    });
    flows.filter(|flow| flow.state == state::ESTABLISHED).count()
}

#[test]
fn a_flood_of_new_flows_does_not_take_the_place_of_established_ones() {
    in_lab_of(SETS, "n1", CLUSTER, |lab| {
        let held: Vec<_> = FAMILIES.iter().flat_map(|family| (0..8).map(|_| connect(lab, *family))).collect();
        let programs = lab.node().programs();
        let other = At { ifindex: lab.pod(OTHER).ifindex, ingress: lab.pod(OTHER).ifindex };
        for (family, sport) in FAMILIES.iter().flat_map(|family| (0..FLOOD).map(move |sport| (family, sport)))
        {
            let flood = Ends { sport, ..Ends::new(family.other, family.remote, 80) };
            let frame = if sport % 2 == 0 { flood.tcp(SYN) } else { flood.udp(b"q") };
            programs
                .run(Program::FromPod, other, Packet { data: &frame, ..Packet::default() })
                .expect("the program runs");
        }
        assert!(lab.flows().len() <= 2 * 8 * SETS as usize, "the tables do not grow");
        for ends in &held {
            assert_eq!(established(lab, ends), 2, "{ends:?}");
        }
    });
}

#[test]
fn who_is_denied_takes_no_place_at_all() {
    on_node(|lab| {
        for family in FAMILIES {
            let before = lab.flows().len();
            for _ in 0..500 {
                let denied = Ends::new(family.other, family.server, 80);
                dropped(lab.send(OTHER, &denied.tcp(SYN)), Reason::PolicyDenied, "denied");
            }
            assert_eq!(lab.flows().len(), before);
            connect(lab, family);
            assert_eq!(lab.flows().len(), before + 2, "the client's");
        }
    });
}

#[test]
fn a_full_table_refuses_no_new_flow() {
    in_lab_of(SETS, "n1", CLUSTER, |lab| {
        for _ in 0..2000 {
            through_stack(lab.send(OTHER, &Ends::new(V4.other, V4.remote, 80).tcp(SYN)), "the flood");
        }
        for _ in 0..50 {
            connect(lab, V4);
        }
    });
}

#[test]
fn a_flood_of_answered_flows_breaks_no_flow_of_another() {
    in_lab_of(SETS, "n1", CLUSTER, |lab| {
        let pairs = FAMILIES.iter().flat_map(|family| [family.server, family.web].map(|to| (family, to)));
        let held: Vec<_> = pairs
            .map(|(family, to)| {
                let ask = Ends::new(family.client, to, if to == family.web { 80 } else { 8080 });
                let there = read_tuple(&handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there"));
                let back = handed_over(lab.send(SERVER, &there.back().tcp(SYN | ACK)), "back");
                handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "established");
                (ask, there, read_tuple(&back))
            })
            .collect();
        let node = lab.node();
        let [pod, uplink] =
            [lab.pod(OTHER).ifindex, lab.uplink()].map(|ifindex| At { ifindex, ingress: ifindex });
        let run = |program, at, frame: &[u8]| node.run(program, at, frame).expect("the program runs");
        for (family, sport) in FAMILIES.iter().flat_map(|family| (0..FLOOD).map(move |sport| (family, sport)))
        {
            // The sender has a friend outside, and so as many established flows as it likes.
            let flood = Ends { sport, ..Ends::new(family.other, family.remote, 80) };
            run(Program::FromPod, pod, &flood.udp(b"q"));
            run(Program::FromUplink, uplink, &flood.back().udp(b"a"));
        }
        assert!(held.iter().any(|(ask, ..)| established(lab, ask) == 0), "the flood takes places");
        lab.counted();
        for (ask, there, back) in held {
            let again = handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "it goes on");
            assert_eq!(read_tuple(&again), there, "where it went");
            let again = handed_over(lab.send(SERVER, &there.back().tcp(ACK)), "and is answered");
            assert_eq!(read_tuple(&again), back);
        }
    });
}
