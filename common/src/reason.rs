//! Why a packet was dropped, and where.

/// Where in the datapath a packet was judged.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// A pod's packet as it leaves the pod.
    FromPod = 0,
    /// A packet about to enter a pod through the node's stack.
    ToPod = 1,
    /// A packet from the uplink.
    FromUplink = 2,
    /// A packet towards the uplink.
    ToUplink = 3,
    /// A packet from the uplink before the stack: XDP.
    Edge = 4,
}

/// Number of [`Hook`]s.
pub const HOOKS: usize = 5;

/// Defines [`Reason`] with its names and explanations, so that none can be forgotten.
macro_rules! reasons {
    ($($variant:ident = $value:literal $name:literal $text:literal)+) => {
        /// Why a packet was dropped. The one closed list: counted, sent in events, exported as a metric label
        /// and shown by the CLI. Names follow Cilium's where it has the same reason.
        ///
        /// A whole word, because the kernel only takes aligned accesses to a program's stack.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $text] $variant = $value,)+
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that people and metrics see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the reason means, in a line.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    InvalidPacket = 0 "INVALID_PACKET" "a header is cut short, or its lengths contradict each other"
    VlanFiltered = 1 "VLAN_FILTERED" "the frame carries a VLAN tag"
    UnsupportedL2 = 2 "UNSUPPORTED_L2_PROTOCOL" "the ethertype is none of IPv4, IPv6 and ARP"
    UnsupportedL4 = 3 "UNSUPPORTED_L4_PROTOCOL" "the IP protocol is none of TCP, UDP, SCTP and ICMP"
    InvalidExtensionHeader = 4 "INVALID_IPV6_EXTENSION_HEADER" "the IPv6 header chain is too long, out of order, or holds a header that is not passed on"
    InvalidIpOption = 5 "INVALID_IP_OPTION" "an IPv4 option is malformed, or asks for source routing"
    InvalidTcpFlags = 6 "INVALID_TCP_FLAGS" "the TCP flags contradict each other"
    FragmentTooShort = 7 "FRAGMENT_TOO_SHORT" "the first fragment does not hold the whole transport header"
    FragmentNotFound = 8 "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND" "a later fragment whose first fragment was refused, or came and went too long ago"
    FragmentOverlap = 9 "FRAGMENT_OVERLAP" "the fragment overlaps the first one"
    InvalidSource = 10 "INVALID_SOURCE_IP" "the source is not the sender's own address"
    InvalidDestination = 11 "INVALID_DESTINATION_IP" "no unicast packet may go to this address"
    UnknownEndpoint = 12 "ENDPOINT_NOT_READY" "no manifest knows the pod behind this interface"
    InvalidNeighbour = 13 "INVALID_NEIGHBOUR_MESSAGE" "an ARP or neighbour discovery message that a pod may not send"
    PolicyDenied = 14 "POLICY_DENIED" "the pod is isolated and no rule allows it"
    PolicyDeny = 15 "POLICY_DENY" "a rule denies it"
    PolicyIncomplete = 16 "POLICY_MAP_INCOMPLETE" "the pod's rule set is not there or not whole"
    ServiceNoBackend = 17 "SERVICE_BACKEND_NOT_FOUND" "the service has no backend; its client is told, by an ICMP port unreachable"
    ServicePortUnknown = 18 "SERVICE_PORT_NOT_FOUND" "the address belongs to a service, the port does not; its client is told, by an ICMP port unreachable"
    ServiceUnallocated = 19 "SERVICE_ADDRESS_NOT_ALLOCATED" "an address of the service range that no service has"
    IcmpUnsupported = 20 "UNSUPPORTED_ICMP_TYPE" "an ICMP type that is not passed on"
    IcmpUnrelated = 21 "ICMP_ERROR_UNRELATED" "an ICMP error that quotes no live flow, or one of the wrong direction"
    FlowTableFailed = 22 "CT_MAP_INSERTION_FAILED" "the flow could not be recorded: others want the same place at the same time"
    NoFreePort = 23 "SNAT_NO_FREE_PORT" "no free port to masquerade the connection with"
    TtlExceeded = 24 "TTL_EXCEEDED" "the hop limit ran out, and the packet is for an address of the node itself"
    NotReady = 25 "AGENT_NOT_READY" "nothing has been committed yet"
    RewriteFailed = 26 "CSUM_OR_REWRITE_FAILED" "the kernel refused to rewrite the packet"
    ServiceNotLocal = 27 "SERVICE_BACKEND_NOT_ALLOWED" "the service has endpoints, but its traffic policy lets this node use none of them"
    SourceRange = 28 "DENIED_BY_LB_SRC_RANGE_CHECK" "the client is in none of the service's loadBalancerSourceRanges"
    InvalidTunnel = 29 "INVALID_TUNNEL_PACKET" "a tunnelled packet that no node of the cluster sent, or that is for none of its backends here"
    PacketTooBig = 30 "FRAG_NEEDED" "the packet does not fit into the tunnel to its backend; its sender is told which length does, by ICMP"
    ServiceBackendGone = 31 "SERVICE_BACKEND_GONE" "the flow's backend is no longer an endpoint of its service; who sends on a TCP connection is told, by a reset"
    FragmentBufferFull = 32 "FRAGMENT_BUFFER_FULL" "a fragment that came before its first, and there is no room for it to wait"
    FragmentTimedOut = 33 "FRAGMENT_TIMED_OUT" "a fragment that came before its first and waited for it in vain"
}

impl Reason {
    /// The reason with this number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Number of [`Reason`]s.
pub const REASONS: usize = Reason::ALL.len();

/// Index in the `DROPS` per-CPU array of the counter of the reason with this number at the [`Hook`] with this one.
#[inline(always)]
pub const fn drop_counter(hook: u32, reason: u32) -> u32 {
    hook * REASONS as u32 + reason
}

/// Packets and bytes, an element of the per-CPU counter arrays.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

crate::plain!(Counter: 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_without_gaps_and_named_once() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_u8(number as u8), Some(*reason));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REASONS);
        assert_eq!(Reason::from_u8(REASONS as u8), None);
    }
}
