//! What the engine makes of the checks: backends that fail leave the rings.

use tracing::{info, warn};

use super::Finding;
use crate::{
    daemon::{
        enforcer::Enforcer,
        engine::{Active, Engine},
        events,
        interfaces::Network,
    },
    protocol::{Event, HealthChange},
};

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// Takes note of what a check has found; gives the event that it is. `None`: it is about a backend that is not
    /// checked any more.
    pub(in crate::daemon) fn note(&mut self, finding: Finding) -> Option<Event> {
        let Finding { target, failure } = finding;
        let active = self.active.as_ref()?;
        active.datapath.probes.get(&target)?;
        let backend = self.names.borrow().party(target.backend.address, target.backend.port);
        let change = HealthChange {
            time: events::now(),
            service: target.service.to_string(),
            backend,
            healthy: failure.is_none(),
            failure: failure.clone(),
        };
        let (service, backend) = (&change.service, change.backend.to_string());
        match failure {
            Some(failure) => {
                warn!(service, backend, failure, "the backend fails its checks");
                self.failing.insert(target, failure);
            }
            None => {
                info!(service, backend, "the backend is well again");
                self.failing.remove(&target);
            }
        }
        Some(Event::Health(change))
    }

    /// Enforces what is known of the backends' health. What cannot be enforced is tried again.
    pub(in crate::daemon) fn rebalance(&mut self) {
        let Some(active) = &self.active else { return };
        if active.unhealthy.iter().eq(self.failing.keys()) {
            return;
        }
        let accepted = self.accepted.clone();
        let result = self.plan(accepted).and_then(|candidate| self.enforce(candidate));
        let error = result.err().map(|failure| failure.message);
        if let Some(error) = error.as_ref().filter(|error| self.rebalance_error.as_ref() != Some(error)) {
            warn!("the health of backends has changed, but cannot be enforced: {error}");
        }
        self.rebalance_error = error;
    }

    /// Forgets what was found by checks that are made no more, or otherwise: the new ones begin without it.
    pub(in crate::daemon) fn forget_former_checks(&mut self, former: Option<&Active>) {
        let Some(active) = &self.active else { return };
        let (now, before) = (&active.datapath.probes, former.map(|former| &former.datapath.probes));
        self.failing.retain(|target, _| {
            now.contains_key(target) && before.is_some_and(|before| before.get(target) == now.get(target))
        });
    }
}
