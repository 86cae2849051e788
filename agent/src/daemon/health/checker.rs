//! The active checks of backends: a task for each, which says when one fails and when it is well again.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, interval_at},
};

use super::{probe, track::Track};
use crate::{cluster::Probe, datapath::Target};

/// A backend's health has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Finding {
    /// The backend.
    pub(in crate::daemon) target: Target,
    /// Why it fails; `None`: it does not any more.
    pub(in crate::daemon) failure: Option<String>,
}

/// The checks that are under way.
#[derive(Debug)]
pub(in crate::daemon) struct Checker {
    runtime: Handle,
    findings: mpsc::Sender<Finding>,
    checks: BTreeMap<Target, Check>,
}

#[derive(Debug)]
struct Check {
    probe: Probe,
    task: AbortHandle,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    /// None yet; they run on `runtime`, and what they find goes to `findings`.
    pub(in crate::daemon) fn new(runtime: Handle, findings: mpsc::Sender<Finding>) -> Self {
        Self { runtime, findings, checks: BTreeMap::new() }
    }

    /// Checks these backends and no others. A check that stays as it is goes on with what it knows.
    pub(in crate::daemon) fn follow(&mut self, wanted: &BTreeMap<Target, Probe>) {
        self.checks.retain(|target, check| wanted.get(target) == Some(&check.probe));
        for (target, probe) in
            wanted.iter().filter(|(target, _)| !self.checks.contains_key(target)).collect::<Vec<_>>()
        {
            let work = run(target.clone(), probe.clone(), self.findings.clone());
            let task = self.runtime.spawn(work).abort_handle();
            self.checks.insert(target.clone(), Check { probe: probe.clone(), task });
        }
    }
}

async fn run(target: Target, probe: Probe, findings: mpsc::Sender<Finding>) {
    let backend = SocketAddr::new(target.backend.address, target.backend.port);
    let mut track = Track::default();
    let mut rounds = interval_at(tokio::time::Instant::now() + offset(&target, &probe), probe.interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let result = probe::check(backend, &probe).await;
        if track.note(result.is_ok(), &probe).is_some() {
            let finding = Finding { target: target.clone(), failure: result.err() };
            if findings.send(finding).await.is_err() {
                return;
            }
        }
    }
}

/// When the first check is made: spread over an interval, but over a second at most, so that the many backends of a
/// start are not all asked at once.
fn offset(target: &Target, probe: &Probe) -> Duration {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let most = probe.interval.min(Duration::from_secs(1)).as_millis() as u64;
    Duration::from_millis(hasher.finish() % most.max(1))
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::timeout};

    use super::*;
    use crate::{
        cluster::{Name, ProbeKind},
        datapath::Backend,
    };

    #[tokio::test]
    async fn a_backend_that_goes_and_comes_back_is_noticed_and_one_that_is_not_checked_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let short = Duration::from_millis(20);
        let probe =
            Probe { kind: ProbeKind::Tcp, interval: short, timeout: short, failures: 2, successes: 2 };
        let target = Target {
            service: Name { namespace: "demo".into(), name: "web".into() },
            backend: Backend { address: address.ip(), port: address.port() },
        };
        let wanted = BTreeMap::from([(target.clone(), probe)]);
        let (sender, mut findings) = mpsc::channel(8);
        let mut checker = Checker::new(Handle::current(), sender);
        let mut next = async || timeout(Duration::from_secs(10), findings.recv()).await.unwrap().unwrap();

        checker.follow(&wanted);
        drop(listener);
        assert_eq!(
            next().await,
            Finding { target: target.clone(), failure: Some("connection refused".into()) }
        );
        let listener = TcpListener::bind(address).await.unwrap();
        assert_eq!(next().await, Finding { target, failure: None });

        checker.follow(&BTreeMap::new());
        drop(listener);
        assert!(timeout(Duration::from_millis(300), findings.recv()).await.is_err());
    }
}
