//! The agent's logic: what is accepted, what is enforced, and the one way from the first to the second.
//!
//! Every change goes the same way: objects → cluster → datapath → interfaces → state made durable → kernel →
//! state published. Whatever fails on it leaves the revision before in force, in the kernel and on disk.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    accepted::{self, Accepted, Since, Stored},
    enforcer::{EnforceError, Enforcer},
    events::Names,
    interfaces::{Network, Resolution, Snapshot},
    refusal::{refusal, stays},
    state::{Directory, StateError},
};
use crate::{
    cluster::{Built, Cluster, Objects},
    compile::{CompileError, Compiler, Unhealthy},
    datapath::{Datapath, Target},
    manifest::{self, Diagnostics},
    protocol::{Failure, FailureKind},
};

/// What an agent is told when it starts.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The node it is the agent of.
    pub node: String,
    /// Watched files and directories.
    pub manifests: Vec<PathBuf>,
    /// Interface towards other nodes, when it was given.
    pub uplink: Option<String>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The manifests are wrong, and no state was accepted before.
    #[error("{0}")]
    Input(String),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel side refuses.
    #[error("{0}")]
    Enforce(String),
}

/// The agent of a node.
pub(super) struct Engine<E, N> {
    pub(super) settings: Settings,
    pub(super) directory: Directory,
    pub(super) enforcer: E,
    pub(super) network: N,
    pub(super) accepted: Accepted,
    /// The accepted state before the last change by a client, for [`crate::protocol::Request::Undo`].
    pub(super) previous: Option<Accepted>,
    pub(super) active: Option<Active>,
    /// Changes refused since the start.
    pub(super) refused: u64,
    /// Interfaces whose programs were taken off and attached again since the start.
    pub(super) repaired: u64,
    /// The interfaces for which the programs were looked after last.
    pub(super) network_seen: Option<Arc<Snapshot>>,
    /// What somebody else has removed, as far as it has been logged.
    pub(super) damage: Vec<String>,
    /// Why the watched manifests are not in force.
    pub(super) last_error: Option<String>,
    /// Why the accepted state could not be published.
    pub(super) state_error: Option<String>,
    /// Backends that fail their checks, and why.
    pub(super) failing: BTreeMap<Target, String>,
    /// Why what is known of them is not enforced.
    pub(super) rebalance_error: Option<String>,
    /// What is wrong beside the engine.
    pub(super) health_problems: Vec<String>,
    /// For those who put events into words.
    pub(super) names: watch::Sender<Arc<Names>>,
}

/// What is enforced, in every form on the way from manifests to maps.
#[derive(Clone, Debug, Default)]
pub(super) struct Active {
    pub(super) objects: Objects,
    pub(super) cluster: Cluster,
    pub(super) datapath: Datapath,
    pub(super) resolution: Resolution,
    /// The failing backends that `datapath` leaves out.
    pub(super) unhealthy: Unhealthy,
    /// What the next change starts from.
    made: Made,
}

/// What a cluster and its datapath were made with.
#[derive(Clone, Debug, Default)]
struct Made {
    built: Built,
    compiler: Compiler,
}

/// What an agent begins with.
pub(super) enum Beginning {
    /// What the manifests say, where nothing was accepted before.
    Manifests(Box<Candidate>),
    /// What was accepted before, and what the manifests say now.
    Accepted(Box<Accepted>, Result<Watched, Diagnostics>),
}

