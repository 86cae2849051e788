//! What the programs tell: counters, events.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Map as AyaMap, MapData, RingBuf},
};
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use weir_common::{
    event::Event,
    plain::from_bytes,
    policy::RuleHits,
    reason::{Counter, HOOKS, Hook, Reason, drop_counter},
};

use super::{
    KernelError,
    family::{failed, typed},
    map::Map,
    pins::Pins,
    sys,
};
use crate::{
    compile::RuleKey,
    datapath::{RuleId, RuleOrigin},
    shared_map::SharedMap,
};

/// The hooks in the order of their numbers.
pub const HOOK_LIST: [Hook; HOOKS] =
    [Hook::FromPod, Hook::ToPod, Hook::FromUplink, Hook::ToUplink, Hook::Edge];

/// The counters.
#[derive(Debug)]
pub(super) struct Counters {
    drops: Map<u32, Counter>,
    forwarded: Map<u32, Counter>,
    rule_hits: Map<u32, RuleHits>,
    lost_events: Map<u32, u64>,
}

impl Counters {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            drops: typed(pins, "DROPS")?,
            forwarded: typed(pins, "FORWARDED")?,
            rule_hits: typed(pins, "RULE_HITS")?,
            lost_events: typed(pins, "LOST_EVENTS")?,
        })
    }

    /// Dropped packets by hook and reason, all of them, in the order of their numbers.
    pub(super) fn drops(&self) -> Result<Vec<(Hook, Reason, Counter)>, KernelError> {
        let pairs =
            HOOK_LIST.into_iter().flat_map(|hook| Reason::ALL.iter().map(move |reason| (hook, *reason)));
        let counter = |(hook, reason): (Hook, Reason)| {
            Ok((
                hook,
                reason,
                sum(&self.drops, drop_counter(hook as u32, reason as u32)).map_err(failed("DROPS"))?,
            ))
        };
        pairs.map(counter).collect()
    }

    /// Packets passed on by hook.
    pub(super) fn forwarded(&self) -> Result<Vec<(Hook, Counter)>, KernelError> {
        let counter = |hook| Ok((hook, sum(&self.forwarded, hook as u32).map_err(failed("FORWARDED"))?));
        HOOK_LIST.into_iter().map(counter).collect()
    }

    /// What each rule has decided.
    pub(super) fn rule_hits(
        &self,
        rules: impl Iterator<Item = RuleId>,
    ) -> Result<BTreeMap<RuleId, RuleHits>, KernelError> {
        let capacity = self.rule_hits.fd().info().max_entries;
        let counted = rules.filter(|rule| *rule < capacity);
        let hits = |rule| {
            let of_cpus = self.rule_hits.get_all(&rule).map_err(failed("RULE_HITS"))?;
            Ok((rule, of_cpus.into_iter().fold(RuleHits::default(), RuleHits::plus)))
        };
        counted.map(hits).collect()
    }

    /// Starts the counters of rules anew whose numbers stood for another rule, or for none.
    pub(super) fn reset(
        &self,
        old: &SharedMap<RuleId, RuleOrigin>,
        new: &SharedMap<RuleId, RuleOrigin>,
    ) -> Result<(), KernelError> {
        let capacity = self.rule_hits.fd().info().max_entries;
        let changed = old.differences(new).into_iter().filter(|found| {
            let known = found.before.map(RuleKey::from);
            found.after.map(RuleKey::from).is_some_and(|rule| known != Some(rule))
        });
        let changed: Vec<_> = changed.map(|found| *found.key).filter(|rule| *rule < capacity).collect();
        self.rule_hits.reset(&changed).map_err(failed("RULE_HITS"))
    }

    /// Events that did not fit into the ring buffer.
    pub(super) fn lost_events(&self) -> Result<u64, KernelError> {
        Ok(self.lost_events.get_all(&0).map_err(failed("LOST_EVENTS"))?.into_iter().sum())
    }
}

fn sum(map: &Map<u32, Counter>, index: u32) -> io::Result<Counter> {
    let add = |sum: Counter, each: Counter| Counter {
        packets: sum.packets.wrapping_add(each.packets),
        bytes: sum.bytes.wrapping_add(each.bytes),
    };
    Ok(map.get_all(&index)?.into_iter().fold(Counter::default(), add))
}

/// How often the ring buffer is looked at. The programs wake nobody: a wake-up for each new flow would cost more
/// than all else that the flow does.
const LOOK: Duration = Duration::from_millis(20);

/// The ring buffer of events. It has one reader: two would share the events between them.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let map =
            MapData::from_pin(pins.map("EVENTS")).and_then(|map| RingBuf::try_from(AyaMap::RingBuf(map)));
        let ring = map.map_err(io::Error::other).map_err(failed("EVENTS"))?;
        Ok(Self { ring })
    }

    /// The next event, when there is one.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ring.next().and_then(|bytes| from_bytes(&bytes)) {
                return event;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The log lines of the programs, on their way to the agent's own log.
pub struct ProgramLog {
    lines: EbpfLogger<&'static dyn log::Log>,
    ready: AsyncFd<OwnedFd>,
}

impl fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramLog").finish_non_exhaustive()
    }
}

impl ProgramLog {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Self>, KernelError> {
        if ebpf.map("AYA_LOGS").is_none() {
            return Ok(None);
        }
        let lines = EbpfLogger::init(ebpf).map_err(io::Error::other).map_err(failed("AYA_LOGS"))?;
        let ready = sys::when_readable(lines.as_fd()).map_err(failed("AYA_LOGS"))?;
        Ok(Some(Self { lines, ready }))
    }

    /// Hands on every line, for ever.
    ///
    /// # Errors
    /// When the ring buffer cannot be waited for.
    pub async fn forward(mut self) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            ready.clear_ready();
            self.lines.flush();
        }
    }
}
