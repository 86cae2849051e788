//! Fragments that come before the first of their datagram (attack tests 7 and 8): they wait, and when the first
//! comes they are judged as if they had come behind it. Port 53 is allowed, 9999 is not.

use weir::kernel::Program;
use weir_common::{
    header::protocol,
    reason::{Hook, Reason},
};
use weir_tests::packets::{At, Ends, Lab, Tap, Verdict, action::SHOT, in_lab};

use super::{
    CLIENT, FAMILIES, Family, OTHER, SERVER, dropped,
    exposed::{self, NEAR},
    fragments::fragment,
    handed_over, on_node,
};

pub(super) const UDP: u8 = protocol::UDP;

/// A pod sends a frame. `None`: it waits, or goes once more with what has waited for it.
pub(super) fn offer(lab: &Lab, pod: &str, frame: &[u8]) -> Option<Verdict> {
    let ifindex = lab.pod(pod).ifindex;
    lab.offer(Program::FromPod, At { ifindex, ingress: ifindex }, frame)
}

/// A fragment from a pod that must wait.
#[track_caller]
pub(super) fn waits(lab: &Lab, pod: &str, frame: &[u8], what: &str) {
    let verdict = offer(lab, pod, frame);
    assert!(verdict.is_none(), "{what}: {verdict:?}");
}

/// A place that fragments come to.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub program: Program,
    pub hook: Hook,
    pub at: At,
}

impl Place {
    pub fn from_pod(lab: &Lab, pod: &str) -> Self {
        let ifindex = lab.pod(pod).ifindex;
        Self { program: Program::FromPod, hook: Hook::FromPod, at: At { ifindex, ingress: ifindex } }
    }

    pub fn from_uplink(lab: &Lab) -> Self {
        let at = At { ifindex: lab.uplink(), ingress: lab.uplink() };
        Self { program: Program::FromUplink, hook: Hook::FromUplink, at }
    }

    fn to_pod(lab: &Lab, pod: &str) -> Self {
        let at = At { ifindex: lab.pod(pod).ifindex, ingress: lab.uplink() };
        Self { program: Program::ToPod, hook: Hook::ToPod, at }
    }

    fn to_uplink(lab: &Lab) -> Self {
        let at = At { ifindex: lab.uplink(), ingress: 0 };
        Self { program: Program::ToUplink, hook: Hook::ToUplink, at }
    }

    #[track_caller]
    fn waits(self, lab: &Lab, frame: &[u8]) {
        let verdict = lab.offer(self.program, self.at, frame);
        assert!(verdict.is_none(), "{:?}: {verdict:?}", self.hook);
    }

    /// What is counted when a frame comes here that does not go on by itself.
    fn counts(self, lab: &Lab, frame: &[u8]) -> Vec<(Option<Reason>, u64)> {
        lab.counted();
        let outcome = lab.node().run(self.program, self.at, frame).unwrap();
        assert_eq!(outcome.verdict, SHOT);
        let here = lab.counted().into_iter().filter(|((hook, _), _)| *hook == self.hook);
        here.map(|((_, reason), packets)| (reason, packets)).collect()
    }
}

/// A datagram of 96 bytes in pieces of 24, the first of which is the first.
pub(super) fn datagram(ends: &Ends, id: u16) -> Vec<Vec<u8>> {
    let whole = ends.udp_segment(&[7; 88]);
    let pieces = whole.chunks(24).enumerate();
    pieces.map(|(number, data)| fragment(ends, UDP, id, number * 24, number < 3, data)).collect()
}

/// Runs a test of each family where the client's fragments come.
fn at_client(test: impl Fn(&Lab, Place, Family) + Send + Sync) {
    on_node(|lab| {
        lab.wake_up();
        let place = Place::from_pod(lab, CLIENT);
        for family in FAMILIES {
            test(lab, place, family);
        }
    });
}

#[test]
fn a_pods_fragments_come_again_behind_their_first_and_are_judged_by_it() {
    on_node(|lab| {
        lab.wake_up();
        let place = Place::from_pod(lab, CLIENT);
        let tap = Tap::open();
        for family in FAMILIES {
            for (server, port, verdicts) in [
                (family.server, 53, vec![(None, 4)]),
                (family.web, 53, vec![(None, 4)]),
                (
                    family.server,
                    9999,
                    vec![(Some(Reason::FragmentNotFound), 3), (Some(Reason::PolicyDenied), 1)],
                ),
            ] {
                let pieces = datagram(&Ends::new(family.client, server, port), port);
                for late in [3, 1, 2] {
                    place.waits(lab, &pieces[late]);
                }
                tap.flush();
                let counts = place.counts(lab, &pieces[0]);
                assert_eq!(counts, verdicts, "{server} port {port}");
                let again = tap.came_in(place.at.ifindex);
                assert_eq!(again[0], pieces[0]);
                let mut late = again[1..].to_vec();
                late.sort();
                let mut expected = pieces[1..].to_vec();
                expected.sort();
                assert_eq!(late, expected, "each comes once, as it was");
                // Nothing has stayed behind: those that come now are in order.
                if port == 53 {
                    for piece in &pieces {
                        handed_over(lab.send(CLIENT, piece), "in order");
                    }
                }
            }
        }
    });
}

