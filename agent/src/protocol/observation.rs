//! What `weir observe` shows: packets that were dropped or rejected, and flows that were decided.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::source::Source;

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

/// A reader who follows knows the day.
pub(super) fn time_of_day(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, time)| time)
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", time_of_day(&self.time))?;
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

impl Party {
    /// Its address and port.
    pub const fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(Owner { kind: OwnerKind::Pod, name }) => write!(f, "{name}:{}", self.port),
            Some(Owner { kind: OwnerKind::Node, name }) => write!(f, "node {name}:{}", self.port),
            Some(Owner { kind: OwnerKind::Service, name }) => write!(f, "service {name}:{}", self.port),
            None => self.socket().fmt(f),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::Name;

    pub(in crate::protocol) fn party(pod: Option<&str>) -> Option<Party> {
        let owner = pod.map(|name| Owner { kind: OwnerKind::Pod, name: name.to_owned() });
        Some(Party { address: "10.0.0.1".parse().unwrap(), port: 80, owner })
    }

    pub(in crate::protocol) fn name(name: &str) -> Option<Name> {
        Some(Name { namespace: "demo".into(), name: name.into() })
    }

    /// From demo/web to a service whose backend is demo/db.
    pub(in crate::protocol) fn drop() -> Observation {
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