/// A change that has been found good, short of the kernel.
pub(super) struct Candidate {
    pub(super) accepted: Accepted,
    pub(super) objects: Objects,
    pub(super) cluster: Cluster,
    pub(super) datapath: Datapath,
    made: Made,
    unhealthy: Unhealthy,
}

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// Enforces the watched manifests, or, when they are wrong, what was accepted before.
    pub(super) fn start(
        settings: Settings,
        directory: Directory,
        enforcer: E,
        network: N,
        names: watch::Sender<Arc<Names>>,
        mut beginning: Beginning,
    ) -> Result<Self, StartError> {
        let accepted = match &mut beginning {
            Beginning::Manifests(_) => Accepted::default(),
            Beginning::Accepted(accepted, _) => std::mem::take(&mut **accepted),
        };
        let mut engine = Self {
            settings,
            directory,
            enforcer,
            network,
            accepted,
            previous: None,
            active: None,
            refused: 0,
            repaired: 0,
            network_seen: None,
            damage: Vec::new(),
            last_error: None,
            state_error: None,
            failing: BTreeMap::new(),
            rebalance_error: None,
            health_problems: Vec::new(),
            names,
        };
        engine.enforcer.adopt_rules(&engine.accepted.rules);
        let enforced = |failure: Failure| StartError::Enforce(failure.message);
        match beginning {
            Beginning::Manifests(candidate) => engine.enforce(*candidate).map_err(enforced)?,
            Beginning::Accepted(_, watched) => {
                if engine.follow(watched).is_err() {
                    info!(
                        revision = engine.accepted.revision,
                        "enforcing the state that was accepted before"
                    );
                    let accepted = engine.accepted.clone();
                    let candidate = engine.plan(accepted);
                    let candidate = candidate.map_err(|failure| StartError::Input(failure.message))?;
                    engine.enforce(candidate).map_err(enforced)?;
                }
            }
        }
        Ok(engine)
    }

    /// Forgets everything, after the kernel side has been removed.
    pub(super) fn remove_state(&self) -> Result<(), StateError> {
        self.directory.remove()
    }

    /// Reads the watched manifests again and enforces them.
    pub(super) fn reload(&mut self) -> Result<(), Failure> {
        self.follow(Watched::read(&self.settings.manifests))
    }

    /// Enforces what the watched manifests were found to say.
    fn follow(&mut self, watched: Result<Watched, Diagnostics>) -> Result<(), Failure> {
        let result = self.enforce_watched(watched);
        self.last_error = result.as_ref().err().map(|failure| failure.message.clone());
        if let Err(failure) = &result {
            self.refused += 1;
            error!(
                "the manifests are refused; revision {} stays active\n{}",
                self.accepted.revision,
                failure.message.trim_end()
            );
        }
        result
    }

    fn enforce_watched(&mut self, watched: Result<Watched, Diagnostics>) -> Result<(), Failure> {
        let watched = watched.map_err(|found| self.refusal(&found))?;
        let candidate = self.plan(self.accepted.updated(watched))?;
        self.enforce(candidate)
    }

    /// Looks for interfaces again, and enforces the pods on those that have come.
    pub(super) fn refresh(&mut self) -> Result<(), Failure> {
        self.enforce_again(self.accepted.clone())
    }

    /// Enforces the objects in force once more, where `accepted` differs from what is in force by interfaces alone.
    pub(super) fn enforce_again(&mut self, accepted: Accepted) -> Result<(), Failure> {
        let candidate = match &self.active {
            Some(Active { objects, cluster, datapath, unhealthy, made, .. }) => Candidate {
                accepted,
                objects: objects.clone(),
                cluster: cluster.clone(),
                datapath: datapath.clone(),
                made: made.clone(),
                unhealthy: unhealthy.clone(),
            },
            None => self.plan(accepted)?,
        };
        self.enforce(candidate)
    }

    /// Everything of a change that can be found out before the kernel is touched.
    pub(super) fn plan(&self, accepted: Accepted) -> Result<Candidate, Failure> {
        let before = self.active.as_ref().map(|active| (&self.accepted, active));
        let unhealthy = self.failing.keys().cloned().collect();
        Candidate::new(&self.settings.node, before, accepted, unhealthy).map_err(|flaw| match flaw {
            Flaw::Contradiction(found) => self.refusal(&found),
            Flaw::TooLarge(error) => self.unchanged(FailureKind::Input, error),
        })
    }

    /// Brings the kernel and the disk to `candidate`.
    pub(super) fn enforce(&mut self, candidate: Candidate) -> Result<(), Failure> {
        let Candidate { mut accepted, objects, cluster, datapath, mut made, unhealthy } = candidate;
        let resolution = self.attach_interfaces(&mut accepted, &cluster)?;
        let changed = self.active.as_ref().is_none_or(|active| active.cluster != cluster);
        if changed && !(self.active.is_none() && self.is_restored(&accepted)) {
            accepted.revision = self.accepted.revision + 1;
        }
        let moved = self.active.as_ref().is_none_or(|active| active.resolution != resolution);
        // The health of backends makes no revision of the manifests.
        let rebalanced = self.active.as_ref().is_none_or(|active| active.unhealthy != unhealthy);
        if !changed && !moved && !rebalanced && accepted == self.accepted {
            return Ok(());
        }
        accepted.since = accepted.since.or_else(Since::now);
        accepted.rules = datapath.rules.clone();

        // What can fail for want of space fails before the kernel is touched.
        let change = self.accepted.change_to(&accepted).filter(|_| self.is_stored());
        let pending = match change {
            Some(change) => self.directory.append(&change),
            None => self.directory.prepare(&accepted.to_stored()),
        };
        let pending = pending.map_err(|error| self.unchanged(FailureKind::Kernel, error))?;
        if changed || moved || rebalanced {
            self.enforcer
                .commit(&datapath, &resolution.interfaces)
                .map_err(|error| self.refused_by_kernel(error))?;
        }
        self.state_error = pending.publish().err().map(|error| error.to_string());
        if let Some(error) = &self.state_error {
            warn!(error, "enforced, but a restarted agent would not know it");
        }
        if let Some(active) = &self.active {
            made.compiler.settle(&active.made.compiler);
        }
        info!(
            revision = accepted.revision,
            pods = resolution.pods.len(),
            waiting = resolution.waiting.len(),
            "enforced"
        );
        self.accepted = accepted;
        let names = self.names.borrow().followed_by(&cluster, &datapath.rules);
        self.names.send_replace(Arc::new(names));
        let active = Active { objects, cluster, datapath, resolution, unhealthy, made };
        let former = self.active.replace(active);
        self.forget_former_checks(former.as_ref());
        self.bring_up_enforced();
        Ok(())
    }

    /// Whether the accepted state is on disk as it is here.
    fn is_stored(&self) -> bool {
        self.active.is_some() && self.state_error.is_none()
    }

    /// Does what nobody has to wait for.
    pub(super) fn finish(&mut self) {
        if self.is_stored() && self.directory.has_many_changes() {
            let stored =
                self.directory.prepare(&self.accepted.to_stored()).and_then(|pending| pending.publish());
            // What it was to replace is as good.
            stored.unwrap_or_else(|error| warn!(%error, "the accepted state could not be written anew"));
        }
        if let Err(error) = self.enforcer.finish() {
            warn!(%error, "what is no longer in force could not be removed");
        }
    }

    /// Whether `accepted` is what was in force when the agent ended: a restart makes no new revision.
    fn is_restored(&self, accepted: &Accepted) -> bool {
        accepted.revision > 0
            && accepted.files == self.accepted.files
            && accepted.overlay == self.accepted.overlay
    }

    /// The failure of a change that stopped before the kernel.
    pub(super) fn unchanged(&self, kind: FailureKind, why: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("{why}; nothing was applied ({})", stays(self.accepted.revision)))
    }

    /// The refusal of manifests.
    pub(super) fn refusal(&self, found: &Diagnostics) -> Failure {
        Failure::new(FailureKind::Input, refusal(found, self.accepted.revision))
    }

    pub(super) fn refused_by_kernel(&self, error: EnforceError) -> Failure {
        match error {
            EnforceError::Refused(why) => self.unchanged(FailureKind::Kernel, why),
            EnforceError::RolledBack(why) => self.unchanged(FailureKind::RolledBack, why),
            EnforceError::Mixed(why) => Failure::new(FailureKind::Kernel, why),
        }
    }
}

