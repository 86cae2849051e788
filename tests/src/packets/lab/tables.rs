//! What the maps hold: counters, flows, fragments, events.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weir::{datapath::RuleOrigin, kernel::Flow};
use weir_common::{
    event::Event,
    policy::RuleHits,
    reason::{Hook, Reason},
};

use super::{
    super::{Ends, Node},
    Lab,
};

/// Packets by hook, and by the reason for which they were dropped, if they were.
pub(super) type Counters = BTreeMap<(Hook, Option<Reason>), u64>;

impl Lab {
    /// What each rule has decided, by what it comes from; those that have decided something.
    pub fn hits(&self) -> Vec<(RuleOrigin, RuleHits)> {
        let hits = self.node.kernel().rule_hits().expect("the counters").into_iter();
        hits.filter(|(_, hits)| *hits != RuleHits::default())
            .map(|(rule, hits)| (self.datapath.rules[&rule].clone(), hits))
            .collect()
    }

    /// What has been counted since the last look, by hook and reason.
    pub fn counted(&self) -> Vec<((Hook, Option<Reason>), u64)> {
        let before = self.counters.replace(counters(&self.node));
        let after = self.counters.borrow();
        let counted = after.iter().map(|(key, packets)| (*key, packets - before[key]));
        counted.filter(|(_, packets)| *packets != 0).collect()
    }

    /// Takes what is recorded of IPv4 packets like these out of the flow table, as another flow may.
    pub fn forget(&self, packets: &Ends) {
        self.node.forget(packets).expect("the table can be written");
    }

    /// Writes what is recorded of IPv4 packets like these into every way of its set, as writers that did not
    /// see one another may do with two.
    pub fn multiply(&self, packets: &Ends) {
        self.node.multiply(packets).expect("the table can be written");
    }

    /// Empties the flow tables, and those of fragments.
    pub fn forget_all(&self) {
        self.node.forget_all().expect("the tables can be written");
    }

    /// Empties the tables of clients that services remember.
    pub fn forget_clients(&self) {
        self.node.forget_clients().expect("the tables can be written");
    }

    /// Empties the table of fragments that wait for their first.
    pub fn forget_waiting(&self) {
        self.node.forget_waiting().expect("the table can be written");
    }

    /// Every flow in the table.
    pub fn flows(&self) -> Vec<Flow> {
        self.node.kernel().flows().expect("the flow table").iter().collect()
    }

    /// Every event since the last look. Ends when none came for a while.
    pub fn events(&self) -> Vec<Event> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let end = Instant::now() + Duration::from_secs(5);
        runtime.block_on(async {
            let mut reader = self.node.kernel().events().expect("the ring buffer");
            let mut events = Vec::new();
            while Instant::now() < end {
                match tokio::time::timeout(Duration::from_millis(200), reader.next()).await {
                    Ok(event) => events.push(event),
                    Err(_) => break,
                }
            }
            events
        })
    }
}

pub(super) fn counters(node: &Node) -> Counters {
    let dropped = node.kernel().drops().expect("counters").into_iter();
    let dropped = dropped.map(|(hook, reason, counter)| ((hook, Some(reason)), counter.packets));
    let passed = node.kernel().forwarded().expect("counters").into_iter();
    dropped.chain(passed.map(|(hook, counter)| ((hook, None), counter.packets))).collect()
}
