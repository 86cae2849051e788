//! Flows: how they open (attack test 17), what a commit does to them, and what is told of them.

use std::collections::BTreeMap;

use weir_common::{
    event::kind,
    reason::{Hook, Reason},
};
use weir_tests::packets::Ends;

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, FIN, OTHER, PSH, RST, SERVER, SYN, URG, V4, dropped, handed_over,
    on_node, through_stack,
};

/// Segments that open nothing.
const NOT_OPENING: [(&str, u8); 7] = [
    ("ACK", ACK),
    ("SYN+ACK", SYN | ACK),
    ("RST", RST),
    ("RST+ACK", RST | ACK),
    ("FIN+ACK", FIN | ACK),
    ("data", PSH | ACK),
    ("urgent data", URG | ACK),
];
/// Flags that contradict each other.
const IMPOSSIBLE: [(&str, u8); 9] = [
    ("none", 0),
    ("FIN", FIN),
    ("PSH", PSH),
    ("URG", URG),
    ("FIN+PSH+URG", FIN | PSH | URG),
    ("SYN+FIN", SYN | FIN),
    ("SYN+RST", SYN | RST),
    ("RST+FIN", RST | FIN),
    ("all", 0xff),
];

#[test]
fn segments_without_syn_do_not_get_past_a_policy() {
    on_node(|lab| {
        for family in FAMILIES {
            for (what, flags) in NOT_OPENING {
                let denied = family.to_server(9999);
                dropped(lab.send(CLIENT, &denied.tcp(flags)), Reason::PolicyDenied, what);
                let outside = Ends::new(family.outside, family.server, 9999);
                dropped(lab.receive(SERVER, &outside.tcp(flags)), Reason::PolicyDenied, what);
            }
        }
        assert_eq!(lab.flows(), [], "what is denied leaves nothing behind");
        for family in FAMILIES {
            for (what, flags) in NOT_OPENING {
                // A connection that was there before the agent: judged like any other.
                handed_over(lab.send(CLIENT, &family.to_server(80).tcp(flags)), what);
            }
        }
    });
}

#[test]
fn flags_that_contradict_each_other_are_dropped() {
    on_node(|lab| {
        for family in FAMILIES {
            for (what, flags) in IMPOSSIBLE {
                for port in [80, 9999] {
                    let frame = family.to_server(port).tcp(flags);
                    dropped(lab.send(CLIENT, &frame), Reason::InvalidTcpFlags, what);
                }
            }
            let open = family.to_server(80);
            for flags in [SYN, SYN | 0xc0, ACK, ACK | PSH | URG, FIN | ACK, RST] {
                handed_over(lab.send(CLIENT, &open.tcp(flags)), &format!("{flags:#04x}"));
            }
            dropped(lab.send(CLIENT, &open.tcp(SYN | FIN)), Reason::InvalidTcpFlags, "on a live flow");
        }
    });
}

#[test]
fn a_denied_connection_leaves_no_flow() {
    on_node(|lab| {
        for family in FAMILIES {
            let denied = family.to_server(9999);
            for frame in [denied.tcp(SYN), denied.udp(b"q"), denied.sctp()] {
                dropped(lab.send(CLIENT, &frame), Reason::PolicyDenied, "denied");
            }
        }
        assert_eq!(lab.flows(), []);
        handed_over(lab.send(CLIENT, &V4.to_server(80).tcp(SYN)), "allowed");
        assert_eq!(lab.flows().len(), 2, "one entry for each direction");
    });
}

#[test]
fn a_reply_passes_and_only_to_the_tuple_that_asked() {
    on_node(|lab| {
        for family in FAMILIES {
            // The server isolates nobody else: let it be the one that asks.
            let ask = Ends::new(family.server, family.outside, 53);
            through_stack(lab.send(SERVER, &ask.udp(b"q")), "asked");
            let answer = ask.back();
            for other in [
                Ends { dport: answer.dport ^ 1, ..answer },
                Ends { sport: answer.sport ^ 1, ..answer },
                Ends { src: family.remote.parse().unwrap(), ..answer },
            ] {
                dropped(lab.receive(SERVER, &other.udp(b"a")), Reason::PolicyDenied, "not what was asked");
            }
            dropped(lab.receive(SERVER, &answer.tcp(ACK)), Reason::PolicyDenied, "another protocol");
            handed_over(lab.arrive(&answer.udp(b"a")), "the answer");
        }
    });
}

