//! The two address families behind one trait, so that every stage is written once.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    },
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use weir_common::{
    addr::{Addr, V4, V6},
    answer::NewHeader,
    endpoint::Endpoint,
    flow::{FlowSet, Fragment, FragmentKey},
    header::{IpHeader, Ipv4, Ipv6, icmp, protocol},
    policy::Identity,
    reason::{Hook, Reason},
    service::{
        Affinity, AffinityKey, Backend, FrontendKey, MemberKey, Ring, SOURCE_PREFIX, Service, SourceKey,
    },
    state::State,
};

use crate::{
    ctx::{Aligned, AlignedAfterWord, Ctx, Raw},
    maps, parse, slow,
    work::{Refusal, Refused, Work},
};

/// An address family: its maps and what differs in its headers.
pub trait Family: Sized {
    /// Addresses.
    type Addr: Addr;
    /// Its IP header without options.
    type Header: IpHeader<Self::Addr> + NewHeader;

    /// 4 or 6.
    const VERSION: u8;
    /// IP protocol number of this family's ICMP.
    const ICMP: u8;
    /// IP protocol number of a packet of this family inside another one.
    const TUNNEL: u8;
    /// How the kernel names the way into a tunnel of this family.
    const ENCAP: u32;
    /// The same for the way out.
    const DECAP: u32;
    /// The address family's number in the kernel.
    const AF: u8;
    /// Type of an echo request.
    const ECHO_REQUEST: u8;
    /// Type of an echo reply.
    const ECHO_REPLY: u8;
    /// Bits of an address.
    const BITS: u32;

    /// Parses the headers after Ethernet.
    fn parse<R: Raw>(ctx: &Ctx<R>, work: &mut Work<Self::Addr>) -> Result<(), Refused>;
    /// Judges a neighbour discovery message from a pod.
    fn check_neighbour(ctx: &Ctx) -> Result<(), Refused>;
    /// Decides a packet's flow in the three steps of [`crate::decide`]; answers as [`crate::slow`] says.
    fn decide(ctx: &Ctx, hook: Hook, is_known: bool) -> u32;
    /// [`crate::decide::check_ends`], see [`crate::slow`].
    fn check_ends(ctx: &Ctx, hook: u32) -> u32;
    /// [`crate::flow::insert`], see [`crate::slow`].
    fn insert() -> bool;
    /// [`crate::service::serve`], see [`crate::slow`].
    fn serve(hook: u32) -> u32;
    /// [`crate::affinity::choose`], see [`crate::slow`].
    fn balance(service: &Service, ring: Ring, set: u32) -> bool;
    /// [`crate::masquerade::allot`], see [`crate::slow`].
    fn allot() -> u32;
    /// [`crate::masquerade::is_free`], see [`crate::slow`].
    fn is_free(attempt: u32) -> bool;
    /// Whether there is a live flow of the key in [`Work::entry`], see [`crate::slow`].
    fn has_entry() -> bool;
    /// [`crate::flow::keep_alive`], see [`crate::slow`].
    fn keep_alive() -> bool;
    /// [`crate::parse::transport::parse_icmp`], see [`crate::slow`].
    fn parse_icmp(ctx: &Ctx) -> u32;
    /// [`crate::fragment::resolve`], see [`crate::slow`].
    fn resolve_fragment(ctx: &Ctx, hook: Hook) -> u32;
    /// [`crate::icmp_error::resolve`], see [`crate::slow`].
    fn resolve_icmp_error(ctx: &Ctx, hook: Hook) -> u32;
    /// [`crate::tunnel::enter`], see [`crate::slow`].
    fn enter_tunnel(ctx: &Ctx) -> u32;
    /// [`crate::tunnel::leave`], see [`crate::slow`].
    fn leave_tunnel(ctx: &Ctx) -> u32;
    /// [`crate::deliver::expired`], see [`crate::slow`].
    fn expired() -> u32;
    /// [`crate::reject::quote`], see [`crate::slow`].
    fn quote(ctx: &Ctx, hook: u32) -> u32;
    /// Answers a packet that is refused, where that is due, see [`crate::slow`]. Gives what the program returns.
    fn answer(ctx: &Ctx, hook: u32, reason: u32) -> i32;
    /// [`crate::report::refuse`], see [`crate::slow`].
    fn refuse(ctx: &Ctx, hook: Hook, reason: u32) -> Refusal;
    /// Whether this ICMP type reports an error about a packet that it quotes.
    fn is_icmp_error(kind: u8) -> bool;
    /// This node's own address.
    fn node(state: &State) -> &Self::Addr;

