//! What each request of a client comes to.

use std::collections::BTreeMap;

use super::{
    accepted::Accepted,
    difference,
    enforcer::Enforcer,
    engine::{Active, Candidate, Engine},
    explain,
    interfaces::Network,
    listing,
};
use crate::{
    cluster::Objects,
    manifest::{Key, Kind, Reader},
    protocol::{
        Change, Changed, ChangedObject, Difference, Failure, FailureKind, Kind as ListedKind, Outcome,
        Request, Response,
    },
};

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// Does what a client asks for.
    pub(super) fn answer(&mut self, request: Request) -> Response {
        self.grant(request).unwrap_or_else(Response::Failed)
    }

    fn grant(&mut self, request: Request) -> Result<Response, Failure> {
        Ok(match request {
            Request::Change { change, dry_run } => Response::Changed(self.change(&change, dry_run)?),
            Request::Undo { revision } => Response::Changed(self.undo(revision)?),
            Request::Diff { change } => Response::Difference(self.difference(&change)?),
            Request::Get { kind, name, namespace } => {
                let hits = match kind {
                    ListedKind::Policies | ListedKind::Rules => {
                        let hits = self.enforcer.rule_hits();
                        hits.map_err(|error| Failure::new(FailureKind::Kernel, error))?
                    }
                    _ => BTreeMap::new(),
                };
                let mut listing = self
                    .active
                    .as_ref()
                    .map(|active| listing::list(active, &self.settings.node, &hits, kind))
                    .unwrap_or_default();
                listing.rows.retain(|row| {
                    name.as_ref().is_none_or(|name| row.name == *name)
                        && namespace
                            .as_ref()
                            .is_none_or(|namespace| row.namespace.as_ref().is_none_or(|own| own == namespace))
                });
                Response::Listing(listing)
            }
            Request::Connections(filter) => Response::Connections(self.connections(&filter)?),
            Request::DescribeService(name) => Response::Service(Box::new(self.describe_service(&name)?)),
            Request::DescribePolicy(name) => Response::Policy(Box::new(self.describe_policy(&name)?)),
            Request::Simulate { change } => Response::Simulation(self.simulate(&change)?),
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Attach { pod, interface, mac } => {
                Response::Attached(self.attach(&pod, &interface, mac.as_deref())?)
            }
            Request::Detach(what) => Response::Detached(self.detach(&what)?),
            Request::Explain { source, destination } => {
                let cluster = self.active.as_ref().map(|active| &active.cluster);
                let cluster =
                    cluster.ok_or_else(|| Failure::new(FailureKind::NotFound, "nothing is enforced yet"))?;
                let (allowed, text) = explain::explain(cluster, &source, &destination)
                    .map_err(|why| Failure::new(FailureKind::Usage, why))?;
                Response::Explained { allowed, text }
            }
            Request::Observe { .. } => {
                return Err(Failure::new(FailureKind::Usage, "events are not a single answer"));
            }
        })
    }

    /// `weir apply` and `weir delete`.
    fn change(&mut self, change: &Change, dry_run: bool) -> Result<Changed, Failure> {
        let result = self.changed_by(change).and_then(|(accepted, objects)| {
            let candidate = self.plan(accepted)?;
            if dry_run {
                self.check(&candidate)?;
                return Ok(Changed { revision: self.accepted.revision, objects });
            }
            let before = self.accepted.clone();
            self.enforce(candidate)?;
            self.previous = Some(before);
            Ok(Changed { revision: self.accepted.revision, objects })
        });
        if result.is_err() && !dry_run {
            self.refused += 1;
        }
        result
    }

    fn undo(&mut self, revision: u64) -> Result<Changed, Failure> {
        let previous = self.previous.take().filter(|_| self.accepted.revision == revision);
        let previous = previous.ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format!("revision {revision} is not the last change of a client"),
            )
        })?;
        let accepted = Accepted { overlay: previous.overlay, ..self.accepted.clone() };
        let candidate = self.plan(accepted)?;
        self.enforce(candidate)?;
        Ok(Changed { revision: self.accepted.revision, objects: Vec::new() })
    }

    fn difference(&self, change: &Change) -> Result<Difference, Failure> {
        let candidate = self.candidate_of(change)?;
        let nothing = Active::default();
        let active = self.active.as_ref().unwrap_or(&nothing);
        let difference = difference::difference(
            (&active.objects, &active.cluster),
            (&candidate.objects, &candidate.cluster),
        );
        if difference.objects.is_empty() {
            return Ok(difference);
        }
        Ok(Difference { flows: self.flow_differences(&candidate.datapath)?, ..difference })
    }

    /// What `change` would bring, if it can be enforced.
    pub(super) fn candidate_of(&self, change: &Change) -> Result<Candidate, Failure> {
        let (accepted, _) = self.changed_by(change)?;
        let candidate = self.plan(accepted)?;
        self.check(&candidate)?;
        Ok(candidate)
    }

    /// Whether the kernel has room for `candidate`.
    fn check(&self, candidate: &Candidate) -> Result<(), Failure> {
        self.enforcer.check(&candidate.datapath).map_err(|error| self.refused_by_kernel(error))
    }

    /// The accepted state after `change`, and what becomes of the objects that it names.
    fn changed_by(&self, change: &Change) -> Result<(Accepted, Vec<ChangedObject>), Failure> {
        let mut accepted = self.accepted.clone();
        let nothing = Objects::default();
        let in_force = self.active.as_ref().map_or(&nothing, |active| &active.objects);
        let mut outcomes = Vec::new();
        match change {
            Change::Apply(texts) => {
                let documents = Reader::default().kept(texts).finish();
                for object in documents.map_err(|found| self.refusal(&found))?.objects {
                    let before = in_force.find(object.key()).map(|before| before.text().to_json());
                    let outcome = match before {
                        None => Outcome::Created,
                        Some(before) if before == object.text().to_json() => Outcome::Unchanged,
                        Some(_) => Outcome::Configured,
                    };
                    outcomes.push(ChangedObject { object: qualified(object.key()), outcome });
                    if outcome != Outcome::Unchanged {
                        accepted.overlay.put(&accepted.files, object.into());
                    }
                }
            }
            Change::Delete(keys) => {
                for key in keys {
                    if in_force.find(key).is_none() {
                        return Err(self.unchanged(FailureKind::NotFound, format!("{key} is not there")));
                    }
                    // With a namespace goes all that is in it.
                    let inside = |other: &&Key| {
                        key.kind == Kind::Namespace
                            && other.kind.is_namespaced()
                            && other.name.namespace == key.name.name
                    };
                    for key in
                        [key].into_iter().chain(in_force.iter().map(|object| object.key()).filter(inside))
                    {
                        accepted.overlay.remove(&accepted.files, key);
                        outcomes.push(ChangedObject { object: qualified(key), outcome: Outcome::Deleted });
                    }
                }
            }
        }
        Ok((accepted, outcomes))
    }
}

/// An object's name as kubectl writes it, with its namespace: `networkpolicy.networking.k8s.io/demo/db`.
pub(super) fn qualified(key: &Key) -> String {
    let kind = key.kind.name().to_lowercase();
    let group =
        key.kind.api_version().rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    if key.kind.is_namespaced() {
        format!("{kind}{group}/{}", key.name)
    } else {
        format!("{kind}{group}/{}", key.name.name)
    }
}