/// Why objects that are right one by one are no [`Candidate`].
enum Flaw {
    Contradiction(Diagnostics),
    TooLarge(CompileError),
}

impl Candidate {
    /// What `accepted` comes to on a node. `before` is what was accepted before, and what it came to.
    fn new(
        node: &str,
        before: Option<(&Accepted, &Active)>,
        accepted: Accepted,
        unhealthy: Unhealthy,
    ) -> Result<Self, Flaw> {
        let (mut made, objects) = match before {
            Some((before, active)) if accepted.files.is_same(&before.files) => (
                active.made.clone(),
                accepted.overlay.over_again(&accepted.files, &before.overlay, &active.objects),
            ),
            Some((_, active)) => (active.made.clone(), accepted.overlay.over(&accepted.files)),
            None => (
                Made { compiler: Compiler::with_rules(node, &accepted.rules), ..Made::default() },
                accepted.overlay.over(&accepted.files),
            ),
        };
        made.built = made.built.changed(&objects).map_err(Flaw::Contradiction)?;
        let mut cluster = made.built.cluster.clone();
        cluster.skipped = accepted.skipped.clone();
        let datapath = made.compiler.compile(&cluster, &unhealthy).map_err(Flaw::TooLarge)?;
        Ok(Self { accepted, objects, cluster, datapath, made, unhealthy })
    }
}