    /// Working memory.
    fn work() -> &'static PerCpuArray<Work<Self::Addr>>;
    /// Map of local pods.
    fn endpoints() -> &'static HashMap<Self::Addr, Endpoint>;
    /// Map of identities.
    fn identities() -> &'static LpmTrie<Self::Addr, Identity>;
    /// Map of the cluster's own addresses.
    fn insiders() -> &'static LpmTrie<Self::Addr, u32>;
    /// Map of frontends.
    fn frontends() -> &'static HashMap<FrontendKey<Self::Addr>, Service>;
    /// Rings of backends.
    fn rings() -> &'static Array<Backend<Self::Addr>>;
    /// Map of the endpoints of services.
    fn members() -> &'static HashMap<MemberKey<Self::Addr>, u32>;
    /// Map of clients with session affinity.
    fn affinity() -> &'static LruHashMap<AffinityKey<Self::Addr>, Affinity<Self::Addr>>;
    /// Map of the clients that may use services with source ranges.
    fn sources() -> &'static LpmTrie<SourceKey<Self::Addr>, u32>;
    /// Flow table.
    fn flows() -> &'static Array<FlowSet<Self::Addr>>;
    /// Number of sets of the flow table, minus one.
    fn flow_mask() -> u32;
    /// Table of datagrams in fragments.
    fn fragments() -> &'static LruHashMap<FragmentKey<Self::Addr>, Fragment>;

    /// The local pod that has `addr`.
    #[inline(always)]
    fn endpoint(addr: &Self::Addr) -> Option<&'static Endpoint> {
        let key = Aligned(*addr);
        // SAFETY: the agent replaces values whole; a reader sees the old or the new one.
        unsafe { Self::endpoints().get(&key.0) }
    }

    /// The two identities of `addr`.
    #[inline(always)]
    fn identity(addr: &Self::Addr) -> Identity {
        let key = AlignedAfterWord::new(Key::new(Self::BITS, *addr));
        match Self::identities().get(&key.1) {
            Some(identity) => *identity,
            None => Identity { slots: [0; 2] },
        }
    }

    /// Whose `addr` is, if it is one of the cluster's own: bits of [`weir_common::state::inside`].
    #[inline(always)]
    fn inside(addr: &Self::Addr) -> u32 {
        let key = AlignedAfterWord::new(Key::new(Self::BITS, *addr));
        Self::insiders().get(&key.1).copied().unwrap_or(0)
    }

    /// Whether `client` is in the source ranges of the service.
    #[inline(always)]
    fn is_source(service: u32, client: &Self::Addr) -> bool {
        let key = SourceKey { service, client: *client };
        let key = Aligned(Key::new(SOURCE_PREFIX + Self::BITS, key));
        Self::sources().get(&key.0).is_some()
    }

    /// The service on a frontend.
    #[inline(always)]
    fn frontend(key: FrontendKey<Self::Addr>) -> Option<&'static Service> {
        let key = Aligned(key);
        // SAFETY: as in `endpoint`.
        unsafe { Self::frontends().get(&key.0) }
    }

    /// What an endpoint is to a service: bits of [`weir_common::service::member`], and [`NO_MEMBER`].
    #[inline(always)]
    fn member(key: MemberKey<Self::Addr>) -> u32 {
        let key = AlignedAfterWord::new(key);
        // SAFETY: as in `endpoint`.
        unsafe { Self::members().get(&key.1) }.map_or(NO_MEMBER, |bits| *bits)
    }
}

/// No endpoint of the service at all: a bit that no member has.
pub const NO_MEMBER: u32 = 1 << 31;

/// IPv4.
pub struct Inet;
/// IPv6.
pub struct Inet6;