#[test]
fn fragments_to_a_node_port_come_again_behind_their_first() {
    in_lab("n1", &exposed::cluster(), |lab| {
        lab.wake_up();
        let place = Place::from_uplink(lab);
        let tap = Tap::open();
        for family in FAMILIES {
            let (address, port) = NEAR.doors(family)[0].clone();
            let pieces = datagram(&Ends::new(family.outside, &address, port), 1);
            for late in [1, 3, 2] {
                place.waits(lab, &pieces[late]);
            }
            assert_eq!(place.counts(lab, &pieces[0]), [(None, 4)]);
            assert_eq!(tap.came_in(place.at.ifindex)[0], pieces[0]);
            for piece in &pieces {
                let sent = handed_over(lab.arrive(piece), "in order");
                assert_eq!(sent[..6], lab.pod(OTHER).mac);
            }
        }
    });
}

#[test]
fn fragments_to_a_pod_go_out_behind_their_first_or_not_at_all() {
    on_node(|lab| {
        lab.wake_up();
        let tap = Tap::open();
        for family in FAMILIES {
            for (pod, address, passes) in [(OTHER, family.other, 4), (SERVER, family.server, 0)] {
                let place = Place::to_pod(lab, pod);
                let pieces = datagram(&Ends::new(family.remote, address, 53), 1);
                for late in [3, 2, 1] {
                    place.waits(lab, &pieces[late]);
                }
                tap.flush();
                place.waits(lab, &pieces[0]);
                let out = tap.went_out(place.at.ifindex);
                assert_eq!(out.len(), passes, "to {pod}");
                if passes > 0 {
                    assert_eq!(out[0], pieces[0]);
                    assert!(pieces.iter().all(|piece| out.contains(piece)), "{out:02x?}");
                }
            }
        }
    });
}

#[test]
fn fragments_of_the_node_to_a_service_are_translated_behind_their_first() {
    on_node(|lab| {
        lab.wake_up();
        let tap = Tap::open();
        for family in FAMILIES {
            let place = Place::to_uplink(lab);
            let pieces = datagram(&Ends::new(family.node, family.web, 53), 1);
            for late in [2, 3, 1] {
                place.waits(lab, &pieces[late]);
            }
            tap.flush();
            place.waits(lab, &pieces[0]);
            let out = tap.went_out(lab.pod(SERVER).ifindex);
            assert_eq!(out.len(), 4, "all of them to the backend");
            let direct = datagram(&Ends::new(family.node, family.server, 5353), 1);
            for (sent, like) in out.iter().zip([0, 1, 2, 3]) {
                let addresses = if family.node.contains(':') { 22..54 } else { 26..34 };
                assert_eq!(sent[addresses.clone()], direct[like][addresses]);
            }
        }
    });
}

#[test]
fn what_waits_is_let_go_by_its_own_first_only() {
    at_client(|lab, place, family| {
        let ends = Ends::new(family.client, family.server, 53);
        let pieces = datagram(&ends, 1);
        place.waits(lab, &pieces[1]);
        handed_over(lab.send(CLIENT, &datagram(&ends, 2)[0]), "another identification");
        let elsewhere = Ends { dst: family.other.parse().unwrap(), ..ends };
        handed_over(lab.send(CLIENT, &datagram(&elsewhere, 1)[0]), "another receiver");
        let echo = ends.icmp_segment(if ends.src.is_ipv4() { 8 } else { 128 }, 0, 1, &[7; 40]);
        let echo = fragment(&ends, ends.icmp_protocol(), 1, 0, true, &echo[..24]);
        handed_over(lab.send(CLIENT, &echo), "another protocol");
        // Another pod that takes the client's address, and one that says that it is the first.
        dropped(lab.send(OTHER, &pieces[0]), Reason::InvalidSource, "another sender");
        let short = fragment(&ends, UDP, 1, 0, true, &[]);
        dropped(lab.send(CLIENT, &short), Reason::FragmentTooShort, "a first that is too short");
        assert_eq!(place.counts(lab, &pieces[0]), [(None, 2)], "the first");
    });
}

#[test]
fn what_has_waited_must_not_overlap_the_first() {
    at_client(|lab, place, family| {
        let ends = Ends::new(family.client, family.server, 53);
        let pieces = datagram(&ends, 1);
        let over = fragment(&ends, UDP, 1, 16, true, &[7; 16]);
        for early in [&over, &pieces[2]] {
            place.waits(lab, early);
        }
        let counts = place.counts(lab, &pieces[0]);
        assert_eq!(counts, [(None, 2), (Some(Reason::FragmentOverlap), 1)]);
    });
}

#[test]
fn a_second_first_neither_changes_the_port_nor_lets_anything_go() {
    at_client(|lab, place, family| {
        let (allowed, denied) =
            (Ends::new(family.client, family.server, 53), Ends::new(family.client, family.server, 9999));
        let (pieces, others) = (datagram(&allowed, 1), datagram(&denied, 1));
        place.waits(lab, &pieces[1]);
        let counts = place.counts(lab, &others[0]);
        let both = [(Some(Reason::FragmentNotFound), 1), (Some(Reason::PolicyDenied), 1)];
        assert_eq!(counts, both, "what has waited is judged by the first that comes");
        dropped(lab.send(CLIENT, &pieces[0]), Reason::FragmentOverlap, "an allowed port over it");
        dropped(lab.send(CLIENT, &pieces[1]), Reason::FragmentNotFound, "what follows");
        // The twin, under another identification.
        let pieces = datagram(&allowed, 2);
        place.waits(lab, &pieces[1]);
        assert_eq!(place.counts(lab, &pieces[0]), [(None, 2)], "allowed");
    });
}
