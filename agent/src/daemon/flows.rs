//! Live connections in words, and what a change does to them.

use std::net::SocketAddr;

use super::{
    enforcer::Enforcer,
    engine::{Active, Engine},
    events::{Names, protocol},
    explain::origin_text,
    interfaces::Network,
};
use crate::{
    connections::{Cause, Connection, Fate},
    datapath::Datapath,
    protocol::{
        self, ConnectionFilter, Connections, Effect, Failure, FailureKind, FlowDifference, Owner, OwnerKind,
        Party,
    },
};

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// For `weir get connections`.
    pub(super) fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, Failure> {
        let Some(active) = &self.active else { return Ok(Connections::default()) };
        let words = Words::new(&self.settings.node, active);
        let found = self.live()?;
        let mut items: Vec<_> = found.iter().map(|one| words.describe(one)).collect();
        items.retain(|connection| filter.matches(connection));
        let total = items.len();
        items.truncate(filter.limit.unwrap_or(usize::MAX));
        Ok(Connections { items, total })
    }

    /// The live connections that would not go on as they are with `after` in force.
    pub(super) fn flow_differences(&self, after: &Datapath) -> Result<Vec<FlowDifference>, Failure> {
        let Some(active) = &self.active else { return Ok(Vec::new()) };
        let words = Words::new(&self.settings.node, active);
        let differences = self.live()?.into_iter().filter_map(|connection| {
            let effect = words.effect(&connection, after)?;
            Some(FlowDifference { connection: words.describe(&connection), effect })
        });
        Ok(differences.collect())
    }

    /// The connections of the flow tables.
    pub(super) fn live(&self) -> Result<Vec<Connection>, Failure> {
        self.enforcer.connections().map_err(|error| Failure::new(FailureKind::Kernel, error))
    }
}

/// What addresses and rules are called.
struct Words<'a> {
    node: &'a str,
    names: Names,
    datapath: &'a Datapath,
}

impl<'a> Words<'a> {
    fn new(node: &'a str, active: &'a Active) -> Self {
        let Active { cluster, datapath, .. } = active;
        Self { node, names: Names::new(cluster, &datapath.rules), datapath }
    }

    fn describe(&self, connection: &Connection) -> protocol::Connection {
        // A rule's number may stand for another rule since.
        let decider = |rule| self.names.decider(rule).filter(|_| connection.judged);
        let masqueraded = (connection.source != connection.client).then(|| self.party(connection.source));
        protocol::Connection {
            nodes: vec![self.node.to_owned()],
            protocol: protocol(connection.protocol),
            client: self.party(connection.client),
            frontend: self.frontend(connection),
            masqueraded,
            server: self.party(connection.server),
            state: connection.state,
            idle: connection.idle.as_secs(),
            expires_in: connection.left.as_secs(),
            judged: connection.judged,
            egress: decider(connection.egress_rule),
            ingress: decider(connection.ingress_rule),
        }
    }

    /// `None`: it goes on as it is.
    fn effect(&self, connection: &Connection, after: &Datapath) -> Option<Effect> {
        let now = match connection.judged {
            true => Fate::Stays,
            false => connection.fate(self.datapath, self.datapath),
        };
        match (now, connection.fate(self.datapath, after)) {
            (Fate::Cut(_), Fate::Cut(_)) | (Fate::Stays, Fate::Stays) => None,
            (Fate::Moves(now), Fate::Moves(then)) if now == then => None,
            (Fate::Cut(_), Fate::Stays) => Some(Effect::Opened),
            (_, Fate::Cut(cause)) => Some(Effect::Cut(why(cause, after))),
            (_, Fate::Moves(to)) => Some(Effect::Moved(self.party(to))),
            (Fate::Moves(_), Fate::Stays) => Some(Effect::Moved(self.party(connection.server))),
        }
    }

    fn party(&self, at: SocketAddr) -> Party {
        self.names.party(at.ip(), at.port())
    }

    /// A service answers on the node's addresses too: which one only the port tells.
    fn frontend(&self, connection: &Connection) -> Party {
        let mut party = self.party(connection.frontend);
        if let Some(service) = self.datapath.frontends.get(&connection.to()) {
            party.owner = Some(Owner { kind: OwnerKind::Service, name: service.name.to_string() });
        }
        party
    }
}

fn why(cause: Cause, datapath: &Datapath) -> String {
    match cause {
        Cause::Policy(direction, rule) => match datapath.rules.get(&rule) {
            Some(origin) => format!("{direction}: {}", origin_text(origin)),
            None => format!("{direction}: denied"),
        },
        Cause::NoBackend => "its service has no backend for it".to_owned(),
        Cause::NoClient => "the client's pod is gone".to_owned(),
        Cause::BackendGone => "the backend is no endpoint of the service any more: reset".to_owned(),
        Cause::NoServer => "the server's pod is gone".to_owned(),
    }
}
