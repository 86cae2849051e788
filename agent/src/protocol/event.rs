//! What `weir observe` shows: packets, and backends that fail their checks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Observation, OwnerKind, Party, Verdict, observation::time_of_day};
use crate::cluster::Name;

/// What an observer is told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// A packet that was dropped, or the first one of a flow.
    Packet(Box<Observation>),
    /// A backend that fails its checks, or is well again.
    Health(HealthChange),
}

/// A backend that fails its checks, or is well again. As JSON it is among what `weir observe -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthChange {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// `NAMESPACE/NAME` of the service.
    pub service: String,
    /// The backend.
    pub backend: Party,
    /// Whether it is well.
    pub healthy: bool,
    /// Why it is not.
    pub failure: Option<String>,
}

/// Which observations a client wants; all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Sent by this pod, or sent or balanced to it.
    pub pod: Option<Name>,
    /// Sent by this pod.
    pub from_pod: Option<Name>,
    /// Sent or balanced to this pod.
    pub to_pod: Option<Name>,
    /// What became of it.
    pub verdict: Option<Verdict>,
    /// Why it was dropped.
    pub reason: Option<String>,
}

impl Filter {
    /// Whether the client wants it.
    pub fn matches(&self, event: &Event) -> bool {
        match event {
            Event::Packet(seen) => self.matches_packet(seen),
            // It has a receiver, but neither sender nor verdict.
            Event::Health(HealthChange { backend, .. }) => {
                [&self.pod, &self.to_pod].into_iter().flatten().all(|pod| is_pod(Some(backend), pod))
                    && self.from_pod.is_none()
                    && self.verdict.is_none()
                    && self.reason.is_none()
            }
        }
    }

    fn matches_packet(&self, seen: &Observation) -> bool {
        let from = |pod: &Name| is_pod(seen.source.as_ref(), pod);
        let to = |pod: &Name| is_pod(seen.destination.as_ref(), pod) || is_pod(seen.backend.as_ref(), pod);
        self.pod.as_ref().is_none_or(|pod| from(pod) || to(pod))
            && self.from_pod.as_ref().is_none_or(from)
            && self.to_pod.as_ref().is_none_or(to)
            && self.verdict.is_none_or(|verdict| verdict == seen.verdict)
            && self.reason.as_ref().is_none_or(|reason| seen.reason.as_ref() == Some(reason))
    }
}

fn is_pod(party: Option<&Party>, pod: &Name) -> bool {
    let owner = party.and_then(|party| party.owner.as_ref());
    owner.is_some_and(|owner| owner.kind == OwnerKind::Pod && owner.name == pod.to_string())
}

impl Event {
    /// When, RFC 3339 in UTC.
    pub fn time(&self) -> &str {
        match self {
            Self::Packet(seen) => &seen.time,
            Self::Health(change) => &change.time,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(seen) => seen.fmt(f),
            Self::Health(change) => change.fmt(f),
        }
    }
}

impl fmt::Display for HealthChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, backend, .. } = self;
        write!(f, "{} service {service} backend {backend} ", time_of_day(&self.time))?;
        match (&self.failure, self.healthy) {
            (_, true) => f.write_str("HEALTHY"),
            (Some(failure), false) => write!(f, "UNHEALTHY: {failure}"),
            (None, false) => f.write_str("UNHEALTHY"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::observation::tests::{drop, name, party};

    #[test]
    fn a_filter_tells_ends_verdicts_and_reasons_apart() {
        let all = Filter::default;
        let reason = |name: &str| Some(name.to_owned());
        for (filter, wanted) in [
            (all(), true),
            (Filter { pod: name("web"), ..all() }, true),
            (Filter { pod: name("db"), ..all() }, true),
            (Filter { pod: name("other"), ..all() }, false),
            (Filter { from_pod: name("web"), ..all() }, true),
            (Filter { from_pod: name("db"), ..all() }, false),
            (Filter { to_pod: name("db"), ..all() }, true),
            (Filter { to_pod: name("web"), ..all() }, false),
            (Filter { verdict: Some(Verdict::Dropped), ..all() }, true),
            (Filter { verdict: Some(Verdict::Allowed), ..all() }, false),
            (Filter { reason: reason("POLICY_DENIED"), ..all() }, true),
            (Filter { reason: reason("POLICY_DENY"), ..all() }, false),
            (Filter { from_pod: name("web"), to_pod: name("web"), ..all() }, false),
        ] {
            assert_eq!(filter.matches(&Event::Packet(Box::new(drop()))), wanted, "{filter:?}");
        }
    }

    #[test]
    fn a_node_of_the_same_name_is_no_pod() {
        let mut seen = drop();
        seen.source.as_mut().unwrap().owner.as_mut().unwrap().kind = OwnerKind::Node;

        assert!(
            !Filter { from_pod: name("web"), ..Filter::default() }.matches(&Event::Packet(Box::new(seen)))
        );
    }

    #[test]
    fn a_change_of_health_is_about_its_backend() {
        let change = Event::Health(HealthChange {
            time: "2026-01-02T03:04:05.006Z".into(),
            service: "demo/sql".into(),
            backend: party(Some("demo/db")).unwrap(),
            healthy: false,
            failure: Some("connection refused".into()),
        });
        let all = Filter::default;
        for (filter, wanted) in [
            (all(), true),
            (Filter { pod: name("db"), ..all() }, true),
            (Filter { to_pod: name("db"), ..all() }, true),
            (Filter { pod: name("web"), ..all() }, false),
            (Filter { from_pod: name("db"), ..all() }, false),
            (Filter { verdict: Some(Verdict::Dropped), ..all() }, false),
        ] {
            assert_eq!(filter.matches(&change), wanted, "{filter:?}");
        }
        assert_eq!(
            change.to_string(),
            "03:04:05.006Z service demo/sql backend demo/db:80 UNHEALTHY: connection refused"
        );
    }
}
