//! Tags and turns of the flow table, one side at a time: programs that look entries up while another processor does nothing
//! but write them by the rules of [`weir_common::flow`], and programs that write entries while another does nothing
//! but read them so. Either is much nearer to the instants that matter than packets can be.

use std::{
    collections::HashMap,
    mem::offset_of,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread,
    time::Duration,
};

use weir::kernel::Program;
use weir_common::{
    addr::{Addr, Be16, V4, V6},
    flow::{
        BUSY, FlowEntry, FlowKey, TAG_CHANGE, TAG_USED, TAG_VERSION, TAG_WAY, TURN_BUSY, TURN_CHANGE,
        TURN_PROTOCOL, Tuple, WAYS, home_of, tag_of,
    },
};
use weir_tests::packets::{
    Ends, Lab, Node,
    action::{REDIRECT, SHOT},
    in_lab_of, read_tuple,
};

use super::processors::{Direction, cluster, directions, next, packets, processors, stay_on};

/// Bits of a tag that come from the hash.
const TAG_HASH: u64 = !(TAG_WAY | TAG_VERSION);
/// Threads on each processor that do nothing but wake up.
const SLEEPERS: usize = 4;

#[test]
fn a_packet_follows_no_entry_that_is_written_while_it_looks() {
    in_lab_of(1, "n1", &cluster(), |lab| {
        for (family, map) in ["FLOWS_V4", "FLOWS_V6"].into_iter().enumerate() {
            let node = lab.node();
            let table = node.share(map).expect("the table");
            let place = Place::of_answer(lab, family, table.words(0));
            let ways = place.rewritten();
            // What each of the two ways makes of the packet; no other thing may come of it.
            let [this, other] = [0, 1].map(|way| {
                place.write(&ways[way], way as u64);
                place.send(node).expect("it is in the table")
            });
            let differing = this.iter().zip(&other).filter(|(this, other)| this != other).count();
            assert!(differing >= 4, "addresses, ports and MAC address differ, and checksums");

            let [mut by_this, mut by_other, mut missed] = [0_u64; 3];
            while_another(
                |stop| place.keep_writing(&ways, stop),
                || {
                    for _ in 0..packets() / 4 {
                        match place.send(node) {
                            None => missed += 1,
                            Some(frame) if frame == this => by_this += 1,
                            Some(frame) if frame == other => by_other += 1,
                            Some(frame) => panic!(
                                "neither {:?} nor {:?}: {:?} to {:02x?}",
                                read_tuple(&this),
                                read_tuple(&other),
                                read_tuple(&frame),
                                &frame[..6]
                            ),
                        }
                    }
                },
            );
            let least = packets() / 10_000;
            assert!(
                by_this > least && by_other > least && missed > least,
                "{by_this} packets by one entry, {by_other} by the other, {missed} by none"
            );
        }
    });
}

#[test]
fn no_reader_sees_half_an_entry_that_a_program_writes() {
    in_lab_of(1, "n1", &cluster(), |lab| {
        let (all, node) = (directions(lab), lab.node());
        let known: HashMap<Ends, Ends> = all
            .iter()
            .map(|Direction { frame, becomes, .. }| (read_tuple(frame), read_tuple(becomes)))
            .collect();
        let tables = ["FLOWS_V4", "FLOWS_V6"].map(|map| node.share(map).expect("the table"));
        let (mut read, mut state) = ([0_u64; 2], 1);
        while_another(
            |stop| {
                let mut state = 2;
                while !stop.load(Ordering::Relaxed) {
                    let Direction { at, frame, .. } = &all[next(&mut state) as usize % all.len()];
                    node.run(Program::FromPod, *at, frame).expect("the program runs");
                }
            },
            || {
                for _ in 0..packets() {
                    let way = next(&mut state) as usize;
                    let by = if (way / WAYS / 2).is_multiple_of(2) { By::Tag } else { By::Turn };
                    let whole = match way / WAYS % 2 {
                        0 => read_entry::<V4>(tables[0].words(0), way % WAYS, by),
                        _ => read_entry::<V6>(tables[1].words(0), way % WAYS, by),
                    };
                    let Some(Read { before, hash, key, to }) = whole else { continue };
                    if by == By::Tag {
                        assert_eq!(before & TAG_HASH, tag_of(hash), "another flow's entry: {key:?}");
                    }
                    assert_eq!(known.get(&key), Some(&to), "half an entry, by its {by:?}: {key:?}");
                    read[by as usize] += 1;
                }
            },
        );
        assert!(read.iter().all(|read| *read > packets() / 200), "{read:?} entries were read");
    });
}

