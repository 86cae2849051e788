//! VLAN tags and ethertypes (attack tests 3, 4).

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, eth};

use super::{CLIENT, FAMILIES, OTHER, SYN, V4, dropped, handed_over, on_node};

/// A frame with VLAN tags, the outermost first: ethertype and tag control information.
fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for (ethertype, control) in tags {
        tagged.extend(ethertype.to_be_bytes());
        tagged.extend(control.to_be_bytes());
    }
    tagged.extend(&frame[12..]);
    tagged
}

const TAGS: [&[(u16, u16)]; 14] = [
    &[(0x8100, 0)],
    &[(0x8100, 0), (0x8100, 0)],
    &[(0x8100, 0), (0x8100, 0), (0x8100, 0)],
    &[(0x88a8, 0)],
    &[(0x88a8, 0), (0x8100, 0)],
    &[(0x88a8, 0), (0x8100, 0), (0x8100, 0)],
    &[(0x88a8, 0), (0x88a8, 0)],
    &[(0x8100, 5)],
    &[(0x8100, 5), (0x8100, 0)],
    &[(0x88a8, 5), (0x8100, 5)],
    &[(0x8100, 4095)],
    &[(0x8100, 0xe000)],
    &[(0x9100, 0)],
    &[(0x9200, 0), (0x9100, 0)],
];

#[test]
fn vlan_tags_are_filtered_at_any_depth() {
    on_node(|lab| {
        for family in FAMILIES {
            let frame = Ends::new(family.other, family.client, 80).tcp(SYN);
            for tags in TAGS {
                let tagged = tagged(&frame, tags);
                dropped(lab.send(OTHER, &tagged), Reason::VlanFiltered, &format!("sent {tags:x?}"));
                dropped(lab.receive(CLIENT, &tagged), Reason::VlanFiltered, &format!("received {tags:x?}"));
            }
            handed_over(lab.send(OTHER, &frame), "untagged");
        }
        let arp = [0; 28];
        dropped(lab.send(OTHER, &tagged(&eth(0x0806, &arp), TAGS[0])), Reason::VlanFiltered, "ARP");
    });
}

#[test]
fn other_ethertypes_are_dropped() {
    // Among them lengths (802.3 with LLC/SNAP), MPLS, PPPoE, LLDP, Wake-on-LAN, RARP, MACsec, transparent
    // bridging, and the neighbours of the ethertypes that pass.
    const TYPES: [u16; 25] = [
        0x0000, 0x0026, 0x05dc, 0x05ff, 0x0600, 0x07ff, 0x0801, 0x0805, 0x0807, 0x0842, 0x22f0, 0x6558,
        0x8035, 0x8137, 0x86dc, 0x86de, 0x8847, 0x8848, 0x8863, 0x8864, 0x888e, 0x88cc, 0x88e5, 0x8906,
        0xffff,
    ];
    on_node(|lab| {
        let frame = Ends::new(V4.other, V4.client, 80).tcp(SYN);
        for ethertype in TYPES {
            let mut other = frame.clone();
            other[12..14].copy_from_slice(&ethertype.to_be_bytes());
            let what = format!("{ethertype:#06x}");
            dropped(lab.send(OTHER, &other), Reason::UnsupportedL2, &what);
            dropped(lab.receive(CLIENT, &other), Reason::UnsupportedL2, &what);
        }
        // IPv4 behind an LLC/SNAP header, which names the ethertype a second time.
        let snap = [&[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00][..], &frame[14..]].concat();
        dropped(lab.send(OTHER, &eth(snap.len() as u16, &snap)), Reason::UnsupportedL2, "SNAP");
        handed_over(lab.send(OTHER, &frame), "IPv4");
    });
}

#[test]
fn the_ethertype_of_the_other_family_does_not_pass() {
    on_node(|lab| {
        for (family, other) in [(FAMILIES[0], 0x86dd_u16), (FAMILIES[1], 0x0800)] {
            let frame = Ends::new(family.other, family.client, 80).tcp(SYN);
            let mut disguised = frame.clone();
            disguised[12..14].copy_from_slice(&other.to_be_bytes());
            dropped(lab.send(OTHER, &disguised), Reason::InvalidPacket, "disguised");
            handed_over(lab.send(OTHER, &frame), "as itself");
        }
    });
}