/// The stages and maps of a family, by the endings of their names.
macro_rules! family_maps {
    ($revisit:ident $choose:ident $ends:ident $judge:ident $serve:ident $balance:ident $allot:ident $free:ident $peek:ident $record:ident $insert:ident $keep_alive:ident $icmp:ident $fragment:ident $icmp_error:ident $expired:ident $enter:ident $leave:ident $quote:ident $answer:ident $refuse:ident $work:ident $endpoints:ident $identities:ident $inside:ident $frontends:ident $rings:ident $members:ident $sources:ident $affinity:ident $flows:ident $mask:ident $fragments:ident) => {
        #[inline(always)]
        fn decide(ctx: &Ctx, hook: Hook, is_known: bool) -> u32 {
            let mut answer = if is_known { slow::hear(slow::$revisit()) } else { slow::NOT_OURS };
            if answer == slow::NOT_OURS {
                answer = slow::hear(slow::$choose(ctx.as_ptr(), hook as u32));
            }
            if answer != slow::GO_ON {
                return answer;
            }
            let answer = slow::hear(slow::$judge());
            if answer != slow::GO_ON {
                return answer;
            }
            slow::hear(slow::$record(ctx.as_ptr(), hook as u32))
        }
        #[inline(always)]
        fn check_ends(ctx: &Ctx, hook: u32) -> u32 {
            slow::hear(slow::$ends(ctx.as_ptr(), hook))
        }
        #[inline(always)]
        fn insert() -> bool {
            slow::hear(slow::$insert()) == slow::GO_ON
        }
        #[inline(always)]
        fn serve(hook: u32) -> u32 {
            slow::hear(slow::$serve(hook))
        }
        #[inline(always)]
        fn allot() -> u32 {
            slow::hear(slow::$allot())
        }
        #[inline(always)]
        fn is_free(attempt: u32) -> bool {
            slow::hear(slow::$free(attempt)) == slow::GO_ON
        }
        #[inline(always)]
        fn has_entry() -> bool {
            slow::hear(slow::$peek()) == slow::GO_ON
        }
        #[inline(always)]
        fn keep_alive() -> bool {
            slow::hear(slow::$keep_alive()) == slow::GO_ON
        }
        #[inline(always)]
        fn parse_icmp(ctx: &Ctx) -> u32 {
            slow::$icmp(ctx.as_ptr())
        }
        #[inline(always)]
        fn resolve_fragment(ctx: &Ctx, hook: Hook) -> u32 {
            slow::$fragment(ctx.as_ptr(), hook as u32)
        }
        #[inline(always)]
        fn resolve_icmp_error(ctx: &Ctx, hook: Hook) -> u32 {
            slow::$icmp_error(ctx.as_ptr(), hook as u32)
        }
        #[inline(always)]
        fn enter_tunnel(ctx: &Ctx) -> u32 {
            slow::$enter(ctx.as_ptr())
        }
        #[inline(always)]
        fn leave_tunnel(ctx: &Ctx) -> u32 {
            slow::$leave(ctx.as_ptr())
        }
        #[inline(always)]
        fn expired() -> u32 {
            slow::$expired()
        }
        #[inline(always)]
        fn balance(service: &Service, ring: Ring, set: u32) -> bool {
            slow::hear(slow::$balance(service.id, service.affinity, ring.offset, ring.len, set))
                == slow::GO_ON
        }
        #[inline(always)]
        fn quote(ctx: &Ctx, hook: u32) -> u32 {
            slow::hear(slow::$quote(ctx.as_ptr(), hook))
        }
        #[inline(always)]
        fn answer(ctx: &Ctx, hook: u32, reason: u32) -> i32 {
            slow::hear(slow::$answer(ctx.as_ptr(), hook, reason)).cast_signed()
        }
        #[inline(always)]
        fn refuse(ctx: &Ctx, hook: Hook, reason: u32) -> Refusal {
            Refusal(slow::hear(slow::$refuse(ctx.as_ptr(), hook as u32, reason)).cast_signed())
        }
        #[inline(always)]
        fn work() -> &'static PerCpuArray<Work<Self::Addr>> {
            &maps::$work
        }
        #[inline(always)]
        fn endpoints() -> &'static HashMap<Self::Addr, Endpoint> {
            &maps::$endpoints
        }
        #[inline(always)]
        fn identities() -> &'static LpmTrie<Self::Addr, Identity> {
            &maps::$identities
        }
        #[inline(always)]
        fn insiders() -> &'static LpmTrie<Self::Addr, u32> {
            &maps::$inside
        }
        #[inline(always)]
        fn frontends() -> &'static HashMap<FrontendKey<Self::Addr>, Service> {
            &maps::$frontends
        }
        #[inline(always)]
        fn rings() -> &'static Array<Backend<Self::Addr>> {
            &maps::$rings
        }
        #[inline(always)]
        fn members() -> &'static HashMap<MemberKey<Self::Addr>, u32> {
            &maps::$members
        }
        #[inline(always)]
        fn affinity() -> &'static LruHashMap<AffinityKey<Self::Addr>, Affinity<Self::Addr>> {
            &maps::$affinity
        }
        #[inline(always)]
        fn sources() -> &'static LpmTrie<SourceKey<Self::Addr>, u32> {
            &maps::$sources
        }
        #[inline(always)]
        fn flows() -> &'static Array<FlowSet<Self::Addr>> {
            &maps::$flows
        }
        #[inline(always)]
        fn flow_mask() -> u32 {
            maps::$mask.load()
        }
        #[inline(always)]
        fn fragments() -> &'static LruHashMap<FragmentKey<Self::Addr>, Fragment> {
            &maps::$fragments
        }
    };
}