#[test]
fn a_flow_goes_home_when_the_one_that_lived_there_has_timed_out() {
    /// Ticks in more than six hours, at any frequency of the kernel's.
    const LONG: u32 = 23_000_000;
    in_lab_of(1, "n1", &cluster(), |lab| {
        let (all, node) = (directions(lab), lab.node());
        let table = node.share("FLOWS_V4").expect("the table");
        let set = table.words(0);
        let entries = || set[WAYS..].chunks(size_of::<FlowEntry<V4>>() / size_of::<u64>());
        let send = |Direction { at, frame, .. }: &Direction| {
            node.run(Program::FromPod, *at, frame).expect("the program runs");
        };
        let (mut at_home, mut beside) = (0, 0);
        for opener in all.iter().step_by(2).filter(|direction| direction.frame[14] >> 4 == 4) {
            all.iter().for_each(send);
            for (way, entry) in (0..).zip(entries()) {
                let (word, shift) = place(offset_of!(FlowEntry<V4>, seen));
                // The last one's is the oldest.
                entry[word].fetch_sub(u64::from(LONG + way) << shift, Ordering::SeqCst);
            }
            let before: Vec<_> = entries().map(bytes).collect();
            send(opener);
            let changed = |way: &usize| bytes(entries().nth(*way).unwrap()) != before[*way];
            for way in (0..WAYS).filter(changed) {
                let Read { hash, .. } = read_entry::<V4>(set, way, By::Turn).expect("it is whole");
                if home_of(hash) == way { at_home += 1 } else { beside += 1 }
            }
        }
        // Of two entries that are written, the second may find the first at its home.
        assert!(at_home > 4 * beside && at_home > 8, "{at_home} entries at home, {beside} beside");
    });
}

/// Does one thing on one processor until another is done on another, and timers interrupt both all the time: between
/// two loads of the one, or two stores, the other then does very much.
fn while_another(background: impl FnOnce(&AtomicBool) + Send, test: impl FnOnce() + Send) {
    let (processors, stop) = (processors(), AtomicBool::new(false));
    let (first, last) = (processors[0], processors[processors.len() - 1]);
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(last);
            background(&stop);
        });
        for processor in [first, last].repeat(SLEEPERS) {
            let stop = &stop;
            scope.spawn(move || {
                stay_on(processor);
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_nanos(1));
                }
            });
        }
        let test = scope.spawn(|| {
            stay_on(first);
            test();
        });
        let result = test.join();
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Where the entry of a packet stands. One that is not there is dropped, and opens no flow.
struct Place<'a> {
    packet: Direction,
    tag: &'a AtomicU64,
    way: u64,
    entry: &'a [AtomicU64],
}

/// What stands in an entry, and the tag of its key.
type Written = (u64, Vec<u64>);

