//! The floors: programs that do one thing, with their maps filled.

use std::path::Path;

use anyhow::{Result, ensure};
use aya::{Ebpf, EbpfLoader, programs::ProgramFd};
use weir::kernel::sys::MapFd;

use super::{
    feeder::{self, Kind},
    frame::Frame,
};

/// Room in the maps of the floors.
const ROOM: u32 = 131_072;

/// Nothing: what the feeder costs.
pub(super) const NULL: &str = "null";
/// Parse, and no more.
pub(in crate::bench) const PARSE: &str = "parse only";
/// Parse, and one look-up in a hash map.
pub(super) const HASH: &str = "hash map look-up";
/// Parse, and one look-up in an LRU map.
pub(super) const LRU: &str = "LRU map look-up";
/// Parse, and one update of an LRU map, of a key that is there.
pub(super) const UPDATE: &str = "LRU map update";
/// Parse, and one update of a full LRU map, of a key that is not there: something is evicted for it.
pub(super) const INSERT: &str = "LRU map update, evicting";

/// The loaded floors of one kind.
pub(super) struct Floors {
    loaded: Ebpf,
    kind: Kind,
}

impl Floors {
    /// Loads them; their maps hold the flows of these frames.
    pub(super) fn load(object: &Path, kind: Kind, frames: &[Frame]) -> Result<Self> {
        let loaded =
            EbpfLoader::new().map_max_entries("HASH", ROOM).map_max_entries("LRU", ROOM).load_file(object)?;
        for name in ["HASH", "LRU"] {
            fill(&feeder::map(&loaded, name)?, frames)?;
        }
        Ok(Self { loaded, kind })
    }

    /// Where they run.
    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The null program, and what a known flow is compared with.
    pub(super) fn of_known_flows(&mut self) -> Result<Vec<(&'static str, ProgramFd)>> {
        self.programs(&[(NULL, "null"), (PARSE, "parse"), (HASH, "hash"), (LRU, "lru"), (UPDATE, "update")])
    }

    /// The null program, and what a new flow is compared with.
    pub(super) fn of_new_flows(&mut self) -> Result<Vec<(&'static str, ProgramFd)>> {
        self.programs(&[(NULL, "null"), (PARSE, "parse"), (INSERT, "update")])
    }

    /// Makes sure that the floors found what they looked for.
    pub(super) fn check(&self) -> Result<()> {
        let mut misses = [0; 8];
        feeder::map(&self.loaded, "MISSES")?.lookup(&[0; 4], &mut misses)?;
        let misses = u64::from_ne_bytes(misses);
        ensure!(misses == 0, "{misses} look-ups of the floors found nothing");
        Ok(())
    }

    fn programs(&mut self, names: &[(&'static str, &str)]) -> Result<Vec<(&'static str, ProgramFd)>> {
        let suffix = match self.kind {
            Kind::Tc => "tc",
            Kind::Xdp => "xdp",
        };
        let mut load = |name| feeder::load(&mut self.loaded, &format!("{name}_{suffix}"));
        names.iter().map(|(subject, name)| Ok((*subject, load(name)?))).collect()
    }
}

fn fill(map: &MapFd, frames: &[Frame]) -> Result<()> {
    // As the floors read it: addresses, ports, protocol.
    let key = |frame: &Frame| [&frame[26..38], &6_u32.to_ne_bytes()].concat();
    for some in frames.chunks(4096) {
        let keys: Vec<u8> = some.iter().flat_map(key).collect();
        map.update_batch(&keys, &vec![0; some.len() * 8])?;
    }
    Ok(())
}
