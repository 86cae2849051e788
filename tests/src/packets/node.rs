//! The kernel side of one node, and its programs to be run on packets.

use std::{
    collections::BTreeMap,
    env, fs,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Context as _;
use weir::{
    kernel::{
        Kernel, Options, Program, XdpMode, detach_all,
        map::Map,
        pins::Pins,
        sys::{MapFd, Outcome, Packet, Shared, object_get, test_run, test_run_xdp},
    },
    plan::{PerFamily, Sizes},
};
use weir_common::{
    addr::{Addr, Be16, V4, V6},
    early::{self, EarlySet},
    flow::{FREE, FlowEntry, FlowKey, FlowSet, Fragment, FragmentKey, TAG_WAY, WAYS},
    plain::Plain,
    service::{Affinity, AffinityKey},
    state::events,
};

use super::Ends;

/// Where a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The interface whose program sees it.
    pub ifindex: u32,
    /// The interface by which it came to the node; 0: the node itself sent it.
    pub ingress: u32,
}

/// A node whose maps and pins are gone with it.
#[derive(Debug)]
pub struct Node {
    /// Closed before the pins are removed.
    kernel: Option<Kernel>,
    programs: Programs,
    pins: PathBuf,
}

/// The programs of a node, for other threads to run them while it is changed.
#[derive(Clone, Debug, Default)]
pub struct Programs(Arc<BTreeMap<Program, OwnedFd>>);

impl Node {
    /// Loads the programs in the network namespace of this thread, with flow tables of `sets` sets, a power of
    /// two. The other tables are small, to be loaded fast.
    pub fn open(sets: u32) -> anyhow::Result<Self> {
        Self::telling_of(events::DROPS | events::FLOWS, sets)
    }

    /// The same, with programs that tell of these events.
    pub fn telling_of(events: u32, sets: u32) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/weir-packets-{}-{number}/node", process::id()));
        // Who has many flows has large rings, two of each while one is changed for the other.
        let rings = (sets * 32).max(1 << 18);
        let sizes = Sizes {
            flows: PerFamily { v4: sets, v6: sets },
            fragments: PerFamily { v4: (sets / 8).max(64), v6: (sets / 8).max(64) },
            vectors: 1 << 15,
            rules: 1 << 14,
            rings: PerFamily { v4: rings, v6: rings },
            events: 1 << 16,
            ..Sizes::default()
        };
        let options = Options {
            pins: pins.clone(),
            sizes,
            log_level: 0,
            attach_mode: None,
            xdp_mode: XdpMode::Auto,
            events,
        };
        let kernel = Kernel::open(&object()?, &options)?;
        // Made first, for its pins to be removed should the rest fail.
        let mut node = Self { kernel: Some(kernel), programs: Programs::default(), pins };
        let mut programs = BTreeMap::new();
        for (program, info) in node.kernel().programs() {
            programs.insert(program, info.fd()?.as_fd().try_clone_to_owned()?);
        }
        node.programs = Programs(Arc::new(programs));
        Ok(node)
    }

    /// The kernel side.
    pub const fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().expect("it is there until the node is dropped")
    }

    /// The kernel side, to be changed.
    pub const fn kernel_mut(&mut self) -> &mut Kernel {
        self.kernel.as_mut().expect("it is there until the node is dropped")
    }

    /// Takes the entry of IPv4 packets like these out of the flow table.
    pub fn forget(&self, packets: &Ends) -> anyhow::Result<()> {
        self.change_set_of(packets, |set, way| {
            set.tags[way] = FREE | way as u64;
            set.entries[way] = FlowEntry::default();
        })
    }

    /// Writes the entry of IPv4 packets like these into every way of its set.
    pub fn multiply(&self, packets: &Ends) -> anyhow::Result<()> {
        self.change_set_of(packets, |set, way| {
            let (tag, entry) = (set.tags[way] & !TAG_WAY, set.entries[way]);
            set.tags = std::array::from_fn(|other| tag | other as u64);
            set.entries = [entry; WAYS];
        })
    }

    fn change_set_of(&self, packets: &Ends, change: impl Fn(&mut FlowSet<V4>, usize)) -> anyhow::Result<()> {
        let path = Pins::new(&self.pins).map("FLOWS_V4");
        let table: Map<u32, FlowSet<V4>> = Map::new(MapFd::new(object_get(&path)?)?)?;
        let is_it = |key: &FlowKey<V4>| {
            let ends = (IpAddr::from(key.src.octets()), IpAddr::from(key.dst.octets()), key.sport, key.dport);
            ends == (packets.src, packets.dst, Be16::new(packets.sport), Be16::new(packets.dport))
        };
        for (index, mut set) in table.entries()? {
            if let Some(way) = (0..WAYS).find(|way| is_it(&set.entries[*way].key)) {
                change(&mut set, way);
                table.put(&[(index, set)])?;
            }
        }
        Ok(())
    }

    /// An array in memory, to be written as another processor would.
    pub fn share(&self, map: &str) -> anyhow::Result<Shared> {
        Ok(MapFd::new(object_get(&Pins::new(&self.pins).map(map))?)?.share()?)
    }

    /// Empties the flow tables, and those of fragments.
    pub fn forget_all(&self) -> anyhow::Result<()> {
        let pins = Pins::new(&self.pins);
        let open = |name: &str| MapFd::new(object_get(&pins.map(name))?);
        forget_flows::<V4>(open("FLOWS_V4")?)?;
        forget_flows::<V6>(open("FLOWS_V6")?)?;
        forget::<FragmentKey<V4>, Fragment>(open("FRAGMENTS_V4")?)?;
        forget::<FragmentKey<V6>, Fragment>(open("FRAGMENTS_V6")?)?;
        self.forget_waiting()
    }

    /// Empties the tables of clients that services remember.
    pub fn forget_clients(&self) -> anyhow::Result<()> {
        let pins = Pins::new(&self.pins);
        let open = |name: &str| MapFd::new(object_get(&pins.map(name))?);
        forget::<AffinityKey<V4>, Affinity<V4>>(open("AFFINITY_V4")?)?;
        forget::<AffinityKey<V6>, Affinity<V6>>(open("AFFINITY_V6")?)
    }

    /// Its programs.
    pub fn programs(&self) -> Programs {
        self.programs.clone()
    }

    /// Empties the table of fragments that wait for their first.
    pub fn forget_waiting(&self) -> anyhow::Result<()> {
        let map = MapFd::new(object_get(&Pins::new(&self.pins).map("EARLY"))?)?;
        let table: Map<u32, EarlySet> = Map::new(map)?;
        Ok(table.put(&(0..early::SETS).map(|set| (set, EarlySet::EMPTY)).collect::<Vec<_>>())?)
    }

    /// Runs a program on a frame.
    pub fn run(&self, program: Program, at: At, frame: &[u8]) -> anyhow::Result<Outcome> {
        self.run_marked(program, at, 0, frame)
    }

    /// Runs a program on a frame that has a mark.
    pub fn run_marked(&self, program: Program, at: At, mark: u32, frame: &[u8]) -> anyhow::Result<Outcome> {
        self.programs.run(program, at, Packet { data: frame, mark, ..Packet::default() })
    }

    /// Runs a program on what the kernel put together from TCP segments with so many bytes of data.
    pub fn run_merged(
        &self,
        program: Program,
        at: At,
        segment: u32,
        frame: &[u8],
    ) -> anyhow::Result<Outcome> {
        self.programs.run(program, at, Packet { data: frame, gso_size: segment, ..Packet::default() })
    }
}