/// Attack 15, packet by packet.
#[test]
fn a_commit_that_denies_cuts_a_live_flow_and_no_other() {
    on_node(|lab| {
        let without_80 = CLUSTER.replacen("        - {port: 80, protocol: TCP}\n", "", 1);
        for family in FAMILIES {
            let (cut, kept) = (family.to_server(80), family.to_server(53));
            let service = Ends::new(family.client, family.web, 80);
            let open = Ends::new(family.other, family.client, 80);
            let first = [
                lab.send(CLIENT, &cut.tcp(SYN)),
                lab.send(SERVER, &cut.back().tcp(SYN | ACK)),
                lab.send(CLIENT, &kept.udp(b"q")),
                lab.send(CLIENT, &service.tcp(SYN)),
                lab.send(OTHER, &open.tcp(SYN)),
            ];
            first.into_iter().for_each(|verdict| drop(handed_over(verdict, "before")));

            lab.commit(&without_80);
            dropped(lab.send(CLIENT, &cut.tcp(ACK)), Reason::PolicyDenied, "the client's next packet");
            dropped(lab.send(SERVER, &cut.back().tcp(ACK)), Reason::PolicyDenied, "the server's next packet");
            handed_over(lab.send(CLIENT, &kept.udp(b"q")), "another port");
            handed_over(lab.send(SERVER, &kept.back().udp(b"a")), "its answer");
            handed_over(lab.send(CLIENT, &service.tcp(ACK)), "through the service");
            handed_over(lab.send(OTHER, &open.tcp(ACK)), "between others");

            lab.commit(CLUSTER);
            handed_over(lab.send(CLIENT, &cut.tcp(ACK)), "allowed again");
            handed_over(lab.send(SERVER, &cut.back().tcp(ACK)), "and back");
        }
    });
}

/// Attack 16.
#[test]
fn an_address_that_passes_to_another_pod_takes_no_flow_along() {
    on_node(|lab| {
        let recycled = CLUSTER.replace(
            "name: client, namespace: t, labels: {app: client}",
            "name: heir, namespace: t, labels: {app: heir}",
        );
        let one_less = recycled.replace("name: datagrams", "name: renamed");
        for family in FAMILIES {
            let flow = family.to_server(80);
            let open = Ends::new(family.client, family.other, 80);
            lab.commit(CLUSTER);
            handed_over(lab.send(CLIENT, &flow.tcp(SYN)), "of the first");
            handed_over(lab.send(CLIENT, &open.tcp(SYN)), "of the first, to another");
            // One goes and the other comes in the same commit; a later one does not take it for the first.
            for cluster in [&recycled, &one_less] {
                lab.commit(cluster);
                dropped(lab.send("t/heir", &flow.tcp(ACK)), Reason::PolicyDenied, "in the first one's flow");
                let anew = family.to_server(80).tcp(SYN);
                dropped(lab.send("t/heir", &anew), Reason::PolicyDenied, "anew");
                dropped(
                    lab.send(CLIENT, &flow.tcp(ACK)),
                    Reason::InvalidSource,
                    "from where the first one was",
                );
                handed_over(
                    lab.send("t/heir", &Ends::new(family.client, family.other, 80).tcp(SYN)),
                    "its own",
                );
            }
        }
    });
}

/// Attack 16, where the pod stays and its labels change.
#[test]
fn a_pod_that_is_gone_sends_no_more_under_its_old_flows() {
    on_node(|lab| {
        let recycled = CLUSTER.replace("labels: {app: client}", "labels: {app: recycled}");
        for family in FAMILIES {
            let flow = family.to_server(80);
            handed_over(lab.send(CLIENT, &flow.tcp(SYN)), "allowed");
            lab.commit(&recycled);
            dropped(
                lab.send(CLIENT, &flow.tcp(ACK)),
                Reason::PolicyDenied,
                "the address is another pod's now",
            );
            lab.commit(CLUSTER);
            handed_over(lab.send(CLIENT, &flow.tcp(ACK)), "as before");
        }
    });
}

fn cut_short(mut frame: Vec<u8>) -> Vec<u8> {
    frame.pop();
    frame
}

#[test]
fn every_drop_and_every_flow_is_told_once() {
    on_node(|lab| {
        let mut expected = BTreeMap::new();
        let mut opened = 0;
        for family in FAMILIES {
            for (pod, frame) in [
                (OTHER, Ends::new(family.client, family.server, 80).tcp(SYN)),
                (CLIENT, family.to_server(9999).tcp(SYN)),
                (CLIENT, family.to_server(9999).udp(b"q")),
                (CLIENT, family.to_server(80).tcp(SYN | FIN)),
                (CLIENT, cut_short(family.to_server(80).tcp(SYN))),
                (CLIENT, Ends::new(family.client, family.unallocated, 80).tcp(SYN)),
                (CLIENT, Ends::new(family.client, family.client, 80).tcp(SYN)),
            ] {
                let reason = lab.send(pod, &frame).expect_err("dropped");
                *expected.entry(reason as u8).or_insert(0) += 1;
            }
            let flow = family.to_server(80);
            for flags in [SYN, ACK, ACK] {
                handed_over(lab.send(CLIENT, &flow.tcp(flags)), "allowed");
            }
            opened += 1;
        }
        let mut told = BTreeMap::new();
        let mut flows = 0;
        for event in lab.events() {
            assert_eq!(event.hook, Hook::FromPod as u8);
            match event.kind {
                kind::DROP => *told.entry(event.reason).or_insert(0) += 1,
                _ => flows += 1,
            }
        }
        assert_eq!((told, flows), (expected, opened));
    });
}

#[test]
fn of_several_entries_of_a_key_the_one_that_is_read_is_written() {
    on_node(|lab| {
        let ends = V4.to_server(80);
        handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "opened");
        handed_over(lab.send(CLIENT, &ends.tcp(FIN | ACK)), "ended");
        lab.multiply(&ends);

        handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "opened again");
        handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "sent again");

        let opened = lab.events().iter().filter(|event| event.kind != kind::DROP).count();
        assert_eq!(opened, 2, "the second is known");
    });
}
