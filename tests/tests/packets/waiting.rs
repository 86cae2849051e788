//! The table of fragments that wait for their first: who may have how much of it for how long, and that nothing
//! stays in it when two processors bring the parts of a datagram at the same time.

use std::{
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use weir_common::{
    early::{FRAME_MAX, PATIENCE, SETS, SHARE, WAYS},
    reason::{Hook, Reason},
};
use weir_tests::packets::{Ends, Tap, action::SHOT, in_lab_of, ip_command};

use super::{
    CLIENT, CLUSTER, FAMILIES, OTHER, SERVER, V6, dropped,
    early::{Place, UDP, datagram, waits},
    fragments::fragment,
    handed_over, on_node,
    processors::{processors, stay_on},
    through_stack,
};

/// Datagrams whose fragments race one another.
const RACES: u16 = 5_000;

#[test]
fn a_sender_has_its_share_and_the_others_theirs() {
    on_node(|lab| {
        for family in FAMILIES {
            let late = |src: &str, id| datagram(&Ends::new(src, family.server, 53), id).swap_remove(1);
            for id in 0..SHARE as u16 {
                waits(lab, CLIENT, &late(family.client, id), "within its share");
            }
            dropped(lab.send(CLIENT, &late(family.client, 99)), Reason::FragmentBufferFull, "beyond");
            dropped(
                lab.send(CLIENT, &late(family.other, 99)),
                Reason::FragmentBufferFull,
                "under another name",
            );
            waits(lab, OTHER, &late(family.other, 1), "another pod");
            lab.forget_all();
        }
    });
}

#[test]
fn a_flood_from_outside_is_bounded_and_takes_no_pods_place() {
    on_node(|lab| {
        for family in FAMILIES {
            let from = |number: u32| match family.client.contains(':') {
                true => format!("2001:db8:{:x}:{:x}::1", number >> 8, number & 0xff),
                false => format!("203.0.{}.{}", number >> 8, number & 0xff),
            };
            let place = Place::from_uplink(lab);
            let late = |number| datagram(&Ends::new(&from(number), family.server, 53), 1).swap_remove(1);
            let flood: Vec<_> = (0..1_500).map(late).collect();
            let run = |frame: &Vec<u8>| lab.node().run(place.program, place.at, frame).unwrap().verdict;
            let kept = flood.iter().filter(|frame| run(frame) == SHOT).count();
            assert_eq!(kept, SETS as usize / 2 * WAYS, "the part of the table that is for the outside");
            lab.counted();
            // The uplink leaves to the stack what it does not judge; the pod's own program is strict.
            through_stack(lab.arrive(&late(5_000)), "at the uplink");
            dropped(lab.receive(SERVER, &late(5_000)), Reason::FragmentBufferFull, "at the pod");
            let own = datagram(&Ends::new(family.client, family.server, 53), 1);
            waits(lab, CLIENT, &own[1], "a pod's");
            lab.forget_all();
        }
    });
}

#[test]
fn what_waits_too_long_is_dropped_and_makes_room() {
    on_node(|lab| {
        let place = Place::from_pod(lab, CLIENT);
        let timed_out = |packets| ((Hook::FromPod, Some(Reason::FragmentTimedOut)), packets);
        for family in FAMILIES {
            let ends = Ends::new(family.client, family.server, 53);
            let fill = |from| {
                for id in from..from + SHARE as u16 {
                    let late = &datagram(&ends, id)[1];
                    assert_eq!(lab.node().run(place.program, place.at, late).unwrap().verdict, SHOT);
                }
                lab.counted()
            };
            assert_eq!(fill(100), []);
            thread::sleep(Duration::from_millis(u64::from(PATIENCE) * 1000 + 200));
            let first = lab.node().run(place.program, place.at, &datagram(&ends, 101)[0]).unwrap();
            assert_ne!(first.verdict, SHOT, "it goes on by itself");
            assert_eq!(lab.counted(), [((Hook::FromPod, None), 1), timed_out(1)]);
            assert_eq!(fill(200), [timed_out(u64::from(SHARE) - 1)]);
            lab.forget_all();
        }
    });
}

#[test]
fn long_frames_wait_up_to_a_length() {
    on_node(|lab| {
        lab.wake_up();
        for interface in ["pod0", "eth0"] {
            ip_command(&format!("link set {interface} mtu 9500"));
        }
        let (tap, ifindex) = (Tap::open(), lab.pod(CLIENT).ifindex);
        for family in FAMILIES {
            let ends = Ends::new(family.client, family.server, 53);
            let headers = datagram(&ends, 1)[1].len() - 24;
            // More than a test run takes: by the pod's own interface.
            let whole = ends.udp_segment(&vec![7; 20_000]);
            let first = fragment(&ends, UDP, 1, 0, true, &whole[..24]);
            let most = (FRAME_MAX - headers) / 8 * 8;
            let long = fragment(&ends, UDP, 1, 24, true, &whole[24..24 + most]);
            tap.send("eth0", &long);
            let longer = fragment(&ends, UDP, 1, 24, true, &whole[24..24 + most + 8]);
            lab.counted();
            tap.send("eth0", &longer);
            assert_eq!(lab.counted(), [((Hook::FromPod, Some(Reason::FragmentBufferFull)), 1)]);
            tap.flush();
            tap.send("eth0", &first);
            assert_eq!(lab.counted(), [((Hook::FromPod, None), 2)]);
            assert_eq!(tap.came_in(ifindex), [first.clone(), first, long]);
        }
    });
}

#[test]
fn fragments_that_race_their_first_on_another_processor_are_judged_once_and_never_stay() {
    in_lab_of(8192, "n1", CLUSTER, |lab| {
        lab.wake_up();
        let (node, place) = (lab.node(), Place::from_pod(lab, CLIENT));
        let ends = Ends::new(V6.client, V6.server, 53);
        // Their flow is known: while a first is being decided, a later one finds none.
        for frame in &datagram(&ends, 0)[..2] {
            handed_over(lab.send(CLIENT, frame), "in order");
        }
        // How far each side has come: they begin every race together.
        let at = [const { AtomicU16::new(0) }; 2];
        lab.counted();
        thread::scope(|scope| {
            for (side, processor) in processors().into_iter().cycle().take(2).enumerate() {
                let (at, ends) = (&at, &ends);
                scope.spawn(move || {
                    stay_on(processor);
                    for id in 1..=RACES {
                        let frame = &datagram(ends, id)[side];
                        at[side].store(id, Ordering::SeqCst);
                        while at[1 - side].load(Ordering::SeqCst) < id {
                            thread::yield_now();
                        }
                        node.run(place.program, place.at, frame).unwrap();
                    }
                });
            }
        });
        let passed = ((Hook::FromPod, None), u64::from(RACES) * 2);
        let (mut counted, deadline) = (0, Instant::now() + Duration::from_secs(2));
        while counted < passed.1 && Instant::now() < deadline {
            for (what, packets) in lab.counted() {
                assert_eq!(what, passed.0);
                counted += packets;
            }
        }
        assert_eq!(counted, passed.1);
    });
}
