//! What `weir get connections` shows: live connections.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Decider, OwnerKind, Party};
use crate::cluster::Name;
pub use crate::connections::State;

/// A live connection. As JSON it is what `weir get connections -o json` lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Nodes whose flow tables have it.
    pub nodes: Vec<String>,
    /// Protocol, by its name where it has one here.
    pub protocol: String,
    /// Who opened it; the port of an echo is its identifier.
    pub client: Party,
    /// Where the client sends: a service's address, or the server's own.
    pub frontend: Party,
    /// Whom the server sees, where that is not the client.
    pub masqueraded: Option<Party>,
    /// Where it ends.
    pub server: Party,
    /// How far it has got.
    pub state: State,
    /// Seconds since its last packet.
    pub idle: u64,
    /// Seconds until it is forgotten, if none comes.
    pub expires_in: u64,
    /// The revision in force has judged it; else that is for its next packet, and the rules are not known.
    pub judged: bool,
    /// What decided for the client.
    pub egress: Option<Decider>,
    /// What decided for the server.
    pub ingress: Option<Decider>,
}

/// Live connections of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// Those that are wanted, with the latest packet first, as many as are wanted.
    pub items: Vec<Connection>,
    /// How many there are of those that are wanted.
    pub total: usize,
}

/// Which connections a client wants; all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionFilter {
    /// An end of it is this pod.
    pub pod: Option<Name>,
    /// Through this service.
    pub service: Option<Name>,
    /// An end of it, or its service, is in this namespace.
    pub namespace: Option<String>,
    /// Over this protocol, in capitals.
    pub protocol: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// One of its addresses is in this block.
    pub address: Option<IpNet>,
    /// At most this many.
    pub limit: Option<usize>,
}

impl ConnectionFilter {
    /// Whether the client wants it.
    pub fn matches(&self, connection: &Connection) -> bool {
        let Connection { client, frontend, server, .. } = connection;
        let is = |party: &Party, kind, name: &Name| {
            party.owner.as_ref().is_some_and(|owner| owner.kind == kind && owner.name == name.to_string())
        };
        let parties = || [client, frontend, server].into_iter().chain(&connection.masqueraded);
        let in_namespace = |party: &Party, namespace: &str| {
            let owner = party.owner.as_ref().filter(|owner| owner.kind != OwnerKind::Node);
            owner.is_some_and(|owner| owner.name.split_once('/').is_some_and(|(own, _)| own == namespace))
        };
        let wanted = |address: IpAddr, block: &IpNet| block.contains(&address);
        self.pod.as_ref().is_none_or(|pod| [client, server].iter().any(|end| is(end, OwnerKind::Pod, pod)))
            && self.service.as_ref().is_none_or(|service| is(frontend, OwnerKind::Service, service))
            && self.namespace.as_ref().is_none_or(|own| parties().any(|party| in_namespace(party, own)))
            && self.protocol.as_ref().is_none_or(|protocol| *protocol == connection.protocol)
            && self.state.is_none_or(|state| state == connection.state)
            && self.address.as_ref().is_none_or(|block| parties().any(|party| wanted(party.address, block)))
    }
}

/// What a change would do to a live connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowDifference {
    /// The connection.
    pub connection: Connection,
    /// What would become of it.
    pub effect: Effect,
}

/// What would become of a live connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// It would end, for this reason.
    Cut(String),
    /// It is denied since the last change, and would go on.
    Opened,
    /// It would go to this backend.
    Moved(Party),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
        })
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(why) => write!(f, "cut: {why}"),
            Self::Opened => f.write_str("opened again"),
            Self::Moved(to) => write!(f, "moved to {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Owner;

    fn party(address: &str, owner: Option<(OwnerKind, &str)>) -> Party {
        let owner = owner.map(|(kind, name)| Owner { kind, name: name.to_owned() });
        Party { address: address.parse().unwrap(), port: 80, owner }
    }

    /// From demo/web to a service of another namespace whose backend is data/db.
    fn connection() -> Connection {
        Connection {
            nodes: vec!["a".into()],
            protocol: "TCP".into(),
            client: party("10.0.0.1", Some((OwnerKind::Pod, "demo/web"))),
            frontend: party("10.96.0.1", Some((OwnerKind::Service, "shared/sql"))),
            masqueraded: None,
            server: party("10.0.0.2", Some((OwnerKind::Pod, "data/db"))),
            state: State::Established,
            idle: 1,
            expires_in: 2,
            judged: true,
            egress: None,
            ingress: None,
        }
    }

    fn name(namespace: &str, name: &str) -> Option<Name> {
        Some(Name { namespace: namespace.into(), name: name.into() })
    }

    #[test]
    fn a_filter_tells_connections_apart() {
        let all = ConnectionFilter::default;
        let block = |text: &str| Some(text.parse().unwrap());
        for (filter, wanted) in [
            (all(), true),
            (ConnectionFilter { pod: name("demo", "web"), ..all() }, true),
            (ConnectionFilter { pod: name("data", "db"), ..all() }, true),
            (ConnectionFilter { pod: name("demo", "db"), ..all() }, false),
            (ConnectionFilter { pod: name("shared", "sql"), ..all() }, false),
            (ConnectionFilter { service: name("shared", "sql"), ..all() }, true),
            (ConnectionFilter { service: name("demo", "web"), ..all() }, false),
            (ConnectionFilter { namespace: Some("shared".into()), ..all() }, true),
            (ConnectionFilter { namespace: Some("ops".into()), ..all() }, false),
            (ConnectionFilter { protocol: Some("TCP".into()), ..all() }, true),
            (ConnectionFilter { protocol: Some("UDP".into()), ..all() }, false),
            (ConnectionFilter { state: Some(State::Established), ..all() }, true),
            (ConnectionFilter { state: Some(State::Closing), ..all() }, false),
            (ConnectionFilter { address: block("10.96.0.1/32"), ..all() }, true),
            (ConnectionFilter { address: block("10.0.0.0/24"), ..all() }, true),
            (ConnectionFilter { address: block("10.0.1.0/24"), ..all() }, false),
            (ConnectionFilter { protocol: Some("UDP".into()), pod: name("demo", "web"), ..all() }, false),
        ] {
            assert_eq!(filter.matches(&connection()), wanted, "{filter:?}");
        }
    }
}
