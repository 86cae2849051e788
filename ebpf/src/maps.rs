//! Every map and every load-time constant.
//!
//! Capacities here are those of a test run; the agent sets its own when it loads the object. Hash maps that only
//! the agent writes allocate elements as they come: their capacity is a bound, and costs 16 bytes for each.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use weir_common::{
    addr::{V4, V6},
    early::{EarlyFrame, EarlySet, SETS, WAYS},
    endpoint::Endpoint,
    flow::{FlowSet, Fragment, FragmentKey},
    policy::{Identity, PeerKey, PortInterval, Rule, RuleHits, RuleSet},
    reason::{Counter, HOOKS, REASONS},
    service::{Affinity, AffinityKey, Backend, FrontendKey, MemberKey, Service, SourceKey},
    state::State,
};

use crate::{early::Asked, work::Work};

/// Sets of the IPv4 flow table, minus one.
#[unsafe(no_mangle)]
pub static FLOW_MASK_V4: Global<u32> = Global::new(1023);
/// Sets of the IPv6 flow table, minus one.
#[unsafe(no_mangle)]
pub static FLOW_MASK_V6: Global<u32> = Global::new(1023);
/// Jiffies per second of this kernel.
#[unsafe(no_mangle)]
pub static HZ: Global<u32> = Global::new(1000);

#[map]
pub static WORK_V4: PerCpuArray<Work<V4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static WORK_V6: PerCpuArray<Work<V6>> = PerCpuArray::with_max_entries(1, 0);

/// A part of a packet that is longer than any header: what an ICMP error quotes.
pub type Buffer = [u32; 384];

#[map]
pub static BUFFER: PerCpuArray<Buffer> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static STATE: Array<State> = Array::with_max_entries(1, 0);

#[map]
pub static ENDPOINTS_V4: HashMap<V4, Endpoint> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS_V6: HashMap<V6, Endpoint> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

#[map]
pub static IDENTITIES_V4: LpmTrie<V4, Identity> = LpmTrie::with_max_entries(65536, 0);
#[map]
pub static IDENTITIES_V6: LpmTrie<V6, Identity> = LpmTrie::with_max_entries(65536, 0);
/// The cluster's own addresses, and whose they are: bits of [`weir_common::state::inside`].
#[map]
pub static INSIDE_V4: LpmTrie<V4, u32> = LpmTrie::with_max_entries(65536, 0);
/// The same for IPv6.
#[map]
pub static INSIDE_V6: LpmTrie<V6, u32> = LpmTrie::with_max_entries(65536, 0);

#[map]
pub static RULE_SETS: Array<RuleSet> = Array::with_max_entries(1024, 0);
#[map]
pub static PEERS: HashMap<PeerKey, u32> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static PORTS: Array<PortInterval> = Array::with_max_entries(65536, 0);
#[map]
pub static VECTORS: Array<u64> = Array::with_max_entries(65536, 0);
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(65536, 0);
#[map]
pub static RULE_HITS: PerCpuArray<RuleHits> = PerCpuArray::with_max_entries(65536, 0);

#[map]
pub static FRONTENDS_V4: HashMap<FrontendKey<V4>, Service> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static FRONTENDS_V6: HashMap<FrontendKey<V6>, Service> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static RINGS_V4: Array<Backend<V4>> = Array::with_max_entries(262_144, 0);
#[map]
pub static RINGS_V6: Array<Backend<V6>> = Array::with_max_entries(262_144, 0);
#[map]
pub static MEMBERS_V4: HashMap<MemberKey<V4>, u32> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static MEMBERS_V6: HashMap<MemberKey<V6>, u32> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static SOURCE_RANGES_V4: LpmTrie<SourceKey<V4>, u32> = LpmTrie::with_max_entries(65536, 0);
#[map]
pub static SOURCE_RANGES_V6: LpmTrie<SourceKey<V6>, u32> = LpmTrie::with_max_entries(65536, 0);

/// Where clients' last connections went, for services that ask for affinity.
#[map]
pub static AFFINITY_V4: LruHashMap<AffinityKey<V4>, Affinity<V4>> = LruHashMap::with_max_entries(65536, 0);
/// The same for IPv6.
#[map]
pub static AFFINITY_V6: LruHashMap<AffinityKey<V6>, Affinity<V6>> = LruHashMap::with_max_entries(65536, 0);

// Mappable arrays start at a page, so that an IPv4 entry is one cache line.
#[map]
pub static FLOWS_V4: Array<FlowSet<V4>> = Array::with_max_entries(1024, BPF_F_MMAPABLE);
#[map]
pub static FLOWS_V6: Array<FlowSet<V6>> = Array::with_max_entries(1024, BPF_F_MMAPABLE);
#[map]
pub static FRAGMENTS_V4: LruHashMap<FragmentKey<V4>, Fragment> = LruHashMap::with_max_entries(8192, 0);
#[map]
pub static FRAGMENTS_V6: LruHashMap<FragmentKey<V6>, Fragment> = LruHashMap::with_max_entries(8192, 0);

/// Fragments that wait for the first of their datagram, of both families.
#[map]
pub static EARLY: Array<EarlySet> = Array::with_max_entries(SETS, 0);
#[map]
pub static EARLY_FRAMES: Array<EarlyFrame> = Array::with_max_entries(SETS * WAYS as u32, 0);
#[map]
pub static ASKED: PerCpuArray<Asked> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static DROPS: PerCpuArray<Counter> = PerCpuArray::with_max_entries((HOOKS * REASONS) as u32, 0);
#[map]
pub static FORWARDED: PerCpuArray<Counter> = PerCpuArray::with_max_entries(HOOKS as u32, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
pub static LOST_EVENTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What the agent says at this moment.
#[inline(always)]
pub fn state() -> Option<&'static State> {
    STATE.get(0)
}

/// The low half of the kernel's clock tick counter.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: a helper without arguments, which the kernel inlines to a load.
    unsafe { bpf_jiffies64() as u32 }
}

/// Adds one packet of `len` bytes to a per-CPU counter.
#[inline(always)]
pub fn count(counters: &PerCpuArray<Counter>, index: u32, len: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: the element of this CPU, which no other program on this CPU can interrupt at TC.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(len);
        }
    }
}
