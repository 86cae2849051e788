//! What a series of decisions tells of the versions that made them.

/// A series of decisions of which each was made after the one before.
#[derive(Default)]
pub struct Witness {
    /// The latest commit that must have been in force at the last decision.
    commit: u64,
}

impl Witness {
    /// A packet was decided by `version`, while commits from `done` to `started` were in force.
    pub fn see(&mut self, version: u64, done: u64, started: u64, what: &str) {
        let earliest = self.commit.max(done);
        let commit = if earliest % 2 == version { earliest } else { earliest + 1 };
        assert!(
            commit <= started,
            "{what}: decided by version {version}, when {} had been seen and {done} to {started} were in force",
            self.commit
        );
        self.commit = commit;
    }
}
