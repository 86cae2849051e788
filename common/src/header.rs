//! Packet headers, read and written in place.
//!
//! Every struct has alignment 1 and is made of bytes and of words in network order, so that a pointer
//! into a packet may be viewed as one wherever its bytes have been bounds-checked.

mod ip;

pub use self::ip::IpHeader;
use crate::addr::{Be16, V4, V6};

/// Ethertype of IPv4, host order.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of IPv6, host order.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethertype of ARP, host order.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertypes of VLAN tags: 802.1Q, 802.1ad, and the two older ones for stacked tags.
pub const ETHERTYPES_VLAN: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];

/// IP protocol numbers (IANA registry "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// An IPv4 packet (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// An IPv6 packet (RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Ethernet header.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Eth {
    /// Destination MAC address.
    pub dst: [u8; 6],
    /// Source MAC address.
    pub src: [u8; 6],
    /// Ethertype.
    pub ethertype: Be16,
}

/// IPv4 header without options (RFC 791).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    /// Version and header length in 32-bit words.
    pub version_ihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Length with the header.
    pub total_len: Be16,
    /// Identification.
    pub id: Be16,
    /// Flags and fragment offset in units of 8 bytes.
    pub fragment: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of what follows.
    pub protocol: u8,
    /// Header checksum.
    pub check: Be16,
    /// Source.
    pub src: V4,
    /// Destination.
    pub dst: V4,
}

/// IPv6 header (RFC 8200).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    /// Version, traffic class, flow label.
    pub version_class_flow: [u8; 4],
    /// Length of what follows this header.
    pub payload_len: Be16,
    /// Type of the header that follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: V6,
    /// Destination.
    pub dst: V6,
}

/// First eight bytes of an IPv6 extension header; for a fragment header, all of it.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Extension {
    /// Type of the header that follows.
    pub next_header: u8,
    /// Length in units of eight bytes, the first eight not counted; reserved in a fragment header.
    pub len: u8,
    /// Fragment header: offset in units of eight bytes, two reserved bits, more-fragments flag.
    pub fragment: Be16,
    /// Fragment header: identification.
    pub id: [u8; 4],
}

/// TCP header without options (RFC 9293).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Tcp {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Sequence number.
    pub seq: [u8; 4],
    /// Acknowledgement number.
    pub ack: [u8; 4],
    /// Header length in 32-bit words, in the upper four bits.
    pub offset: u8,
    /// Flags, see [`tcp_flags`].
    pub flags: u8,
    /// Window.
    pub window: Be16,
    /// Checksum.
    pub check: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

/// Bits of [`Tcp::flags`].
pub mod tcp_flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Open.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Acknowledgement.
    pub const ACK: u8 = 0x10;
}

/// UDP header (RFC 768). The first four bytes are those of TCP and SCTP as well.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Udp {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Length with the header.
    pub len: Be16,
    /// Checksum; for IPv4 zero means none.
    pub check: Be16,
}

/// First twelve bytes of SCTP: the common header (RFC 9260).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Sctp {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Verification tag.
    pub tag: [u8; 4],
    /// CRC-32c over the whole packet, no address included.
    pub check: [u8; 4],
}

/// First eight bytes of ICMP (RFC 792) and ICMPv6 (RFC 4443).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub check: Be16,
    /// Echo: identifier.
    pub id: Be16,
    /// Echo: sequence number. Too big: next-hop MTU, for ICMPv6 together with the field before.
    pub rest: Be16,
}

/// ICMP types (IANA registries of ICMP and ICMPv6 parameters).
pub mod icmp {
    /// ICMP echo reply.
    pub const V4_ECHO_REPLY: u8 = 0;
    /// ICMP destination unreachable.
    pub const V4_UNREACHABLE: u8 = 3;
    /// ICMP echo request.
    pub const V4_ECHO_REQUEST: u8 = 8;
    /// ICMP time exceeded.
    pub const V4_TIME_EXCEEDED: u8 = 11;
    /// ICMP parameter problem.
    pub const V4_PARAMETER_PROBLEM: u8 = 12;
    /// ICMPv6 destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// ICMPv6 parameter problem, the last of the error types.
    pub const V6_PARAMETER_PROBLEM: u8 = 4;
    /// ICMPv6 echo request.
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// ICMPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// Neighbour solicitation or advertisement without options (RFC 4861).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Neighbour {
    /// Type, code, checksum and flags.
    pub icmp: Icmp,
    /// The address asked for or advertised.
    pub target: V6,
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Arp {
    /// Hardware type, 1 for Ethernet.
    pub hardware: Be16,
    /// Protocol type, the ethertype of IPv4.
    pub protocol: Be16,
    /// Hardware address length, 6.
    pub hardware_len: u8,
    /// Protocol address length, 4.
    pub protocol_len: u8,
    /// 1 request, 2 reply.
    pub operation: Be16,
    /// Sender's MAC address.
    pub sender_mac: [u8; 6],
    /// Sender's IPv4 address.
    pub sender: [u8; 4],
    /// Target's MAC address.
    pub target_mac: [u8; 6],
    /// Target's IPv4 address.
    pub target: [u8; 4],
}

const _: () = {
    assert!(size_of::<Eth>() == 14 && size_of::<Ipv4>() == 20 && size_of::<Ipv6>() == 40);
    assert!(size_of::<Tcp>() == 20 && size_of::<Udp>() == 8 && size_of::<Sctp>() == 12);
    assert!(size_of::<Icmp>() == 8 && size_of::<Extension>() == 8);
    assert!(size_of::<Neighbour>() == 24 && size_of::<Arp>() == 28);
};
