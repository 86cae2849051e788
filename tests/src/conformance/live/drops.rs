//! What the agents say was dropped: `weir observe`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, ChildStdout},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use weir::protocol::Observation;
use weir_common::header::protocol;

use crate::live;

/// Reasons by protocol number and source.
type Reasons = Arc<Mutex<BTreeMap<(u8, SocketAddr), String>>>;

/// Follows all agents that run. Every denied connection is told apart by the address and port that it comes from.
pub(super) struct Drops {
    reasons: Reasons,
    observer: Child,
    reader: Option<JoinHandle<()>>,
}

impl Drops {
    /// Starts to follow.
    pub(super) fn follow() -> Result<Self> {
        let mut observer = live::spawn(&["observe", "--verdict", "dropped", "--output", "json"])?;
        let output = observer.stdout.take().context("its output is piped")?;
        let reasons = Reasons::default();
        let told = reasons.clone();
        let reader = thread::spawn(move || read(output, &told));
        Ok(Self { reasons, observer, reader: Some(reader) })
    }

    /// Why the first packet of a connection was dropped, if it was.
    pub(super) fn reason(&self, number: u8, from: SocketAddr) -> Option<String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).get(&(number, from)).cloned()
    }

    /// Forgets what was told, so that ports may be used again.
    pub(super) fn forget(&self) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        let _ = self.observer.kill();
        let _ = self.observer.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(output: ChildStdout, reasons: &Reasons) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let Ok(seen) = serde_json::from_str::<Observation>(&line) else { continue };
        if let Some((from, why)) = told(&seen) {
            reasons.lock().unwrap_or_else(PoisonError::into_inner).insert(from, why);
        }
    }
}

fn told(seen: &Observation) -> Option<((u8, SocketAddr), String)> {
    let number = match seen.protocol.as_deref()? {
        "TCP" => protocol::TCP,
        "UDP" => protocol::UDP,
        "SCTP" => protocol::SCTP,
        _ => return None,
    };
    let source = seen.source.as_ref()?;
    let address: IpAddr = source.address;
    let deciders = [("egress", &seen.egress), ("ingress", &seen.ingress)];
    let deciders = deciders
        .into_iter()
        .filter_map(|(direction, decider)| Some(format!("; {direction}: {}", decider.as_ref()?.text)));
    let why = deciders.fold(seen.reason.clone().unwrap_or_default(), |text, decider| text + &decider);
    Some(((number, SocketAddr::new(address, source.port)), why))
}