/// What the watched manifests say.
pub(super) struct Watched {
    objects: Objects,
    skipped: BTreeMap<String, usize>,
}

impl Watched {
    fn read(manifests: &[PathBuf]) -> Result<Self, Diagnostics> {
        let mut documents = manifest::read(manifests)?;
        if !documents.warnings.is_empty() {
            warn!("{}", documents.warnings.render(false).trim_end());
        }
        let skipped = std::mem::take(&mut documents.skipped);
        Ok(Self { objects: accepted::objects(documents), skipped })
    }
}

impl Accepted {
    /// With the manifests as they are now.
    fn updated(&self, watched: Watched) -> Self {
        let mut accepted = self.clone();
        accepted.skipped = watched.skipped;
        accepted.files = self.files.updated(&watched.objects);
        accepted.overlay.settle(&accepted.files);
        accepted
    }
}

impl Beginning {
    /// What was accepted before, else what the manifests say. The kernel is not touched.
    pub(super) fn find(directory: &Directory, settings: &Settings) -> Result<Self, StartError> {
        let watched = Watched::read(&settings.manifests);
        if let Some(stored) = directory.load::<Stored<'_>>()? {
            // Most objects are still what they were: they are in memory once, and read once.
            let read = watched.as_ref().map(|watched| watched.objects.clone()).unwrap_or_default();
            let mut accepted = Accepted::restore(stored, &read).map_err(StartError::Input)?;
            for change in directory.load_changes()? {
                accepted.follow(change).map_err(StartError::Input)?;
            }
            return Ok(Self::Accepted(Box::new(accepted), watched));
        }
        let candidate = watched.map_err(Flaw::Contradiction).and_then(|watched| {
            let accepted = Accepted::default().updated(watched);
            Candidate::new(&settings.node, None, accepted, Unhealthy::new())
        });
        match candidate {
            Ok(candidate) => Ok(Self::Manifests(Box::new(candidate))),
            Err(Flaw::Contradiction(found)) => Err(StartError::Input(refusal(&found, 0))),
            Err(Flaw::TooLarge(error)) => {
                Err(StartError::Input(format!("{error}; nothing was applied ({})", stays(0))))
            }
        }
    }

    /// What is to be enforced, where nothing was before.
    pub(super) fn datapath(&self) -> Option<&Datapath> {
        match self {
            Self::Manifests(candidate) => Some(&candidate.datapath),
            Self::Accepted(..) => None,
        }
    }
}
