//! What `weir observe` shows: packets that were dropped or rejected, and flows that were decided.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{cluster::Name, source::Source};

/// A packet that was dropped or rejected, or the first one of a flow. As JSON it is what `weir observe -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it was dropped or rejected: one of the names of [`weir_common::reason::Reason`].
    pub reason: Option<String>,
    /// What the reason means.
    pub explanation: Option<String>,
    /// Protocol, by its name where it has one here.
    pub protocol: Option<String>,
    /// Who sent it; `None`: the frame is of neither IP family.
    pub source: Option<Party>,
    /// Whom it was sent to.
    pub destination: Option<Party>,
    /// The backend of a service that it goes to.
    pub backend: Option<Party>,
    /// What decided for the sender.
    pub egress: Option<Decider>,
    /// What decided for the receiver.
    pub ingress: Option<Decider>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A flow was decided, and its packet went on.
    Allowed,
    /// The packet was dropped.
    Dropped,
    /// The packet was dropped, and its sender told so.
    Rejected,
}

/// An end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// What has the address, if anything in the manifests does.
    #[serde(flatten)]
    pub owner: Option<Owner>,
}

/// What has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// What it is.
    pub kind: OwnerKind,
    /// `NAMESPACE/NAME`, or the name of a node.
    pub name: String,
}

/// What may have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerKind {
    /// A pod.
    Pod,
    /// A node.
    Node,
    /// A service.
    Service,
}

/// The rule that decided, or the policies that isolate the pod when none did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decider {
    /// In a few words, places included.
    pub text: String,
    /// The policies.
    pub policies: Vec<String>,
    /// Number of the rule in its list; `None`: no rule matched.
    pub rule: Option<usize>,
    /// Where the rule, or each of the policies, stands.
    pub sources: Vec<Source>,
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
    pub fn matches(&self, seen: &Observation) -> bool {
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

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A reader who follows knows the day.
        let time = self.time.split_once('T').map_or(self.time.as_str(), |(_, time)| time);
        write!(f, "{time} ")?;
        match (&self.source, &self.destination) {
            (Some(source), Some(destination)) => {
                write!(f, "{source} -> {destination}/{}", self.protocol.as_deref().unwrap_or("?"))?;
            }
            _ => write!(f, "a frame")?,
        }
        if let Some(backend) = &self.backend {
            write!(f, " at {backend}")?;
        }
        match self.verdict {
            Verdict::Allowed => write!(f, " ALLOWED")?,
            Verdict::Dropped => write!(f, " DROPPED")?,
            Verdict::Rejected => write!(f, " REJECTED")?,
        }
        if let Some(reason) = &self.reason {
            write!(f, " {reason}")?;
        }
        if let Some(explanation) = &self.explanation {
            write!(f, ": {explanation}")?;
        }
        for (direction, decider) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            if let Some(Decider { text, .. }) = decider {
                write!(f, "; {direction}: {text}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(Owner { kind: OwnerKind::Pod, name }) => write!(f, "{name}:{}", self.port),
            Some(Owner { kind: OwnerKind::Node, name }) => write!(f, "node {name}:{}", self.port),
            Some(Owner { kind: OwnerKind::Service, name }) => write!(f, "service {name}:{}", self.port),
            None => std::net::SocketAddr::new(self.address, self.port).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(pod: Option<&str>) -> Option<Party> {
        let owner = pod.map(|name| Owner { kind: OwnerKind::Pod, name: name.to_owned() });
        Some(Party { address: "10.0.0.1".parse().unwrap(), port: 80, owner })
    }

    fn name(name: &str) -> Option<Name> {
        Some(Name { namespace: "demo".into(), name: name.into() })
    }

    /// From demo/web to a service whose backend is demo/db.
    fn drop() -> Observation {
        Observation {
            time: "2026-01-02T03:04:05.006Z".into(),
            verdict: Verdict::Dropped,
            reason: Some("POLICY_DENIED".into()),
            explanation: None,
            protocol: Some("TCP".into()),
            source: party(Some("demo/web")),
            destination: party(None),
            backend: party(Some("demo/db")),
            egress: None,
            ingress: None,
        }
    }

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
            assert_eq!(filter.matches(&drop()), wanted, "{filter:?}");
        }
    }

    #[test]
    fn a_node_of_the_same_name_is_no_pod() {
        let mut seen = drop();
        seen.source.as_mut().unwrap().owner.as_mut().unwrap().kind = OwnerKind::Node;

        assert!(!Filter { from_pod: name("web"), ..Filter::default() }.matches(&seen));
    }

    #[test]
    fn an_observation_survives_the_socket() {
        let line = serde_json::to_string(&drop()).unwrap();

        assert_eq!(serde_json::from_str::<Observation>(&line).unwrap(), drop());
        assert!(
            line.contains(r#""source":{"address":"10.0.0.1","port":80,"kind":"pod","name":"demo/web"}"#),
            "{line}"
        );
        assert!(line.contains(r#""destination":{"address":"10.0.0.1","port":80}"#), "{line}");
    }
}