impl<'a> Place<'a> {
    /// Of an answer to the first service, which opens a flow.
    fn of_answer(lab: &Lab, family: usize, set: &'a [AtomicU64]) -> Self {
        let mut first: Vec<_> = directions(lab).into_iter().skip(2 * family).take(2).collect();
        let packet = first.remove(1);
        for Direction { at, frame, .. } in [&first[0], &packet] {
            let outcome = lab.node().run(Program::FromPod, *at, frame).expect("the program runs");
            assert_eq!(outcome.verdict, REDIRECT);
        }
        let (tags, entries) = set.split_at(WAYS);
        let ends = read_tuple(&packet.frame);
        let key = [octets(ends.src), octets(ends.dst)].concat();
        let ways = tags.iter().zip(entries.chunks(entries.len() / WAYS));
        let is_it = |entry: &[AtomicU64]| bytes(entry).starts_with(&key);
        let (way, (tag, entry)) =
            (0..).zip(ways).find(|(_, (_, entry))| is_it(entry)).expect("it is recorded");
        Self { packet, tag, way, entry }
    }

    /// The entry as it is, the same flow led another way, and a third one that is of another flow.
    fn rewritten(&self) -> [Written; 3] {
        let tag = self.tag.load(Ordering::SeqCst) & TAG_HASH;
        let change = if self.packet.frame[14] >> 4 == 4 { change::<V4> } else { change::<V6> };
        let here = bytes(self.entry);
        let mut there = here.clone();
        change(&mut there, false);
        let mut foreign = there.clone();
        change(&mut foreign, true);
        let words = |bytes: Vec<u8>| {
            bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
        };
        [(tag, words(here)), (tag, words(there)), (tag ^ 1 << 40, words(foreign))]
    }

    /// As a program does it: takes the way, marks the entry, writes it, publishes its turn and its tag.
    fn write(&self, (tag, words): &Written, changes: u64) {
        self.tag.swap(BUSY | self.way, Ordering::SeqCst);
        let (at, shift) = place_of_turn(self.entry.len());
        self.entry[at].swap(words[at] | u64::from(TURN_BUSY) << shift, Ordering::SeqCst);
        for (number, (place, word)) in self.entry.iter().zip(words).enumerate() {
            if number == at {
                continue;
            }
            // As long as an interrupt would take, with half of it written: most of the address and port, no MAC address.
            if number == words.len() - 1 {
                pause(changes);
            }
            place.store(*word, Ordering::Release);
        }
        let turn = changes * u64::from(TURN_CHANGE) % (1 << 32);
        self.entry[at]
            .swap(words[at] & !(u64::from(!TURN_PROTOCOL) << shift) | turn << shift, Ordering::SeqCst);
        self.tag.swap(tag | ((changes * TAG_CHANGE) & TAG_VERSION) | self.way, Ordering::SeqCst);
    }

    fn keep_writing(&self, ways: &[Written], stop: &AtomicBool) {
        let (mut state, mut changes) = (1, 0);
        while !stop.load(Ordering::Relaxed) {
            changes += 1;
            self.write(&ways[next(&mut state) as usize % ways.len()], changes);
            // Without a pause, a packet would never find it.
            pause(next(&mut state));
        }
    }

    /// What becomes of the packet, if it passes.
    fn send(&self, node: &Node) -> Option<Vec<u8>> {
        let Direction { at, frame, .. } = &self.packet;
        let outcome = node.run(Program::FromPod, *at, frame).expect("the program runs");
        match outcome.verdict {
            REDIRECT => Some(outcome.data),
            SHOT => None,
            verdict => panic!("the program returned {verdict}"),
        }
    }
}

/// Up to about the time that a packet takes.
fn pause(random: u64) {
    for _ in 0..random % 64 {
        std::hint::spin_loop();
    }
}

/// Leads an entry another way: from another address and port, to another MAC address. Or makes it another flow's too.
fn change<A: Addr>(entry: &mut [u8], is_foreign: bool) {
    let to = offset_of!(FlowEntry<A>, to);
    // Different bits, or the changes of address and port may make up for one another in the checksum.
    entry[to + size_of::<A>() - 1] ^= 0x40;
    entry[to + offset_of!(Tuple<A>, sport) + 1] ^= 0x04;
    entry[offset_of!(FlowEntry<A>, mac) + 5] ^= 0x40;
    if is_foreign {
        entry[offset_of!(FlowEntry<A>, key) + offset_of!(FlowKey<A>, dport)] ^= 0x40;
    }
}

