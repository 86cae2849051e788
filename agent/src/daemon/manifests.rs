//! Watching manifests: a word when something below them may have changed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tracing::warn;

/// Quiet time after which a burst of changes counts as over: an editor writes, renames and removes.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that does not end is looked at all the same.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Looked at without a word from the kernel, whose queue may have overflowed or whose file system may not tell.
const UNASKED: Duration = Duration::from_secs(30);

/// Sends a word on `changed` whenever a file at or below one of `paths` may have changed, appeared or
/// disappeared. Runs until the receiver is gone.
pub(super) async fn watch(paths: Vec<PathBuf>, changed: mpsc::Sender<()>) {
    let paths: Vec<PathBuf> =
        paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect();
    let (events, mut received) = mpsc::channel(1);
    let interesting = paths.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| concerns(&event, &interesting)) {
            // A full channel already says that something changed.
            let _ = events.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => Some(Watcher { watcher, watched: BTreeMap::new() }),
        Err(error) => {
            warn!(%error, "cannot watch the manifests; looking at them every {UNASKED:?} instead");
            None
        }
    };
    loop {
        if let Some(watcher) = &mut watcher {
            watcher.cover(&paths);
        }
        if let Ok(Some(())) = timeout(UNASKED, received.recv()).await {
            let end = Instant::now() + LONGEST_BURST;
            while Instant::now() < end
                && timeout_at(end.min(Instant::now() + QUIET), received.recv()).await.is_ok()
            {}
        } else if watcher.is_none() {
            tokio::time::sleep(UNASKED).await;
        }
        if let Some(watcher) = &mut watcher {
            // Before the word goes out: what appears meanwhile must not be missed.
            watcher.cover(&paths);
        }
        if changed.send(()).await.is_err() {
            return;
        }
    }
}

/// Whether an event may be a change at or below `paths`, or of a directory above them.
fn concerns(event: &notify::Event, paths: &[PathBuf]) -> bool {
    // Reading the manifests must not look like a change of them.
    if event.kind.is_access() {
        return false;
    }
    let related =
        |changed: &PathBuf| paths.iter().any(|path| changed.starts_with(path) || path.starts_with(changed));
    // An event without a path says that events were lost.
    event.paths.is_empty() || event.paths.iter().any(related)
}

struct Watcher {
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, Watched>,
}

/// A watch belongs to the inode, so that a directory put in the place of another needs a new one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Watched {
    device: u64,
    inode: u64,
    recursive: bool,
}

impl Watcher {
    /// Watches what has to be watched for `paths` as the file system is now.
    fn cover(&mut self, paths: &[PathBuf]) {
        let mut wanted = BTreeMap::new();
        for path in paths {
            for (directory, recursive) in places(path) {
                let Ok(metadata) = std::fs::metadata(&directory) else { continue };
                let (device, inode) = (
                    std::os::unix::fs::MetadataExt::dev(&metadata),
                    std::os::unix::fs::MetadataExt::ino(&metadata),
                );
                let watched: &mut Watched =
                    wanted.entry(directory).or_insert(Watched { device, inode, recursive });
                watched.recursive |= recursive;
            }
        }
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, watched)| wanted.get(*path) != Some(watched))
            .map(|(path, _)| path.clone())
            .collect();
        for path in stale {
            self.watched.remove(&path);
            // The kernel has dropped the watch of a directory that is gone.
            let _ = self.watcher.unwatch(&path);
        }
        for (path, watched) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            let mode = if watched.recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            match self.watcher.watch(&path, mode) {
                Ok(()) => {
                    self.watched.insert(path, watched);
                }
                Err(error) => {
                    warn!(%error, path = %path.display(), "cannot watch; looking at it every {UNASKED:?} instead");
                }
            }
        }
    }
}

/// What to watch for `path`: itself and what is below if it is a directory, and the nearest directory above,
/// where it would appear or be replaced.
fn places(path: &Path) -> Vec<(PathBuf, bool)> {
    let mut places = Vec::new();
    if path.is_dir() {
        places.push((path.to_owned(), true));
    }
    if let Some(parent) = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir()) {
        places.push((parent.to_owned(), false));
    }
    places
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether a word comes soon, and then no more.
    async fn word(changed: &mut mpsc::Receiver<()>) -> bool {
        let soon = timeout(Duration::from_secs(5), changed.recv()).await.is_ok_and(|word| word.is_some());
        while timeout(Duration::from_millis(150), changed.recv()).await.is_ok() {}
        soon
    }

    async fn started(path: PathBuf) -> mpsc::Receiver<()> {
        let (sender, changed) = mpsc::channel(1);
        tokio::spawn(watch(vec![path], sender));
        tokio::time::sleep(Duration::from_millis(50)).await;
        changed
    }

    #[tokio::test]
    async fn a_file_that_is_written_replaced_or_removed_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("shop.yaml");
        fs::write(&file, "a").unwrap();
        let mut changed = started(file.clone()).await;

        fs::write(&file, "b").unwrap();
        assert!(word(&mut changed).await);
        fs::write(root.path().join("new"), "c").unwrap();
        fs::rename(root.path().join("new"), &file).unwrap();
        assert!(word(&mut changed).await);
        fs::remove_file(&file).unwrap();
        assert!(word(&mut changed).await);
    }

    #[tokio::test]
    async fn a_directory_that_disappears_and_comes_back_is_still_watched() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("deep/manifests");
        let mut changed = started(directory.clone()).await;

        fs::create_dir_all(&directory).unwrap();
        assert!(word(&mut changed).await);
        fs::write(directory.join("a.yaml"), "a").unwrap();
        assert!(word(&mut changed).await);
        fs::remove_dir_all(root.path().join("deep")).unwrap();
        assert!(word(&mut changed).await);
        fs::create_dir_all(&directory).unwrap();
        assert!(word(&mut changed).await);
        fs::write(directory.join("b.yaml"), "b").unwrap();
        assert!(word(&mut changed).await);
    }

    #[tokio::test]
    async fn a_burst_is_one_word_and_reading_is_none() {
        let root = tempfile::tempdir().unwrap();
        let mut changed = started(root.path().to_owned()).await;

        for number in 0..50 {
            fs::write(root.path().join(format!("{number}.yaml")), "a").unwrap();
        }
        assert!(timeout(Duration::from_secs(5), changed.recv()).await.is_ok());
        assert!(timeout(Duration::from_millis(200), changed.recv()).await.is_err());

        fs::read(root.path().join("1.yaml")).unwrap();
        assert!(timeout(Duration::from_millis(200), changed.recv()).await.is_err());
    }
}
