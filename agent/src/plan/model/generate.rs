//! Random datapaths over a small universe, so that prefixes, numbers and contents collide often.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::policy::{IDENTITY_FIRST, MAX_RULES, PROTOCOLS};

use super::verdict::Sample;
use crate::{
    cluster::{Action, Name},
    datapath::{Backend, Bits, Datapath, Endpoint, Frontend, Ring, Rule, RuleOrigin, RuleSet, Service},
    plan::Interface,
};

const PODS: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00::2"];
const PEERS: [&str; 8] =
    ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.2.9", "192.0.2.1", "fd00::1", "fd00::9", "2001:db8::1"];
const PREFIXES: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.0.0/30",
    "10.0.0.1/32",
    "10.0.0.2/32",
    "10.0.1.0/24",
    "10.0.1.1/32",
    "192.0.2.0/24",
    "::/0",
    "fd00::/16",
    "fd00::/64",
    "fd00::1/128",
];
const PORTS: [u16; 3] = [0, 80, 8080];

/// A generator of numbers: SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit)) as u32
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// Every packet that tests look at.
pub(super) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for pod in PODS {
        for peer in PEERS {
            for (protocol, port, ingress) in [(0, 80, true), (0, 81, false), (1, 8080, true), (3, 0, false)] {
                let (pod, peer) = (address(pod), address(peer));
                samples.push(Sample { pod, ingress, peer, protocol, port });
            }
        }
    }
    samples
}

/// A datapath, and the interfaces of most of its pods.
pub(super) fn datapath(random: &mut Random) -> (Datapath, BTreeMap<IpAddr, Interface>) {
    let mut datapath = Datapath::default();
    for prefix in PREFIXES {
        if random.chance(60) {
            let prefix: IpNet = prefix.parse().unwrap();
            datapath.identities.insert(prefix, IDENTITY_FIRST + random.below(4));
        }
    }
    for id in 1..=4 {
        let next = Some(id + 1).filter(|next| *next <= 4 && random.chance(40));
        datapath.rule_sets.insert(id, RuleSet { next, ..rule_set(random) });
    }
    for rule in [26, 27, 28] {
        if random.chance(50) {
            let isolation = RuleOrigin::Isolation { ingress: true, policies: BTreeSet::new() };
            datapath.rules.insert(rule, isolation);
        }
    }
    let mut interfaces = BTreeMap::new();
    for pod in PODS {
        if random.chance(80) {
            let mut pick = || Some(random.below(5)).filter(|id| *id != 0);
            let (ingress, egress) = (pick(), pick());
            let pod_name = Name { namespace: "test".into(), name: pod.into() };
            datapath.endpoints.insert(address(pod), Endpoint { pod: pod_name, ingress, egress });
        }
        if random.chance(90) {
            let ifindex = 10 + random.below(2);
            interfaces.insert(address(pod), Interface { ifindex, mac: [2, 0, 0, 0, 0, ifindex as u8] });
        }
    }
    for (number, vip) in ["10.96.0.1", "10.96.0.2", "fd01::1"].into_iter().enumerate() {
        for port in [80, 443] {
            if random.chance(70) {
                let frontend = Frontend { address: address(vip), port, protocol: 6 };
                datapath.frontends.insert(frontend, service(random, number, frontend.address.is_ipv4()));
            }
        }
    }
    (datapath, interfaces)
}

fn rule_set(random: &mut Random) -> RuleSet {
    // One of a few, apart from the peers: two datapaths often have rule sets that differ only in those.
    let mut base = Random(u64::from(random.below(8)));
    // Sometimes more than one word; sometimes no rule at all.
    let count = [0, 1, 2, 3, 3, 70][base.below(6) as usize];
    let rules = (0..count).map(|number| Rule {
        action: [Action::Accept, Action::Deny, Action::Pass][base.below(3) as usize],
        // Some lead into the rule set that goes on.
        next: if base.chance(20) { MAX_RULES + 1 } else { (number + 1 + base.below(3)).min(count) },
        id: 16 + base.below(3) + number % 3 * 10,
    });
    let rules: Vec<_> = rules.collect();
    let mut peers = BTreeMap::new();
    for identity in IDENTITY_FIRST..IDENTITY_FIRST + 4 {
        if random.chance(50) {
            peers.insert(identity, bits(random, count));
        }
    }
    let default_peers = bits(&mut base, count);
    let ports: [BTreeMap<u16, Bits>; PROTOCOLS] = std::array::from_fn(|_| {
        let starts = PORTS.into_iter().filter(|start| *start == 0 || base.chance(50));
        let starts: Vec<_> = starts.collect();
        starts.into_iter().map(|start| (start, bits(&mut base, count))).collect()
    });
    RuleSet { rules, peers, default_peers, ports, next: None }
}

fn bits(random: &mut Random, rules: u32) -> Bits {
    let words = rules.div_ceil(64);
    let word = |number: u32, random: &mut Random| {
        let mask = if (number + 1) * 64 <= rules { u64::MAX } else { (1 << (rules % 64)) - 1 };
        [0, u64::MAX, random.next()][random.below(3) as usize] & mask
    };
    Bits((0..words).map(|number| word(number, random)).collect())
}

fn service(random: &mut Random, number: usize, v4: bool) -> Service {
    let ring = |random: &mut Random| -> Vec<Backend> {
        let len = [0, 1, 3, 7][random.below(4) as usize];
        let shift = random.below(3);
        let backend = |slot: u32| {
            let host = (slot + shift) % 3 + 1;
            let text = if v4 { format!("10.0.0.{host}") } else { format!("fd00::{host}") };
            Backend { address: address(&text), port: 8080 }
        };
        (0..len).map(backend).collect()
    };
    let (internal, external) = (ring(random), ring(random));
    let members: BTreeMap<_, _> =
        internal.iter().chain(&external).map(|backend| (*backend, random.below(8))).collect();
    let ring = |slots: Vec<Backend>| {
        let indexes: Vec<_> = (0..slots.len() as u16).collect();
        Arc::new(Ring::new(slots, &indexes))
    };
    let name = Name { namespace: "test".into(), name: format!("service-{number}").into() };
    Service {
        id: 1 + number as u32 * 2 + random.below(2),
        name,
        flags: random.below(2),
        internal: ring(internal),
        external: ring(external),
        target_port: 0,
        members: members.into(),
        source_ranges: Vec::new(),
        affinity: [None, Some(10)][random.below(2) as usize],
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
