//! What there is in the kernel.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapInfo, loaded_maps},
    programs::{ProgramInfo, loaded_programs},
};

/// The BPF file system.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The numbers of maps and programs, as the kernel counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Programs.
    pub programs: BTreeSet<u32>,
}

/// Everything below a directory.
pub fn walk(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        found.extend(walk(&path));
        found.push(path);
    }
    found.sort();
    found
}

/// What is pinned.
pub fn pinned() -> Ids {
    let mut ids = Ids::default();
    for path in walk(Path::new(BPFFS)).into_iter().filter(|path| path.is_file()) {
        match path.parent().and_then(Path::file_name).and_then(|name| name.to_str()) {
            Some("maps") => drop(ids.maps.insert(MapInfo::from_pin(&path).unwrap().id())),
            Some("programs") => drop(ids.programs.insert(ProgramInfo::from_pin(&path).unwrap().id())),
            _ => {}
        }
    }
    ids
}

impl Ids {
    /// Those of them that are in the kernel.
    pub fn loaded(&self) -> Self {
        let maps = loaded_maps().filter_map(|map| Some(map.ok()?.id()));
        let programs = loaded_programs().filter_map(|program| Some(program.ok()?.id()));
        Self {
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
        }
    }
}
