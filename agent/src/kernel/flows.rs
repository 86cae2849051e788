//! The flow tables, as they are while programs go on writing to them.

use std::{
    net::SocketAddr,
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use weir_common::{
    addr::{V4, V6},
    flow::{FlowSet, TAG_USED, TURN_PROTOCOL, Tuple, WAYS, elapsed, state},
    header::protocol,
    plain::Plain,
};

use super::{
    KernelError,
    family::{Ip, failed},
    load::{jiffies_per_second, open},
    pins::Pins,
    sys::{self, Mapped},
};

/// How far, in jiffies, a stamp may be from the packet's time.
const ROUNDING: u32 = 64;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source that packets come with.
    pub src: SocketAddr,
    /// Destination that packets come with.
    pub dst: SocketAddr,
    /// Source that packets leave with.
    pub to_src: SocketAddr,
    /// Destination that packets leave with.
    pub to_dst: SocketAddr,
    /// IP protocol number.
    pub protocol: u32,
    /// Interface of the pod that sends; 0: through the node's stack.
    pub scope: u32,
    /// Interface that packets are handed to; 0: to the node's stack.
    pub ifindex: u32,
    /// One of [`state`].
    pub state: u8,
    /// Bits of [`weir_common::flow::flags`].
    pub flags: u16,
    /// Epoch of the decision.
    pub epoch: u32,
    /// Time of the last packet: low half of the kernel's jiffies.
    pub seen: u32,
    /// Rule that decided for the sending pod.
    pub egress_rule: u32,
    /// Rule that decided for the receiving pod.
    pub ingress_rule: u32,
}

impl Flow {
    /// How long no packet has come, and how long the entry lives on if none comes; `None`: it is dead.
    pub fn times(&self, clock: &Clock) -> Option<(Duration, Duration)> {
        // Stamps are rounded, some of them into the future.
        let idle = match elapsed(clock.jiffies, self.seen) {
            future if future > u32::MAX - ROUNDING => 0,
            idle => idle,
        };
        let timeout = state::timeout(self.state, self.protocol == u32::from(protocol::TCP)) * clock.hertz;
        Some((clock.span(idle), clock.span(timeout.checked_sub(idle)?)))
    }
}

/// The kernel's jiffies, which entries are stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Their low half, now.
    pub jiffies: u32,
    /// How many there are in a second.
    pub hertz: u32,
}

impl Clock {
    pub(super) fn read() -> Result<Self, KernelError> {
        let failed =
            |error| KernelError::Load { error: format!("cannot read the kernel's clock: {error}"), hint: "" };
        Ok(Self { jiffies: sys::jiffies().map_err(failed)?, hertz: jiffies_per_second()? })
    }

    fn span(&self, jiffies: u32) -> Duration {
        Duration::from_millis(u64::from(jiffies) * 1000 / u64::from(self.hertz.max(1)))
    }
}

/// The flow tables in memory.
#[derive(Debug)]
pub struct Flows {
    v4: Mapped,
    v6: Mapped,
}

impl Flows {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let map = |name| open(pins, name)?.map().map_err(failed(name));
        Ok(Self { v4: map("FLOWS_V4")?, v6: map("FLOWS_V6")? })
    }

    /// Every entry there is, dead ones too. Programs go on; an entry that changes while it is read is left out.
    pub fn iter(&self) -> impl Iterator<Item = Flow> {
        flows::<V4>(&self.v4).chain(flows::<V6>(&self.v6))
    }
}

/// Tags, entries, and the tags again, in this order: an entry whose tag is the same before and after is whole.
fn flows<A: Ip>(table: &Mapped) -> impl Iterator<Item = Flow>
where
    FlowSet<A>: Plain,
{
    (0..table.len()).flat_map(move |index| {
        let before: [u64; WAYS] = table.read(index);
        // Most sets of most tables are empty: 64 bytes of each are read.
        let set = before.iter().any(|tag| tag & TAG_USED != 0).then(|| {
            fence(Ordering::Acquire);
            let set: FlowSet<A> = table.read(index);
            fence(Ordering::Acquire);
            (set, table.read(index))
        });
        set.into_iter().flat_map(move |(set, after)| whole(before, after).map(move |way| flow(&set, way)))
    })
}

/// The ways that held one entry all the time between two looks at their tags.
fn whole(before: [u64; WAYS], after: [u64; WAYS]) -> impl Iterator<Item = usize> {
    (0..WAYS).filter(move |&way| before[way] & TAG_USED != 0 && before[way] == after[way])
}

fn flow<A: Ip>(set: &FlowSet<A>, way: usize) -> Flow {
    let entry = &set.entries[way];
    let source = |tuple: &Tuple<A>| SocketAddr::new(tuple.src.address(), tuple.sport.get());
    let destination = |tuple: &Tuple<A>| SocketAddr::new(tuple.dst.address(), tuple.dport.get());
    let from = entry.key.tuple();
    Flow {
        src: source(from),
        dst: destination(from),
        to_src: source(&entry.to),
        to_dst: destination(&entry.to),
        protocol: entry.key.protocol & TURN_PROTOCOL,
        scope: entry.key.scope,
        ifindex: entry.ifindex,
        state: entry.state,
        flags: entry.flags,
        epoch: entry.epoch,
        seen: entry.seen,
        egress_rule: entry.egress_rule,
        ingress_rule: entry.ingress_rule,
    }
}

#[cfg(test)]
mod tests {
    use weir_common::flow::{BUSY, TAG_CHANGE, tag_of};

    use super::*;

    const CLOCK: Clock = Clock { jiffies: 10_000, hertz: 100 };

    fn established(protocol: u8, seen: u32) -> Flow {
        let nobody = "10.0.0.1:1".parse().unwrap();
        Flow {
            src: nobody,
            dst: nobody,
            to_src: nobody,
            to_dst: nobody,
            protocol: protocol.into(),
            scope: 0,
            ifindex: 0,
            state: state::ESTABLISHED,
            flags: 0,
            epoch: 1,
            seen,
            egress_rule: 0,
            ingress_rule: 0,
        }
    }

    #[test]
    fn an_entry_whose_tag_changes_while_it_is_read_is_left_out() {
        let tag = tag_of(0x1234_5678_9abc_def0);
        let mut before = [0; WAYS];
        before[1..5].copy_from_slice(&[tag, tag | 2, tag | 3, BUSY]);
        let mut after = before;
        after[2] += TAG_CHANGE;
        after[3] = BUSY;
        after[6] = tag | 6;

        assert_eq!(whole(before, after).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn an_entry_lives_as_long_as_its_state_says() {
        let seconds = |idle, left| Some((Duration::from_secs(idle), Duration::from_secs(left)));
        assert_eq!(established(protocol::UDP, 10_000 - 3_000).times(&CLOCK), seconds(30, 90));
        assert_eq!(established(protocol::UDP, 10_000_u32.wrapping_sub(12_001)).times(&CLOCK), None);
        assert_eq!(
            established(protocol::TCP, 10_000_u32.wrapping_sub(12_001)).times(&CLOCK).map(|t| t.0.as_secs()),
            Some(120)
        );
    }

    #[test]
    fn a_stamp_of_the_near_future_is_now() {
        let (idle, _) = established(protocol::TCP, 10_063).times(&CLOCK).unwrap();
        assert_eq!(idle, Duration::ZERO);
    }
}
