//! What agents that no longer run have left on this host.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    enforcer::EnforceError,
    state::{Directory, StateError},
};
use crate::kernel::pins::of_node;

/// Pins and state directories of agents that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pins: Vec<PathBuf>,
    states: Vec<PathBuf>,
}

/// Where agents keep what.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory with one directory of pins per agent.
    pub bpffs: PathBuf,
    /// The directory with one state directory per agent.
    pub run: PathBuf,
}

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// A state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Pins.
    #[error("{}: {error}", .path.display())]
    Pins {
        /// Where.
        path: PathBuf,
        /// Why.
        error: EnforceError,
    },
    /// Several.
    #[error("{0}")]
    Several(String),
}

impl Leftovers {
    /// Those of `node`, or of all nodes. `state` and `bpffs` name directories that are not in the usual places.
    pub fn find(places: &Places, node: Option<&str>, state: Option<&Path>, bpffs: Option<&Path>) -> Self {
        let elsewhere = state.is_some() || bpffs.is_some();
        let find =
            |named: Option<&Path>, root: &Path, of_node: fn(&Path, &str) -> PathBuf| match (named, node) {
                (Some(path), _) => existing(path),
                (None, _) if elsewhere => Vec::new(),
                (None, Some(node)) => existing(&of_node(root, node)),
                (None, None) => directories(root),
            };
        Self {
            pins: find(bpffs, &places.bpffs, of_node),
            states: find(state, &places.run, |root, node| root.join(node)),
        }
    }

    /// Removes all of it, pins by `remove_pins`, which names the interfaces that it frees. What fails does not
    /// keep the rest from being removed.
    pub fn remove(
        &self,
        mut remove_pins: impl FnMut(&Path) -> Result<Vec<String>, EnforceError>,
    ) -> Result<BTreeSet<String>, LeftoverError> {
        let mut freed = BTreeSet::new();
        let mut failures: Vec<LeftoverError> = Vec::new();
        for path in &self.pins {
            match remove_pins(path) {
                Ok(interfaces) => freed.extend(interfaces),
                Err(error) => failures.push(LeftoverError::Pins { path: path.clone(), error }),
            }
        }
        for path in &self.states {
            if let Err(error) = Directory::open(path).and_then(|directory| directory.remove()) {
                failures.push(error.into());
            }
        }
        match failures.len() {
            0 => Ok(freed),
            1 => Err(failures.remove(0)),
            _ => Err(LeftoverError::Several(
                failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            )),
        }
    }
}

fn existing(path: &Path) -> Vec<PathBuf> {
    Vec::from_iter(path.is_dir().then(|| path.to_owned()))
}

fn directories(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places { bpffs: root.path().join("bpf"), run: root.path().join("run") };
        for node in ["a", "b"] {
            fs::create_dir_all(places.bpffs.join(node)).unwrap();
            drop(Directory::open(&places.run.join(node)).unwrap());
        }
        (root, places)
    }

    #[test]
    fn everything_of_every_node_is_removed() {
        let (_root, places) = host();

        let freed = Leftovers::find(&places, None, None, None).remove(|pins| {
            fs::remove_dir(pins).unwrap();
            Ok(vec![format!("veth-{}", pins.file_name().unwrap().display())])
        });

        assert_eq!(Vec::from_iter(freed.unwrap()), ["veth-a", "veth-b"]);
        assert_eq!(directories(&places.bpffs).len() + directories(&places.run).len(), 0);
    }

    #[test]
    fn another_node_keeps_what_it_has() {
        let (_root, places) = host();

        Leftovers::find(&places, Some("a"), None, None).remove(|_| Ok(Vec::new())).unwrap();

        assert_eq!(directories(&places.run), [places.run.join("b")]);
    }

    #[test]
    fn named_directories_are_the_only_ones_touched() {
        let (root, places) = host();
        let elsewhere = root.path().join("elsewhere");
        drop(Directory::open(&elsewhere).unwrap());

        Leftovers::find(&places, None, Some(&elsewhere), None)
            .remove(|_| panic!("no pins were named"))
            .unwrap();

        assert!(!elsewhere.exists());
        assert_eq!(directories(&places.run).len(), 2);
    }

    #[test]
    fn a_failure_does_not_keep_the_rest() {
        let (_root, places) = host();

        let result =
            Leftovers::find(&places, None, None, None).remove(|_| Err(EnforceError::Refused("busy".into())));

        let message = result.unwrap_err().to_string();
        assert!(message.contains("bpf/a: busy") && message.contains("bpf/b: busy"), "{message}");
        assert_eq!(directories(&places.run).len(), 0);
    }
}
