//! `weir observe`: records of the programs, in words.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use weir_common::{
    addr::V6,
    event::{Event, kind},
    reason::Reason,
};

use super::{event_log::EventLog, explain::origin_text};
use crate::{
    cluster::Cluster,
    datapath::{RuleId, RuleOrigin},
    kernel::Events,
    protocol::{Decider, Observation, Owner, OwnerKind, Party, Verdict},
    shared_map::SharedMap,
};

/// What addresses and rules are called in the revision that is enforced.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    cluster: Cluster,
    rules: SharedMap<RuleId, RuleOrigin>,
    /// Made when the first event asks.
    addresses: OnceLock<SharedMap<IpAddr, Owner>>,
}

impl Names {
    /// Those of `cluster`, and of the rules in force.
    pub(super) fn new(cluster: &Cluster, rules: &SharedMap<RuleId, RuleOrigin>) -> Self {
        Self { cluster: cluster.clone(), rules: rules.clone(), addresses: OnceLock::new() }
    }

    /// The same as [`new`](Self::new), where these names held before.
    pub(super) fn followed_by(&self, cluster: &Cluster, rules: &SharedMap<RuleId, RuleOrigin>) -> Self {
        let new = Self::new(cluster, rules);
        let before = &self.cluster;
        let has_same_owners = before.pods.is_same(&cluster.pods)
            && before.services.is_same(&cluster.services)
            && before.nodes.is_same(&cluster.nodes);
        if has_same_owners && let Some(addresses) = self.addresses.get() {
            new.addresses.get_or_init(|| addresses.clone());
        }
        new
    }

    fn addresses(&self) -> &SharedMap<IpAddr, Owner> {
        self.addresses.get_or_init(|| addresses(&self.cluster).into_iter().collect())
    }

    /// What `event` says.
    pub(super) fn describe(&self, event: &Event) -> Observation {
        self.describe_at(date(event.time), event)
    }

    fn describe_at(&self, time: String, event: &Event) -> Observation {
        let verdict = match event.kind {
            kind::DROP => Verdict::Dropped,
            kind::REJECT => Verdict::Rejected,
            _ => Verdict::Allowed,
        };
        let reason = Reason::from_u8(event.reason).filter(|_| verdict != Verdict::Allowed);
        let party = |own, port| (event.family != 0).then(|| self.party(address(event.family, own), port));
        Observation {
            time,
            verdict,
            reason: reason.map(|reason| reason.name().to_owned()),
            explanation: reason.map(|reason| reason.explanation().to_owned()),
            protocol: (event.family != 0).then(|| protocol(event.protocol)),
            source: party(event.src, event.sport.get()),
            destination: party(event.dst, event.dport.get()),
            backend: party(event.backend, event.backend_port.get())
                .filter(|_| event.backend != V6::default()),
            egress: self.decider(event.egress_rule),
            ingress: self.decider(event.ingress_rule),
        }
    }

    /// Who has an address.
    pub(super) fn party(&self, address: IpAddr, port: u16) -> Party {
        Party { address, port, owner: self.addresses().get(&address).cloned() }
    }

    /// The rule in force that has this number.
    pub(super) fn decider(&self, rule: RuleId) -> Option<Decider> {
        self.rules.get(&rule).map(decider)
    }
}

fn address(family: u8, address: V6) -> IpAddr {
    let octets = address.octets();
    match family {
        4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        _ => Ipv6Addr::from(octets).into(),
    }
}

/// Who has which address.
fn addresses(cluster: &Cluster) -> BTreeMap<IpAddr, Owner> {
    let mut addresses = BTreeMap::new();
    let mut add = |own: &mut dyn Iterator<Item = &IpAddr>, kind, name: &dyn ToString| {
        addresses.extend(own.map(|address| (*address, Owner { kind, name: name.to_string() })));
    };
    for node in cluster.nodes.values() {
        add(&mut node.addresses.iter(), OwnerKind::Node, &node.name);
    }
    for service in cluster.services.values() {
        let external = service.external_ips.iter().chain(&service.load_balancer_ips);
        add(&mut service.cluster_ips.iter().chain(external), OwnerKind::Service, &service.name);
    }
    for pod in cluster.pods.values().filter(|pod| pod.is_networked()) {
        add(&mut pod.addresses.iter(), OwnerKind::Pod, &pod.name);
    }
    addresses
}

