//! What becomes of a connection, in one line.

use crate::{
    daemon::explain::origin_text,
    datapath::{
        Connection, Judgement, Network,
        explain::{Cause, Explanation},
    },
};

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it is allowed.
    pub allowed: bool,
    /// What decided, at each end that is a pod.
    pub why: String,
}

/// What becomes of `connection`: one outcome, or one for each backend of a service.
pub(super) fn observe(network: &Network, connection: &Connection) -> Vec<Outcome> {
    let denied = |why: &str| vec![Outcome { allowed: false, why: why.to_owned() }];
    match network.connect(connection) {
        Judgement::InvalidSource => denied("the source is not the sender's own address"),
        Judgement::Dropped => denied("the service has nothing for this client"),
        Judgement::Rejected => denied("the service has no endpoint, or not this port"),
        Judgement::Direct(path) => {
            vec![Outcome { allowed: path.allowed(), why: decided(network, connection) }]
        }
        Judgement::Balanced(backends) => {
            let outcomes = backends.into_iter().map(|(backend, path)| {
                let to = Connection { destination: backend.address, port: backend.port, ..*connection };
                let backend = std::net::SocketAddr::new(backend.address, backend.port);
                let why = format!("backend {backend}: {}", decided(network, &to));
                Outcome { allowed: path.allowed(), why }
            });
            outcomes.collect()
        }
    }
}

fn decided(network: &Network, connection: &Connection) -> String {
    let ends: Vec<_> = network.explain(connection).iter().map(end).collect();
    if ends.is_empty() { "neither end is a pod that policies judge".to_owned() } else { ends.join("; ") }
}

fn end(explanation: &Explanation<'_>) -> String {
    let cause = match explanation.cause {
        Cause::Rule(origin) => origin_text(origin),
        Cause::NoPolicy => "no policy selects it".to_owned(),
        Cause::NoRule => "no rule matches, and no NetworkPolicy isolates it".to_owned(),
        Cause::OwnNode => "its own node always reaches it".to_owned(),
        Cause::Itself => "a pod always reaches itself".to_owned(),
        Cause::Incomplete => "its rules are not complete".to_owned(),
    };
    let verdict = if explanation.decision.allowed { "allowed" } else { "denied" };
    format!("{} {} {verdict}: {cause}", explanation.direction, explanation.pod)
}