impl Family for Inet {
    type Addr = V4;
    type Header = Ipv4;

    const VERSION: u8 = 4;
    const ICMP: u8 = protocol::ICMP;
    const TUNNEL: u8 = protocol::IPV4;
    const ENCAP: u32 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
    const DECAP: u32 = BPF_F_ADJ_ROOM_DECAP_L3_IPV4;
    const AF: u8 = 2;
    const ECHO_REQUEST: u8 = icmp::V4_ECHO_REQUEST;
    const ECHO_REPLY: u8 = icmp::V4_ECHO_REPLY;
    const BITS: u32 = 32;

    #[inline(always)]
    fn parse<R: Raw>(ctx: &Ctx<R>, work: &mut Work<V4>) -> Result<(), Refused> {
        parse::ipv4::parse(ctx, work)
    }

    /// IPv4 has ARP instead.
    #[inline(always)]
    fn check_neighbour(_: &Ctx) -> Result<(), Refused> {
        Err(Reason::InvalidNeighbour.into())
    }

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        kind == icmp::V4_UNREACHABLE || kind == icmp::V4_TIME_EXCEEDED || kind == icmp::V4_PARAMETER_PROBLEM
    }

    #[inline(always)]
    fn node(state: &State) -> &V4 {
        &state.node_v4
    }

    family_maps!(revisit_v4 choose_v4 ends_v4 judge_v4 serve_v4 balance_v4 allot_v4 free_v4 peek_v4 record_v4 insert_v4 keep_alive_v4 icmp_v4 fragment_v4 icmp_error_v4 expired_v4 enter_v4 leave_v4 quote_v4 answer_v4 refuse_v4 WORK_V4 ENDPOINTS_V4 IDENTITIES_V4 INSIDE_V4 FRONTENDS_V4 RINGS_V4 MEMBERS_V4 SOURCE_RANGES_V4 AFFINITY_V4 FLOWS_V4 FLOW_MASK_V4 FRAGMENTS_V4);
}

impl Family for Inet6 {
    type Addr = V6;
    type Header = Ipv6;

    const VERSION: u8 = 6;
    const ICMP: u8 = protocol::ICMPV6;
    const TUNNEL: u8 = protocol::IPV6;
    const ENCAP: u32 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
    const DECAP: u32 = BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
    const AF: u8 = 10;
    const ECHO_REQUEST: u8 = icmp::V6_ECHO_REQUEST;
    const ECHO_REPLY: u8 = icmp::V6_ECHO_REPLY;
    const BITS: u32 = 128;

    #[inline(always)]
    fn parse<R: Raw>(ctx: &Ctx<R>, work: &mut Work<V6>) -> Result<(), Refused> {
        parse::ipv6::parse(ctx, work)
    }

    #[inline(always)]
    fn check_neighbour(ctx: &Ctx) -> Result<(), Refused> {
        slow::heed(slow::discovery_v6(ctx.as_ptr()))
    }

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        (icmp::V6_UNREACHABLE..=icmp::V6_PARAMETER_PROBLEM).contains(&kind)
    }

    #[inline(always)]
    fn node(state: &State) -> &V6 {
        &state.node_v6
    }

    family_maps!(revisit_v6 choose_v6 ends_v6 judge_v6 serve_v6 balance_v6 allot_v6 free_v6 peek_v6 record_v6 insert_v6 keep_alive_v6 icmp_v6 fragment_v6 icmp_error_v6 expired_v6 enter_v6 leave_v6 quote_v6 answer_v6 refuse_v6 WORK_V6 ENDPOINTS_V6 IDENTITIES_V6 INSIDE_V6 FRONTENDS_V6 RINGS_V6 MEMBERS_V6 SOURCE_RANGES_V6 AFFINITY_V6 FLOWS_V6 FLOW_MASK_V6 FRAGMENTS_V6);
}
