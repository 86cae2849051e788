//! ARP and neighbour discovery: a pod speaks for itself only (attack tests 4, 5, 6).

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, POD_MAC, eth, ip, transport_check};

use super::{OTHER, V4, V6, dropped, on_node, through_stack};

const GATEWAY: &str = V4.node;
const ZERO: &str = "0.0.0.0";
const ALL_NODES: &str = "ff02::1";
const LINK_LOCAL: &str = "fe80::30";

/// An ARP message over Ethernet for IPv4.
fn arp(operation: u16, sender: &str, target: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend(POD_MAC);
    message.extend(octets(sender));
    message.extend([0; 6]);
    message.extend(octets(target));
    eth(0x0806, &message)
}

#[test]
fn arp_passes_in_its_legal_shapes() {
    on_node(|lab| {
        for (what, frame) in [
            ("who has the gateway", arp(1, V4.other, GATEWAY)),
            ("who has a neighbour", arp(1, V4.other, V4.client)),
            ("I have mine", arp(2, V4.other, GATEWAY)),
            ("gratuitous request", arp(1, V4.other, V4.other)),
            ("gratuitous reply", arp(2, V4.other, V4.other)),
            ("probe for mine", arp(1, ZERO, V4.other)),
        ] {
            through_stack(lab.send(OTHER, &frame), what);
            let mut padded = frame.clone();
            padded.resize(60, 0);
            through_stack(lab.send(OTHER, &padded), what);
        }
    });
}

#[test]
fn arp_for_another_is_dropped() {
    on_node(|lab| {
        let changed = |at: usize, bytes: &[u8]| {
            let mut frame = arp(1, V4.other, GATEWAY);
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        for (what, frame) in [
            ("reply for another pod", arp(2, V4.client, GATEWAY)),
            ("request of another pod", arp(1, V4.client, GATEWAY)),
            ("reply for the gateway", arp(2, GATEWAY, V4.client)),
            ("gratuitous for another pod", arp(1, V4.client, V4.client)),
            ("gratuitous for the gateway", arp(2, GATEWAY, GATEWAY)),
            ("reply for a service", arp(2, V4.web, GATEWAY)),
            ("reply for nobody", arp(2, ZERO, V4.other)),
            ("probe for another's", arp(1, ZERO, V4.client)),
            ("operation 0", arp(0, V4.other, GATEWAY)),
            ("reverse request", arp(3, V4.other, GATEWAY)),
            ("inverse request", arp(8, V4.other, GATEWAY)),
            ("another hardware type", changed(14, &[0, 6])),
            ("another protocol type", changed(16, &[0x86, 0xdd])),
            ("hardware length 5", changed(18, &[5])),
            ("hardware length 8", changed(18, &[8])),
            ("protocol length 16", changed(19, &[16])),
            ("protocol length 0", changed(19, &[0])),
            ("another sender's MAC", changed(22, &[2, 9, 9, 9, 9, 9])),
            ("another frame's MAC", changed(6, &[2, 9, 9, 9, 9, 9])),
            ("a broadcast MAC", changed(22, &[0xff; 6])),
        ] {
            dropped(lab.send(OTHER, &frame), Reason::InvalidNeighbour, what);
        }
        for len in 15..42 {
            let cut = &arp(1, V4.other, GATEWAY)[..len];
            dropped(lab.send(OTHER, cut), Reason::InvalidPacket, &format!("cut at {len}"));
        }
        through_stack(lab.send(OTHER, &arp(1, V4.other, GATEWAY)), "who has the gateway");
    });
}

/// A neighbour discovery message about `target`.
fn discovery(kind: u8, src: &str, target: &str) -> Vec<u8> {
    message(kind, src, target, 255)
}

fn message(kind: u8, src: &str, target: &str, hop_limit: u8) -> Vec<u8> {
    let ends = Ends::new(src, ALL_NODES, 0);
    // An advertisement with the override flag, and a link-layer address option.
    let flags = if kind == 136 { 0x20 } else { 0 };
    let mut segment = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    segment.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    segment.extend([2, 1]);
    segment.extend(POD_MAC);
    let check = transport_check(ends.src, ends.dst, 58, &segment);
    segment[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = ip(ends.src, ends.dst, 58, &segment);
    frame[21] = hop_limit;
    frame
}

#[test]
fn neighbour_discovery_passes_in_its_legal_shapes() {
    on_node(|lab| {
        for (what, frame) in [
            ("router solicitation", discovery(133, LINK_LOCAL, "::")),
            ("router solicitation of nobody", discovery(133, "::", "::")),
            ("who has the gateway", discovery(135, V6.other, V6.node)),
            ("who has the gateway, link-local", discovery(135, LINK_LOCAL, "fe80::1")),
            ("is mine free", discovery(135, "::", V6.other)),
            ("is my link-local address free", discovery(135, "::", LINK_LOCAL)),
            ("I have mine", discovery(136, V6.other, V6.other)),
            ("I have my link-local address", discovery(136, LINK_LOCAL, LINK_LOCAL)),
        ] {
            through_stack(lab.send(OTHER, &frame), what);
        }
    });
}

#[test]
fn neighbour_discovery_for_another_is_dropped() {
    on_node(|lab| {
        for (what, frame) in [
            ("I have another pod's", discovery(136, V6.other, V6.client)),
            ("I have another pod's, under its address", discovery(136, V6.client, V6.client)),
            ("I have the gateway's", discovery(136, V6.other, V6.node)),
            ("I have the gateway's, link-local source", discovery(136, LINK_LOCAL, V6.node)),
            ("I have a service's", discovery(136, LINK_LOCAL, V6.web)),
            ("who has the gateway, says another", discovery(135, V6.client, V6.node)),
            ("is another's free", discovery(135, "::", V6.client)),
            ("router advertisement", discovery(134, LINK_LOCAL, "::")),
            ("router advertisement under the own address", discovery(134, V6.other, "::")),
            ("routed: hop limit 254", message(136, V6.other, V6.other, 254)),
            ("routed: hop limit 64", message(135, V6.other, V6.node, 64)),
            ("solicitation of another for routers", discovery(133, V6.client, "::")),
        ] {
            dropped(lab.send(OTHER, &frame), Reason::InvalidNeighbour, what);
        }
        for (what, kind) in [("redirect", 137), ("router renumbering", 138), ("inverse", 141), ("MLDv2", 143)]
        {
            dropped(lab.send(OTHER, &discovery(kind, LINK_LOCAL, V6.client)), Reason::IcmpUnsupported, what);
        }
        through_stack(lab.send(OTHER, &discovery(136, V6.other, V6.other)), "I have mine");
    });
}
