//! `weir observe`: records of the programs, in words.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{broadcast, watch};
use tracing::warn;
use weir_common::{
    addr::V6,
    event::{Event, kind},
    reason::Reason,
};

use super::explain::origin_text;
use crate::{
    cluster::Cluster,
    datapath::{RuleId, RuleOrigin},
    kernel::Events,
};

/// What addresses and rules are called in the revision that is enforced.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    addresses: BTreeMap<IpAddr, String>,
    rules: BTreeMap<RuleId, RuleOrigin>,
}

impl Names {
    /// Those of `cluster`, and of the rules in force.
    pub(super) fn new(cluster: &Cluster, rules: &BTreeMap<RuleId, RuleOrigin>) -> Self {
        let mut addresses = BTreeMap::new();
        for node in cluster.nodes.values() {
            addresses.extend(node.addresses.iter().map(|address| (*address, format!("node {}", node.name))));
        }
        for service in cluster.services.values() {
            let own =
                service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
            addresses.extend(own.map(|address| (*address, format!("service {}", service.name))));
        }
        for pod in cluster.pods.values().filter(|pod| pod.is_networked()) {
            addresses.extend(pod.addresses.iter().map(|address| (*address, pod.name.to_string())));
        }
        Self { addresses, rules: rules.clone() }
    }

    /// What `event` says, but for the time.
    fn describe(&self, event: &Event) -> String {
        let mut text = match event.family {
            0 => "a frame".to_owned(),
            family => {
                let from = self.socket(family, event.src, event.sport.get());
                let to = self.socket(family, event.dst, event.dport.get());
                format!("{from} -> {to}/{}", protocol(event.protocol))
            }
        };
        if event.backend != V6::default() {
            let _ =
                write!(text, " at {}", self.socket(event.family, event.backend, event.backend_port.get()));
        }
        match event.kind {
            kind::DROP => {
                let _ = write!(text, " DROPPED");
                if let Some(reason) = Reason::from_u8(event.reason) {
                    let _ = write!(text, " {}: {}", reason.name(), reason.explanation());
                }
            }
            _ => text.push_str(" FORWARDED"),
        }
        for (direction, rule) in [("egress", event.egress_rule), ("ingress", event.ingress_rule)] {
            if let Some(origin) = self.rules.get(&rule) {
                let _ = write!(text, "; {direction}: {}", origin_text(origin));
            }
        }
        text
    }

    fn socket(&self, family: u8, address: V6, port: u16) -> String {
        let octets = address.octets();
        let address: IpAddr = match family {
            4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
            _ => Ipv6Addr::from(octets).into(),
        };
        match self.addresses.get(&address) {
            Some(name) => format!("{name}:{port}"),
            None => std::net::SocketAddr::new(address, port).to_string(),
        }
    }
}

/// Hands every record on to whoever observes, for as long as the agent runs.
pub(super) async fn pump(
    mut events: Events,
    names: watch::Receiver<Arc<Names>>,
    observers: broadcast::Sender<String>,
) {
    loop {
        let event = match events.next().await {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "events cannot be read any more; enforcement goes on");
                return;
            }
        };
        if observers.receiver_count() > 0 {
            let names = names.borrow().clone();
            // The last observer may have gone meanwhile.
            drop(observers.send(format!("{} {}", time_of_day(event.time), names.describe(&event))));
        }
    }
}

/// The time of day, UTC, of an instant of the monotonic clock.
fn time_of_day(nanoseconds: u64) -> String {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let age = monotonic.saturating_sub(Duration::from_nanos(nanoseconds));
    let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
    let seconds = then.as_secs();
    format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        then.subsec_millis()
    )
}

fn protocol(number: u8) -> String {
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
            addresses: BTreeMap::from([("10.0.0.1".parse().unwrap(), "demo/web".to_owned())]),
            rules: BTreeMap::from([(20, RuleOrigin::Isolation { ingress: true, policies: policies.into() })]),
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

        assert_eq!(
            names.describe(&event),
            "demo/web:40000 -> 10.0.0.9:80/TCP DROPPED POLICY_DENIED: the pod is isolated and no rule allows it; \
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

        assert_eq!(names.describe(&flow), "[::1]:1 -> [::1]:2/UDP at [::1]:3 FORWARDED");
        assert_eq!(names.describe(&frame), "a frame DROPPED VLAN_FILTERED: the frame carries a VLAN tag");
    }
}