/// In an entry of so many words, the one that holds its turn, and where in it that begins.
fn place_of_turn(words: usize) -> (usize, usize) {
    place(match words * size_of::<u64>() {
        size if size == size_of::<FlowEntry<V4>>() => offset_of!(FlowKey<V4>, protocol),
        _ => offset_of!(FlowKey<V6>, protocol),
    })
}

/// The word that a byte stands in, and the bit in that.
const fn place(byte: usize) -> (usize, usize) {
    (byte / size_of::<u64>(), byte % size_of::<u64>() * 8)
}

/// What a reader looks at before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// As the agent, which wants every entry.
    Tag,
    /// As a program, which wants one.
    Turn,
}

/// An entry as a reader finds it between two looks.
struct Read {
    /// The tag or turn.
    before: u64,
    hash: u64,
    key: Ends,
    to: Ends,
}

/// Reads an entry; `None` where it is free, or was written meanwhile.
fn read_entry<A: Octets>(set: &[AtomicU64], way: usize, by: By) -> Option<Read> {
    let words = size_of::<FlowEntry<A>>() / size_of::<u64>();
    let entry = &set[WAYS + way * words..][..words];
    let (at, shift) = place_of_turn(words);
    let look = || match by {
        By::Tag => set[way].load(Ordering::SeqCst),
        By::Turn => entry[at].load(Ordering::SeqCst) >> shift & u64::from(u32::MAX),
    };
    let before = look();
    if by == By::Tag && before & TAG_USED == 0 || by == By::Turn && before & u64::from(TURN_BUSY) != 0 {
        return None;
    }
    let entry = bytes(entry);
    fence(Ordering::SeqCst);
    if look() != before {
        return None;
    }
    // Nobody has been there.
    if entry.iter().all(|byte| *byte == 0) {
        return None;
    }
    let address = |at: usize| A::read(&entry[at..at + size_of::<A>()]);
    let word = |at: usize| u32::from_ne_bytes(entry[at..at + 4].try_into().unwrap());
    let port = |at: usize| u16::from_be_bytes(entry[at..at + 2].try_into().unwrap());
    let ends = |at: usize| Ends {
        src: address(at).0,
        dst: address(at + offset_of!(Tuple<A>, dst)).0,
        sport: port(at + offset_of!(Tuple<A>, sport)),
        dport: port(at + offset_of!(Tuple<A>, dport)),
    };
    let key = ends(0);
    let hash = FlowKey {
        src: address(offset_of!(FlowKey<A>, src)).1,
        dst: address(offset_of!(FlowKey<A>, dst)).1,
        sport: Be16::new(key.sport),
        dport: Be16::new(key.dport),
        scope: word(offset_of!(FlowKey<A>, scope)),
        protocol: word(offset_of!(FlowKey<A>, protocol)) & TURN_PROTOCOL,
    }
    .hash();
    Some(Read { before, hash, key, to: ends(offset_of!(FlowEntry<A>, to)) })
}

/// An address out of memory.
trait Octets: Addr {
    fn read(octets: &[u8]) -> (IpAddr, Self);
}

impl Octets for V4 {
    fn read(octets: &[u8]) -> (IpAddr, Self) {
        let octets: [u8; 4] = octets.try_into().unwrap();
        (octets.into(), Self::from_octets(octets))
    }
}

impl Octets for V6 {
    fn read(octets: &[u8]) -> (IpAddr, Self) {
        let octets: [u8; 16] = octets.try_into().unwrap();
        (octets.into(), Self::from_octets(octets))
    }
}

fn bytes(words: &[AtomicU64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.load(Ordering::Acquire).to_ne_bytes()).collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
