//! How full the maps are.

use std::{fs, os::fd::AsRawFd};

use super::{KernelError, family::failed, flows::Flows, load::open, pins::Pins, sys::MapFd};
use crate::plan::{Image, Sizes, in_use};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// The map.
    pub map: &'static str,
    /// Elements in use. Of the flow tables these are flows.
    pub entries: u64,
    /// Most elements.
    pub capacity: u64,
    /// Memory that the kernel accounts for it.
    pub bytes: u64,
}

/// Usage of every map whose size is chosen and that holds elements.
pub(super) fn of(image: &Image, pins: &Pins, sizes: &Sizes) -> Result<Vec<MapUsage>, KernelError> {
    let mut entries = in_use(image);
    let (mut v4, mut v6) = (0, 0);
    for flow in Flows::open(pins)?.iter() {
        *(if flow.src.is_ipv4() { &mut v4 } else { &mut v6 }) += 1;
    }
    entries.extend([("FLOWS_V4", v4), ("FLOWS_V6", v6)]);
    let flows = sizes.flow_capacity();
    let sizes = sizes.by_map().into_iter();
    let usage = |(map, capacity)| {
        let entries = *entries.get(map)?;
        let capacity = match map {
            "FLOWS_V4" => flows.v4,
            "FLOWS_V6" => flows.v6,
            _ => u64::from(capacity),
        };
        let bytes = open(pins, map).and_then(|fd| memory(&fd).map_err(failed(map)));
        Some(bytes.map(|bytes| MapUsage { map, entries, capacity, bytes }))
    };
    sizes.filter_map(usage).collect()
}

/// What the kernel says in /proc of a map's memory.
fn memory(map: &MapFd) -> std::io::Result<u64> {
    use std::os::fd::AsFd as _;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    Ok(bytes.unwrap_or(0))
}
