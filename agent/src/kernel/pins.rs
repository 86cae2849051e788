//! Where maps, programs and links are pinned.
//!
//! ```text
//! ROOT/v1/maps/NAME             every map of the object that outlives the agent
//! ROOT/v1/programs/NAME         the programs
//! ROOT/v1/links/IFINDEX-NAME    one link per interface and program, on TCX
//! ROOT/v1/filters/IFINDEX-NAME/ an empty directory: a filter of weir's is there, on clsact
//! ROOT/v1/clsact/IFINDEX/       an empty directory: the interface's clsact qdisc was added by weir
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use super::{KernelError, probe::is_bpffs};

/// Version of the map layouts. It changes whenever a map of one version would be misread by another.
pub const SCHEMA: &str = "v1";

/// The directory of a node's pins below `base`. A BPF file system keeps names with dots for itself, and
/// node names may have them; underscores they may not have.
pub fn of_node(base: &Path, node: &str) -> PathBuf {
    base.join(node.replace('.', "_"))
}

/// The pins of one agent.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins below `root`, a directory on a BPF file system that need not exist yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory("maps").join(name)
    }

    /// Where a program is pinned.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory("programs").join(name)
    }

    /// Where the link of a program at an interface is pinned.
    pub fn link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.directory("links").join(format!("{ifindex}-{program}"))
    }

    /// The directory that stands for the filter of a program at an interface.
    pub fn filter(&self, ifindex: u32, program: &str) -> PathBuf {
        self.directory("filters").join(format!("{ifindex}-{program}"))
    }

    /// The directory that stands for a clsact qdisc of weir's.
    pub fn clsact(&self, ifindex: u32) -> PathBuf {
        self.directory("clsact").join(ifindex.to_string())
    }

    /// Interface and program of every link and filter.
    pub fn attached(&self) -> Vec<(u32, String)> {
        let entry = |name: &str| {
            let (ifindex, program) = name.split_once('-')?;
            Some((ifindex.parse().ok()?, program.to_owned()))
        };
        let mut attached = Vec::new();
        for directory in ["links", "filters"] {
            let entries = fs::read_dir(self.directory(directory)).into_iter().flatten();
            attached.extend(entries.filter_map(|found| entry(found.ok()?.file_name().to_str()?)));
        }
        attached
    }

    /// Every map and program that is pinned.
    pub fn pinned(&self) -> Vec<PathBuf> {
        let entries = |name| fs::read_dir(self.directory(name)).into_iter().flatten().flatten();
        entries("maps").chain(entries("programs")).map(|entry| entry.path()).collect()
    }

    /// Makes the directories, for nobody but root, and keeps other agents out until the lock is dropped.
    ///
    /// # Errors
    /// When the place is not on a BPF file system, or another agent holds it.
    pub fn prepare(&self) -> Result<Flock<File>, KernelError> {
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            return Err(KernelError::NoBpffs { path: self.root.clone() });
        }
        for name in ["maps", "programs", "links", "filters", "clsact"] {
            create(&self.directory(name))?;
        }
        let failed = |error| KernelError::Pin { action: "lock", path: self.root.clone(), error };
        let directory = File::open(&self.root).map_err(failed)?;
        Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::Error::EWOULDBLOCK => KernelError::Locked { path: self.root.clone() },
            error => failed(error.into()),
        })
    }

    /// Removes every pin and directory, and the directory above when it is left empty. Goes on after errors.
    pub fn remove(&self) -> Vec<KernelError> {
        let mut errors = Vec::new();
        remove_tree(&self.root, &mut errors);
        if let Some(parent) = self.root.parent() {
            // Not ours alone: others may have their pins there, or a file system may be mounted on it.
            let _ = fs::remove_dir(parent);
        }
        errors
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.join(SCHEMA).join(name)
    }
}

/// Makes a directory and those above it, mode 0700.
///
/// # Errors
/// When it cannot be made.
pub fn create(path: &Path) -> Result<(), KernelError> {
    let result = DirBuilder::new().recursive(true).mode(0o700).create(path);
    result.map_err(|error| KernelError::Pin { action: "create", path: path.to_owned(), error })
}

/// Removes a pin or an empty directory; it does not matter when it is not there.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(path: &Path) -> Result<(), KernelError> {
    let result = match path.is_dir() {
        true => fs::remove_dir(path),
        false => fs::remove_file(path),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::Pin { action: "remove", path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path, errors: &mut Vec<KernelError>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            remove_tree(&entry.path(), errors);
        }
    }
    errors.extend(remove(path).err());
}
