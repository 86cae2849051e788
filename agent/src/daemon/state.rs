//! The state directory: what an agent needs to start again.
//!
//! One file holds the accepted state as a whole. It is written beside the old one, made durable, and then
//! renamed over it: after a crash there is the old state or the new one, never something between.
//!
//! A change of a few objects is a line of a second file, made durable before the kernel is touched and cut off
//! again when the kernel refuses it. A line without its end is one that a crash cut short, and no client was
//! told of it. The second file belongs to one writing of the first, whose generation it names; that of an
//! earlier one says nothing.

use std::{
    cell::Cell,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, Read as _, Seek as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

/// Version of the format of the state file.
const FORMAT: u32 = 2;
/// Bytes of changes after which the state is better written as a whole.
const MANY_CHANGES: u64 = 4 << 20;

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
    /// Of the state that was published last; 0: none was.
    generation: Cell<u64>,
    _lock: Flock<File>,
}

#[derive(Serialize, serde::Deserialize)]
struct Versioned<T> {
    format: u32,
    generation: u64,
    state: T,
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
    #[serde(default)]
    generation: u64,
}

/// The first line of the changes.
#[derive(Serialize, serde::Deserialize)]
struct Since {
    generation: u64,
}

/// A state that is durable but not yet in its place.
#[must_use = "a state that is not published is lost"]
#[derive(Debug)]
pub(super) enum Pending<'a> {
    /// A state as a whole.
    Whole(&'a Directory, u64),
    /// A change, and where it begins in its file.
    Change(Option<(File, u64)>),
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
            Ok(lock) => Ok(Self { path: path.to_owned(), generation: Cell::new(0), _lock: lock }),
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
        let Format { format, generation } =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if format != FORMAT {
            return Err(broken(format!("its format is {format}, this release writes {FORMAT}")));
        }
        let versioned: Versioned<T> =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        self.generation.set(generation);
        Ok(Some(versioned.state))
    }

    /// The changes of the state that was loaded, in order.
    pub(super) fn load_changes<T: DeserializeOwned>(&self) -> Result<Vec<T>, StateError> {
        let path = self.changes();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StateError::Io { path, error }),
        };
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let since = lines.next().and_then(|line| serde_json::from_str::<Since>(line).ok());
        if since.is_none_or(|since| since.generation != self.generation.get()) {
            return Ok(Vec::new());
        }
        let broken =
            |error: serde_json::Error| StateError::Format { path: path.clone(), reason: error.to_string() };
        lines.map(|line| serde_json::from_str(line).map_err(broken)).collect()
    }

    /// Whether so much has changed since the state was written as a whole that it should be again.
    pub(super) fn has_many_changes(&self) -> bool {
        fs::metadata(self.changes()).is_ok_and(|file| file.len() > MANY_CHANGES)
    }

    /// Makes a change of the published state durable. What can fail for want of space fails here.
    pub(super) fn append<T: Serialize>(&self, change: &T) -> Result<Pending<'_>, StateError> {
        let path = self.changes();
        let write = || {
            let mut file = private().read(true).create(true).truncate(false).open(&path)?;
            let mut first = String::new();
            io::BufReader::new(&file).take(256).read_line(&mut first)?;
            let since = serde_json::to_string(&Since { generation: self.generation.get() })? + "\n";
            if first != since {
                file.set_len(0)?;
                file.write_all_at(since.as_bytes(), 0)?;
            }
            let end = file.seek(io::SeekFrom::End(0))?;
            let mut line = serde_json::to_vec(change)?;
            line.push(b'\n');
            let written = file.write_all(&line).and_then(|()| file.sync_data());
            if written.is_err() {
                file.set_len(end)?;
            }
            written.map(|()| Pending::Change(Some((file, end))))
        };
        write().map_err(|error| StateError::Io { path: path.clone(), error })
    }

    /// Makes `state` durable beside the one in force. What can fail for want of space fails here.
    pub(super) fn prepare<T: Serialize>(&self, state: &T) -> Result<Pending<'_>, StateError> {
        let path = self.next();
        let generation = self.generation.get() + 1;
        let write = || {
            let file = private().create(true).truncate(true).open(&path)?;
            let mut file = io::BufWriter::with_capacity(1 << 16, file);
            serde_json::to_writer(&mut file, &Versioned { format: FORMAT, generation, state })?;
            file.into_inner()?.sync_all()
        };
        write().map_err(|error| StateError::Io { path: path.clone(), error })?;
        Ok(Pending::Whole(self, generation))
    }

    /// Removes everything that an agent left in the directory, and the directory itself when nothing else is in it.
    pub(super) fn remove(&self) -> Result<(), StateError> {
        for path in [
            self.file(),
            self.next(),
            self.changes(),
            self.path.join(crate::protocol::SOCKET),
            self.path.join("lock"),
        ] {
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

    fn changes(&self) -> PathBuf {
        self.path.join("changes.jsonl")
    }

    fn next(&self) -> PathBuf {
        self.path.join("accepted.json.next")
    }
}

impl Pending<'_> {
    /// Puts the state in its place.
    pub(super) fn publish(mut self) -> Result<(), StateError> {
        match &mut self {
            Self::Change(change) => {
                *change = None;
                Ok(())
            }
            Self::Whole(directory, generation) => {
                let path = directory.file();
                fs::rename(directory.next(), &path)
                    .and_then(|()| File::open(&directory.path)?.sync_all())
                    .map_err(|error| StateError::Io { path, error })?;
                directory.generation.set(*generation);
                Ok(())
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Self::Change(Some((file, end))) = self
            && let Err(error) = file.set_len(*end).and_then(|()| file.sync_data())
        {
            tracing::error!(%error, "a refused change could not be taken back from the state; a restarted agent would enforce it");
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

#[cfg(test)]
mod tests;
