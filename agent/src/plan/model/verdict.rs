//! What the programs make of the maps, and what a datapath means: two independent readings.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::{
    policy::{IDENTITY_WORLD, MAX_RULES, NO_POLICY, PeerKey, action},
    service::Ring,
};

use crate::{
    cluster::Action,
    datapath::{Backend, Bits, Datapath, Frontend, RuleOrigin},
    plan::{Family, Image, Interface},
};

/// How a packet is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is no such pod.
    NoEndpoint,
    /// No policy selects the pod.
    NoPolicy,
    /// A rule decides: one of [`action`], and the number of the rule.
    Rule(u32, u32),
    /// No rule decides.
    Undecided,
    /// The maps refer to something that is not there.
    Broken,
}

/// What a frontend answers with: number, flags, and the two rings.
pub(super) type Answer = (u32, u32, Vec<Backend>, Vec<Backend>);

/// A packet, as far as policy is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) pod: IpAddr,
    pub(super) ingress: bool,
    pub(super) peer: IpAddr,
    pub(super) protocol: usize,
    pub(super) port: u16,
}

/// Judges a packet as the programs do, by the maps.
pub(super) fn by_maps(image: &Image, sample: &Sample) -> Verdict {
    let Some(endpoint) = image.endpoints.get(&sample.pod) else { return Verdict::NoEndpoint };
    let number = if sample.ingress { endpoint.ingress } else { endpoint.egress };
    if number == NO_POLICY {
        return Verdict::NoPolicy;
    }
    let mut at = (number, 0);
    loop {
        match judge(image, sample, at, endpoint.slot) {
            None => return Verdict::Broken,
            Some(Ok(verdict)) => return verdict,
            Some(Err(next)) => at = next,
        }
    }
}

/// The verdict of a rule set, or where the search goes on.
fn judge(
    image: &Image,
    sample: &Sample,
    (number, first): (u32, u32),
    slot: u32,
) -> Option<Result<Verdict, (u32, u32)>> {
    let set = image.rule_sets.get(number as usize).filter(|set| set.words != 0)?;
    let prefixes = image.identities.iter().filter(|(net, _)| net.contains(&sample.peer));
    let longest = prefixes.max_by_key(|(net, _)| net.prefix_len());
    let identity = longest.map_or(IDENTITY_WORLD, |(_, identity)| identity.slots[slot as usize]);
    let peers = image.peers.get(&PeerKey { rule_set: number, identity }).unwrap_or(&set.default_peers);
    let table = set.ports[sample.protocol];
    let intervals = image.ports.get(table.offset as usize..(table.offset + table.len) as usize)?;
    let interval = intervals.iter().rev().find(|interval| interval.start <= u32::from(sample.port))?;
    let mut next = first;
    for bit in 0..set.words * 64 {
        let word = |vector: u32| image.vectors.get((vector + bit / 64) as usize);
        let both = word(*peers)? & word(interval.vector)?;
        if bit < next || both >> (bit % 64) & 1 == 0 {
            continue;
        }
        let rule = image.rules.get((set.rules + bit) as usize)?;
        if rule.action != action::PASS {
            return Some(Ok(Verdict::Rule(rule.action, rule.id)));
        }
        next = rule.next;
    }
    Some(match set.next {
        NO_POLICY => Ok(Verdict::Undecided),
        on => Err((on, next.saturating_sub(MAX_RULES))),
    })
}

/// Judges a packet by what the datapath says.
pub(super) fn by_datapath(
    datapath: &Datapath,
    attached: impl Fn(&IpAddr) -> Option<Interface>,
    sample: &Sample,
) -> Verdict {
    let Some(endpoint) = datapath.endpoints.get(&sample.pod).filter(|_| attached(&sample.pod).is_some())
    else {
        return Verdict::NoEndpoint;
    };
    let Some(id) = (if sample.ingress { endpoint.ingress } else { endpoint.egress }) else {
        return Verdict::NoPolicy;
    };
    let host = IpNet::from(sample.peer);
    let covering = datapath.identities.iter().filter(|(net, _)| net.contains(&host));
    let identity = covering.max_by_key(|(net, _)| net.prefix_len()).map_or(IDENTITY_WORLD, |(_, id)| *id);
    let has =
        |bits: &Bits, rule: usize| bits.0.get(rule / 64).is_some_and(|word| word >> (rule % 64) & 1 == 1);
    let mut next = 0;
    for set in datapath.links(id).unwrap() {
        let peers = set.peers.get(&identity).unwrap_or(&set.default_peers);
        let (_, ports) = set.ports[sample.protocol].range(..=sample.port).next_back().unwrap();
        for (number, rule) in set.rules.iter().enumerate() {
            if number < next || !has(peers, number) || !has(ports, number) {
                continue;
            }
            match rule.action {
                Action::Accept => return Verdict::Rule(action::ALLOW, rule.id),
                Action::Deny
                    if matches!(datapath.rules.get(&rule.id), Some(RuleOrigin::Isolation { .. })) =>
                {
                    return Verdict::Rule(action::ISOLATED, rule.id);
                }
                Action::Deny => return Verdict::Rule(action::DENY, rule.id),
                Action::Pass => next = rule.next as usize,
            }
        }
        next = next.saturating_sub(MAX_RULES as usize);
    }
    Verdict::Undecided
}

/// What a frontend answers with, by the maps.
pub(super) fn answer(image: &Image, frontend: &Frontend) -> Option<Answer> {
    let service = image.frontends.get(frontend)?;
    let ring = |ring: Ring| match ring.len {
        0 => Vec::new(),
        _ => image.ring(Family::of(frontend.address), ring).expect("a whole ring").iter().collect(),
    };
    Some((service.id, service.flags, ring(service.internal), ring(service.external)))
}
