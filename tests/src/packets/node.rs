//! The kernel side of one node, and its programs to be run on packets.

use std::{
    collections::BTreeMap,
    env, fs,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use weir::{
    kernel::{
        Kernel, Options, Program, detach_all,
        map::Map,
        pins::Pins,
        sys::{MapFd, Outcome, Packet, object_get, test_run},
    },
    plan::{PerFamily, Sizes},
};
use weir_common::{
    addr::{Be16, V4},
    flow::{FREE, FlowKey, FlowSet, WAYS},
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
    programs: BTreeMap<Program, OwnedFd>,
    pins: PathBuf,
}

impl Node {
    /// Loads the programs in the network namespace of this thread, with flow tables of `sets` sets, a power of
    /// two. The other tables are small, to be loaded fast.
    pub fn open(sets: u32) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/weir-packets-{}-{number}/node", process::id()));
        let sizes = Sizes {
            flows: PerFamily { v4: sets, v6: sets },
            fragments: PerFamily { v4: 64, v6: 64 },
            vectors: 1 << 15,
            rules: 1 << 14,
            rings: PerFamily { v4: 1 << 14, v6: 1 << 14 },
            events: 1 << 16,
            ..Sizes::default()
        };
        let events = events::DROPS | events::FLOWS;
        let options = Options { pins: pins.clone(), sizes, log_level: 0, attach_mode: None, events };
        let kernel = Kernel::open(&object()?, &options)?;
        let mut node = Self { kernel: Some(kernel), programs: BTreeMap::new(), pins };
        for (program, info) in node.kernel().programs() {
            node.programs.insert(program, info.fd()?.as_fd().try_clone_to_owned()?);
        }
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
        let path = Pins::new(&self.pins).map("FLOWS_V4");
        let table: Map<u32, FlowSet<V4>> = Map::new(MapFd::new(object_get(&path)?)?)?;
        let is_it = |key: &FlowKey<V4>| {
            let ends = (IpAddr::from(key.src.octets()), IpAddr::from(key.dst.octets()), key.sport, key.dport);
            ends == (packets.src, packets.dst, Be16::new(packets.sport), Be16::new(packets.dport))
        };
        for (index, mut set) in table.entries()? {
            if let Some(way) = (0..WAYS).find(|way| is_it(&set.entries[*way].key)) {
                set.tags[way] = FREE | way as u64;
                table.put(&[(index, set)])?;
            }
        }
        Ok(())
    }

    /// Runs a program on a frame.
    pub fn run(&self, program: Program, at: At, frame: &[u8]) -> anyhow::Result<Outcome> {
        let packet =
            Packet { data: frame, ifindex: at.ifindex, ingress_ifindex: at.ingress, ..Packet::default() };
        let ran = test_run(self.programs[&program].as_fd(), &packet);
        ran.with_context(|| format!("{} on {} bytes", program.name(), frame.len()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.programs.clear();
        self.kernel = None;
        for error in detach_all(&self.pins) {
            eprintln!("left behind: {error}");
        }
    }
}

/// The kernel programs, where `cargo xtask build` puts them, or where `WEIR_EBPF_OBJECT` says.
fn object() -> anyhow::Result<Vec<u8>> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bpf/weir");
    let path = env::var_os("WEIR_EBPF_OBJECT").map_or(built, PathBuf::from);
    fs::read(&path)
        .with_context(|| format!("no kernel programs at {}; `cargo xtask build` makes them", path.display()))
}
