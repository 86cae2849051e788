//! The state directory: what an agent needs to start again.
//!
//! One file holds the accepted state as a whole. It is written beside the old one, made durable, and then
//! renamed over it: after a crash there is the old state or the new one, never something between.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

/// Version of the format of the state file.
const FORMAT: u32 = 1;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The kernel says so.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else could have put it there.
    #[error("{}: {reason}; refusing to use it", .path.display())]
    Unsafe {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Another agent is there.
    #[error("{}: another agent uses this state directory", .0.display())]
    Busy(PathBuf),
    /// Not a state file of this release.
    #[error("{}: not a state of this release of weir: {reason}", .path.display())]
    Format {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// An agent's state directory, locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: Flock<File>,
}

#[derive(Serialize, serde::Deserialize)]
struct Versioned<T> {
    format: u32,
    state: T,
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

/// A state that is durable but not yet in its place.
#[must_use = "a state that is not published is lost"]
#[derive(Debug)]
pub(super) struct Pending<'a> {
    directory: &'a Directory,
}

impl Directory {
    /// Opens `path`, which it creates for its user alone (0700). Refuses a symbolic link and a directory of
    /// somebody else.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let at = |error| StateError::Io { path: path.to_owned(), error };
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(at)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(error)),
            _ => {}
        }
        let refuse = |reason| StateError::Unsafe { path: path.to_owned(), reason };
        let metadata = fs::symlink_metadata(path).map_err(at)?;
        if metadata.is_symlink() {
            return Err(refuse("is a symbolic link"));
        }
        if !metadata.is_dir() {
            return Err(refuse("is not a directory"));
        }
        if metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(refuse("belongs to another user"));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at)?;
        }
        let lock = private().create(true).truncate(false).open(path.join("lock")).map_err(at)?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StateError::Busy(path.to_owned())),
            Err((_, errno)) => Err(at(errno.into())),
        }
    }

    /// The state that was published last, if any.
    pub(super) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        let path = self.file();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::Io { path, error }),
        };
        let broken = |reason: String| StateError::Format { path: path.clone(), reason };
        let Format { format } = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if format != FORMAT {
            return Err(broken(format!("its format is {format}, this release writes {FORMAT}")));
        }
        let versioned: Versioned<T> =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        Ok(Some(versioned.state))
    }

    /// Makes `state` durable beside the one in force. What can fail for want of space fails here.
    pub(super) fn prepare<T: Serialize>(&self, state: &T) -> Result<Pending<'_>, StateError> {
        let path = self.next();
        let write = || {
            let mut file = private().create(true).truncate(true).open(&path)?;
            file.write_all(&serde_json::to_vec(&Versioned { format: FORMAT, state })?)?;
            file.sync_all()
        };
        write().map_err(|error| StateError::Io { path: path.clone(), error })?;
        Ok(Pending { directory: self })
    }

    /// Removes everything that an agent left in the directory, and the directory itself when nothing else is in it.
    pub(super) fn remove(&self) -> Result<(), StateError> {
        for path in
            [self.file(), self.next(), self.path.join(crate::protocol::SOCKET), self.path.join("lock")]
        {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Io { path, error });
                }
                _ => {}
            }
        }
        // Files of others may be left in it; then it stays.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.path.join("accepted.json")
    }

    fn next(&self) -> PathBuf {
        self.path.join("accepted.json.next")
    }
}

impl Pending<'_> {
    /// Puts the state in its place.
    pub(super) fn publish(self) -> Result<(), StateError> {
        let path = self.directory.file();
        fs::rename(self.directory.next(), &path)
            .and_then(|()| File::open(&self.directory.path)?.sync_all())
            .map_err(|error| StateError::Io { path, error })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_published_state_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().join("a/node")).unwrap();
        assert_eq!(directory.load::<Vec<String>>().unwrap(), None);

        directory.prepare(&vec!["one"]).unwrap().publish().unwrap();
        drop(directory);
        let directory = Directory::open(&root.path().join("a/node")).unwrap();

        assert_eq!(directory.load::<Vec<String>>().unwrap(), Some(vec!["one".to_owned()]));
        assert_eq!(mode(&root.path().join("a/node")), 0o700);
        assert_eq!(mode(&directory.file()), 0o600);
    }

    #[test]
    fn a_state_that_was_not_published_leaves_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().join("node")).unwrap();
        directory.prepare(&1).unwrap().publish().unwrap();

        let _ = directory.prepare(&2).unwrap();

        assert_eq!(directory.load::<u32>().unwrap(), Some(1));
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        std::os::unix::fs::symlink(root.path().join("real"), root.path().join("node")).unwrap();

        assert!(matches!(Directory::open(&root.path().join("node")), Err(StateError::Unsafe { .. })));
        assert!(Directory::open(&root.path().join("real")).is_ok());
    }

    #[test]
    fn a_planted_link_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().join("node")).unwrap();
        let victim = root.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.next()).unwrap();

        assert!(directory.prepare(&1).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_is_too_open_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("node");
        DirBuilder::new().mode(0o755).create(&path).unwrap();

        Directory::open(&path).unwrap();

        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn two_agents_cannot_share_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("node");
        let first = Directory::open(&path).unwrap();

        assert!(matches!(Directory::open(&path), Err(StateError::Busy(_))));
        drop(first);
        assert!(Directory::open(&path).is_ok());
    }

    #[test]
    fn a_state_of_another_format_is_named_as_such() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().join("node")).unwrap();
        for text in ["{\"format\":99,\"state\":1}", "garbage", ""] {
            fs::write(directory.file(), text).unwrap();
            assert!(matches!(directory.load::<u32>(), Err(StateError::Format { .. })), "{text}");
        }
    }

    #[test]
    fn nothing_is_left_after_removal() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().join("node")).unwrap();
        directory.prepare(&1).unwrap().publish().unwrap();

        directory.remove().unwrap();

        assert!(!root.path().join("node").exists());
    }
}