impl Programs {
    /// Runs one of them on a packet.
    pub fn run(&self, program: Program, at: At, packet: Packet<'_>) -> anyhow::Result<Outcome> {
        let packet = Packet { ifindex: at.ifindex, ingress_ifindex: at.ingress, ..packet };
        let run = if program == Program::Edge { test_run_xdp } else { test_run };
        let ran = run(self.0[&program].as_fd(), &packet);
        ran.with_context(|| format!("{} on {} bytes", program.name(), packet.data.len()))
    }
}

fn forget_flows<A: Addr>(map: MapFd) -> anyhow::Result<()>
where
    FlowSet<A>: Plain,
    FlowEntry<A>: Default,
{
    let table: Map<u32, FlowSet<A>> = Map::new(map)?;
    let tags = std::array::from_fn(|way| FREE | way as u64);
    let empty = FlowSet { tags, entries: [FlowEntry::default(); WAYS] };
    let used = table.entries()?;
    let emptied: Vec<_> = used.into_iter().map(|(index, _)| (index, empty)).collect();
    Ok(table.put(&emptied)?)
}

fn forget<K: Plain, V: Plain>(map: MapFd) -> anyhow::Result<()> {
    let table: Map<K, V> = Map::new(map)?;
    let known: Vec<_> = table.entries()?.into_iter().map(|(key, _)| key).collect();
    Ok(table.delete(&known)?)
}

impl Drop for Node {
    fn drop(&mut self) {
        self.programs = Programs::default();
        self.kernel = None;
        for error in detach_all(&self.pins) {
            eprintln!("left behind: {error}");
        }
    }
}

/// The kernel programs, where `cargo xtask build` puts them, or where `WEIR_EBPF_OBJECT` says.
pub fn object() -> anyhow::Result<Vec<u8>> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bpf/weir");
    let path = env::var_os("WEIR_EBPF_OBJECT").map_or(built, PathBuf::from);
    fs::read(&path)
        .with_context(|| format!("no kernel programs at {}; `cargo xtask build` makes them", path.display()))
}
