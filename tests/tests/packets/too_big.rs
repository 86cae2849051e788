//! Packets that do not fit into the tunnel to a DSR backend: what their senders are told.

use weir::kernel::Program;
use weir_common::{event::kind, header::protocol, reason::Reason};
use weir_tests::packets::{
    Answered, At, Ends, Lab, action::REDIRECT, fragment_v4, fragment_v6, ip, ip_command, ip_options_v4,
    l4_offset, mend_v4, wrong_checksums, wrong_too_big,
};

use super::{
    ACK, Family, V4, dropped,
    edge::{VIPS, check_tunnel, families, on_edge},
    handed_over,
};

/// Length of an IP header, that of the tunnel too.
const fn header(family: Family) -> usize {
    if family.node.len() == V4.node.len() { 20 } else { 40 }
}

/// A UDP packet of this length with its IP header.
fn udp_of(family: Family, ends: &Ends, len: usize) -> Vec<u8> {
    ends.udp(&vec![0xa5; len - header(family) - 8])
}

/// A TCP packet of this length.
fn tcp_of(family: Family, ends: &Ends, len: usize) -> Vec<u8> {
    let segment = ends.tcp_segment(ACK, &[], &vec![0xa5; len - header(family) - 20]);
    ip(ends.src, ends.dst, protocol::TCP, &segment)
}

/// A packet that must be refused, and its sender told that packets of `mtu` bytes get through.
#[track_caller]
fn check_told(lab: &Lab, frame: &[u8], mtu: usize) {
    dropped(lab.arrive(frame), Reason::PacketTooBig, "too big");
    let Some(Answered { frame: answer, .. }) = lab.answer() else { panic!("no answer") };
    assert_eq!(wrong_too_big(frame, &answer, mtu as u16), None);
}

#[test]
fn who_sends_more_than_fits_is_told_what_fits() {
    on_edge(|lab| {
        for mtu in [1500, 1400, 9000] {
            ip_command(&format!("link set up0 mtu {mtu}"));
            for (family, vip) in families() {
                let (tcp, udp) = (Ends::new(family.outside, vip, 80), Ends::new(family.outside, vip, 53));
                let fits = mtu - header(family);
                for more in [1, 2, 3, header(family), 1000] {
                    // What a program can be run on ends at a page.
                    if fits + more > 3000 {
                        continue;
                    }
                    for frame in [udp_of(family, &udp, fits + more), tcp_of(family, &tcp, fits + more)] {
                        assert_eq!(lab.meet_edge(&frame), None, "TC answers it");
                        check_told(lab, &frame, fits);
                    }
                }
                for frame in [udp_of(family, &udp, fits.min(3000)), tcp_of(family, &tcp, fits.min(3000))] {
                    check_tunnel(family, &frame, &handed_over(lab.arrive(&frame), "what just fits"));
                    check_tunnel(family, &frame, &lab.meet_edge(&frame).expect("what just fits"));
                }
            }
        }
    });
}

#[test]
fn a_packet_that_may_be_fragmented_is_told_of_like_one_that_may_not() {
    on_edge(|lab| {
        let ends = Ends::new(V4.outside, VIPS[0], 53);
        for len in [1480, 1481] {
            let mut frame = udp_of(V4, &ends, len);
            // "Do not fragment".
            frame[20] &= !0x40;
            mend_v4(&mut frame);
            match len {
                1480 => check_tunnel(V4, &frame, &handed_over(lab.arrive(&frame), "what just fits")),
                _ => check_told(lab, &frame, 1480),
            }
        }
    });
}

#[test]
fn options_are_quoted() {
    on_edge(|lab| {
        let ends = Ends::new(V4.outside, VIPS[0], 80);
        for (data, fits) in [(1480 - 24 - 20, true), (1481 - 24 - 20, false)] {
            let segment = ends.tcp_segment(ACK, &[], &vec![7; data]);
            let frame = ip_options_v4(&ends, protocol::TCP, &[1; 4], &segment);
            if fits {
                handed_over(lab.arrive(&frame), "what just fits");
            } else {
                check_told(lab, &frame, 1480);
            }
        }
    });
}

#[test]
fn of_a_datagram_in_fragments_the_first_is_answered_for() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 53);
            let build = if family.node == V4.node { fragment_v4 } else { fragment_v6 };
            let whole = ends.udp_segment(&[7; 3200]);
            let first = |id, len: usize| build(&ends, protocol::UDP, id, 0, true, &whole[..len]);
            let later = |len: usize| build(&ends, protocol::UDP, 8, 1400, false, &whole[1400..1400 + len]);
            check_told(lab, &first(7, 1480), 1500 - header(family));
            handed_over(lab.arrive(&first(8, 1400)), "a first one that fits");
            dropped(lab.arrive(&later(1480)), Reason::PacketTooBig, "a later one");
            assert_eq!(lab.answer(), None, "nothing is said of a later one");
            handed_over(lab.arrive(&later(1400)), "one that fits");
        }
    });
}

#[test]
fn what_the_kernel_put_together_is_measured_by_its_segments() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 80);
            let frame = tcp_of(family, &ends, 3000);
            let fits = 1500 - header(family);
            let data = (fits - header(family) - 20) as u32;
            dropped(lab.arrive_merged(data + 1, &frame), Reason::PacketTooBig, "a byte too much in each");
            let Some(Answered { frame: mut answer, .. }) = lab.answer() else { panic!("no answer") };
            // What the device fills in: the sum of all from the TCP header on, the quoted checksum included.
            let tcp = l4_offset(&answer) + 8 + l4_offset(&frame) - 14;
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&answer[tcp..]).ones_complement();
            let asked = answer[tcp + 16..tcp + 18].to_vec();
            answer[tcp + 16..tcp + 18].copy_from_slice(&sum.to_ne_bytes());
            assert_eq!(wrong_checksums(&answer), [""; 0]);
            answer[tcp + 16..tcp + 18].copy_from_slice(&asked);
            let wrong = wrong_too_big(&frame, &answer, fits as u16).expect("its sum is another one by now");
            assert!(wrong.starts_with("ICMP"), "{wrong}");
            // The kernel does not say what kind of segments a test's are, so that nothing can be put before them.
            dropped(lab.arrive_merged(data, &frame), Reason::RewriteFailed, "it fits");
        }
    });
}

#[test]
fn the_outside_gets_only_so_many_answers() {
    on_edge(|lab| {
        let frame = udp_of(V4, &Ends::new(V4.outside, VIPS[0], 53), 1481);
        let at = At { ifindex: lab.uplink(), ingress: lab.uplink() };
        // Without a look at the counters between them, to be faster than the limit.
        let verdicts = (0..50_000).map(|_| lab.node().run(Program::FromUplink, at, &frame).unwrap().verdict);
        let told = verdicts.take_while(|verdict| *verdict == REDIRECT).count();
        assert!((1000..50_000).contains(&told), "{told} answers");
    });
}

#[test]
fn an_event_says_that_the_sender_was_told() {
    on_edge(|lab| {
        lab.events();
        let frame = udp_of(V4, &Ends::new(V4.outside, VIPS[0], 53), 1481);
        check_told(lab, &frame, 1480);
        let events = lab.events();
        let is_it = |reason| move |event: &&weir_common::event::Event| event.reason == reason as u8;
        let found = events.iter().find(is_it(Reason::PacketTooBig)).expect("an event");
        assert_eq!((found.kind, found.len), (kind::REJECT, frame.len() as u32));
    });
}
