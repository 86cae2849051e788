//! A network namespace for one test at a time.

use std::{
    panic::resume_unwind,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};

use nix::sched::{CloneFlags, unshare};

/// Runs `work` in a network namespace of its own, which is gone afterwards. One at a time: what is loaded
/// takes memory, and the verifier a CPU.
pub fn in_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `ip` with these words.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip, of iproute2, is needed");
    assert!(status.success(), "ip {arguments}");
}