fn decider(origin: &RuleOrigin) -> Decider {
    let (rule, sources) = match origin {
        RuleOrigin::Policy { index, source, .. } | RuleOrigin::ClusterPolicy { index, source, .. } => {
            (Some(*index), vec![source.clone()])
        }
        RuleOrigin::Isolation { policies, .. } => {
            (None, policies.iter().map(|(_, source)| source.clone()).collect())
        }
    };
    Decider { text: origin_text(origin), policies: origin.policies(), rule, sources }
}

/// Hands every record on, for as long as the agent runs.
pub(super) async fn pump(mut events: Events, names: watch::Receiver<Arc<Names>>, log: Arc<EventLog>) {
    loop {
        let event = events.next().await;
        log.packet(event, Arc::clone(&names.borrow()));
    }
}

/// An instant of the monotonic clock as RFC 3339.
fn date(nanoseconds: u64) -> String {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let age = monotonic.saturating_sub(Duration::from_nanos(nanoseconds));
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age))
}

/// Now, as RFC 3339.
pub(super) fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A time since 1970 as RFC 3339 in UTC.
fn rfc3339(time: Duration) -> String {
    let seconds = time.as_secs();
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, seconds / 86400);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        day + 1,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        time.subsec_millis()
    )
}

/// The protocol's name, or its number.
pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use weir_common::addr::Be16;

    use super::*;
    use crate::{cluster::Name, source::Source};

    fn v4(a: u8, b: u8, c: u8, d: u8) -> V6 {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&[a, b, c, d]);
        V6::from_octets(octets)
    }

    #[test]
    fn a_drop_names_pods_reason_and_policy() {
        let policies = [(
            Name { namespace: "demo".into(), name: "deny".into() },
            Source { file: "deny.yaml".into(), line: 3, column: 1 },
        )];
        let names = Names {
            addresses: OnceLock::from(SharedMap::from([(
                "10.0.0.1".parse().unwrap(),
                Owner { kind: OwnerKind::Pod, name: "demo/web".to_owned() },
            )])),
            cluster: Cluster::default(),
            rules: SharedMap::from([(
                20,
                RuleOrigin::Isolation { ingress: true, policies: policies.into() },
            )]),
        };
        let event = Event {
            kind: kind::DROP,
            reason: Reason::PolicyDenied as u8,
            family: 4,
            protocol: 6,
            src: v4(10, 0, 0, 1),
            dst: v4(10, 0, 0, 9),
            sport: Be16::new(40000),
            dport: Be16::new(80),
            ingress_rule: 20,
            ..Event::default()
        };

        let seen = names.describe_at("2026-01-02T12:00:00.000Z".into(), &event);

        let ingress = seen.ingress.as_ref().unwrap();
        assert_eq!((ingress.policies.as_slice(), ingress.rule), (&["demo/deny".to_owned()][..], None));
        assert_eq!(ingress.sources[0].to_string(), "deny.yaml:3:1");
        assert_eq!(
            seen.to_string(),
            "12:00:00.000Z demo/web:40000 -> 10.0.0.9:80/TCP DROPPED POLICY_DENIED: the pod is isolated and no rule allows it; \
             ingress: isolated by demo/deny (deny.yaml:3:1)"
        );
    }

    #[test]
    fn a_balanced_flow_names_its_backend_and_a_frame_of_no_family_has_no_address() {
        let names = Names::default();
        let mut octets = [0; 16];
        octets[15] = 1;
        let flow = Event {
            kind: kind::FLOW,
            family: 6,
            protocol: 17,
            src: V6::from_octets(octets),
            dst: V6::from_octets(octets),
            backend: V6::from_octets(octets),
            sport: Be16::new(1),
            dport: Be16::new(2),
            backend_port: Be16::new(3),
            ..Event::default()
        };
        let frame = Event { kind: kind::DROP, reason: Reason::VlanFiltered as u8, ..Event::default() };

        let text = |event| names.describe_at("T1Z".into(), event).to_string();
        assert_eq!(text(&flow), "1Z [::1]:1 -> [::1]:2/UDP at [::1]:3 ALLOWED");
        assert_eq!(text(&frame), "1Z a frame DROPPED VLAN_FILTERED: the frame carries a VLAN tag");
    }

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_825_600, "2000-02-29T12:00:00.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (1_767_225_600, "2026-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(Duration::new(seconds, 7_000_000)), date);
        }
    }
}
