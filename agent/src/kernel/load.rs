//! Loading the object: map sizes, pinned maps that are used again, programs.

use std::{borrow::Cow, io, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, ProgramInfo, SchedClassifier, Xdp},
};

use weir_common::{
    addr::{V4, V6},
    flow::{FREE, FlowEntry, FlowSet, WAYS},
    plain::Plain,
};

use super::{
    KernelError, Program,
    family::{failed, typed},
    map::Map,
    pins::{self, Pins},
    sys::{self, MapFd, MapInfo},
};
use crate::plan::Sizes;

/// Maps of a fixed size that outlive a load of the object, as those do whose size is chosen. All others
/// belong to one load: its read-only data, its scratch space, its log.
const LASTING: [&str; 8] =
    ["STATE", "INSIDE_V4", "INSIDE_V6", "EARLY", "EARLY_FRAMES", "DROPS", "FORWARDED", "LOST_EVENTS"];

/// Those of them whose elements beyond the last that the programs know do no harm.
const MAY_BE_LARGER: [&str; 2] = ["EARLY", "EARLY_FRAMES"];

/// Which log lines of the programs appear: the levels of `log`, 0 for none at no cost.
pub type LogLevel = u8;

/// Loads `object` with the maps that are pinned, creating and pinning those that are not, and pins its
/// programs in the place of the old ones. What is attached is not touched. Gives the sizes of the maps.
pub(super) fn load(
    object: &[u8],
    pins: &Pins,
    sizes: &Sizes,
    log_level: LogLevel,
) -> Result<(Ebpf, Sizes), KernelError> {
    if object.is_empty() {
        let error = "this build of weir carries none".to_owned();
        return Err(KernelError::Load { error, hint: ". `cargo xtask build` makes one that does" });
    }
    let declared = aya_obj::Object::parse(object).map_err(|error| load_error(&error))?;
    let sized = Sizes::default().by_map().into_iter().map(|(name, _)| name);
    let names: Vec<&str> = sized.chain(LASTING).collect();
    for name in &names {
        let map = declared
            .maps
            .get(*name)
            .ok_or_else(|| KernelError::Load { error: format!("it has no map {name}"), hint: "" })?;
        check_pinned(name, map, pins)?;
    }
    // Megabytes, with what the programs say of their lines.
    drop(declared);
    let sizes = sizes.adopting(|name| pinned(&pins.map(name)).ok().flatten().map(|info| info.max_entries));

    let (mask_v4, mask_v6) = (mask("FLOWS_V4", sizes.flows.v4)?, mask("FLOWS_V6", sizes.flows.v6)?);
    let hz = jiffies_per_second()?;
    let mut loader = EbpfLoader::new();
    for (name, size) in sizes.by_map() {
        loader.map_max_entries(name, size);
    }
    for name in &names {
        loader.map_pin_path(name, pins.map(name));
    }
    loader
        .override_global("FLOW_MASK_V4", &mask_v4, true)
        .override_global("FLOW_MASK_V6", &mask_v6, true)
        .override_global("HZ", &hz, true)
        .override_global("AYA_LOG_LEVEL", &log_level, false);
    let mut ebpf = loader.load(object).map_err(|error| load_error(&error))?;
    number_ways::<V4>(pins, "FLOWS_V4")?;
    number_ways::<V6>(pins, "FLOWS_V6")?;
    for program in Program::CLASSIFIERS {
        let loaded = classifier(&mut ebpf, program)?;
        loaded.load().map_err(|error| verifier_error(program, error))?;
    }
    xdp(&mut ebpf)?.load().map_err(|error| verifier_error(Program::Edge, error))?;
    for program in Program::CLASSIFIERS {
        let loaded = classifier(&mut ebpf, program)?;
        pin(&pins.program(program.name()), |path| loaded.pin(path))?;
    }
    let loaded = xdp(&mut ebpf)?;
    pin(&pins.program(Program::Edge.name()), |path| loaded.pin(path))?;
    Ok((ebpf, sizes))
}

/// Numbers the ways of a flow table that is new, as [`weir_common::flow`] wants them.
fn number_ways<A: Copy>(pins: &Pins, name: &'static str) -> Result<(), KernelError>
where
    FlowSet<A>: Plain,
    FlowEntry<A>: Default,
{
    let numbered: [u64; WAYS] = std::array::from_fn(|way| FREE | way as u64);
    let table: Map<u32, FlowSet<A>> = typed(pins, name)?;
    let is_new = |set: &FlowSet<A>| set.tags.iter().all(|tag| *tag == 0);
    if !table.get(&0).map_err(failed(name))?.is_some_and(|set| is_new(&set)) {
        return Ok(());
    }
    let set = FlowSet { tags: numbered, entries: [FlowEntry::default(); WAYS] };
    // From the end, so that one that was cut short is begun again.
    let sets: Vec<u32> = (0..open(pins, name)?.info().max_entries).rev().collect();
    for some in sets.chunks(1024) {
        let elements: Vec<_> = some.iter().map(|index| (*index, set)).collect();
        table.put(&elements).map_err(failed(name))?;
    }
    Ok(())
}

/// A program of the object that belongs at TC.
pub(super) fn classifier(ebpf: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier, KernelError> {
    let found = ebpf.program_mut(program.name()).and_then(|found| found.try_into().ok());
    found.ok_or_else(|| missing(program, "classifier"))
}

/// The program of the object that belongs at XDP.
pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let found = ebpf.program_mut(Program::Edge.name()).and_then(|found| found.try_into().ok());
    found.ok_or_else(|| missing(Program::Edge, "XDP"))
}

fn missing(program: Program, kind: &str) -> KernelError {
    KernelError::Load { error: format!("it has no program {} of the type {kind}", program.name()), hint: "" }
}

/// What the kernel says of a loaded program.
pub(super) fn program_info(ebpf: &Ebpf, program: Program) -> Option<ProgramInfo> {
    ebpf.program(program.name())?.info().ok()
}

/// Opens a pinned map.
pub(super) fn open(pins: &Pins, name: &str) -> Result<MapFd, KernelError> {
    let path = pins.map(name);
    let map = sys::object_get(&path).and_then(MapFd::new);
    map.map_err(|error| KernelError::Pin { action: "open", path, error })
}

/// What is pinned at a path.
fn pinned(path: &Path) -> io::Result<Option<MapInfo>> {
    match sys::object_get(path) {
        Ok(fd) => Ok(Some(*MapFd::new(fd)?.info())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a pinned map whose elements this object would misread. Its size is adopted, within reason.
fn check_pinned(name: &str, declared: &aya_obj::Map, pins: &Pins) -> Result<(), KernelError> {
    let path = pins.map(name);
    let found = pinned(&path).map_err(|error| KernelError::Pin {
        action: "read the pinned map",
        path: path.clone(),
        error,
    })?;
    let Some(found) = found else { return Ok(()) };
    let shape = |kind, key, value, flags| {
        format!("type {kind}, keys of {key} bytes, values of {value} bytes and flags {flags:#x}")
    };
    let is = shape(found.kind, found.key_size, found.value_size, found.flags);
    let expected =
        shape(declared.map_type(), declared.key_size(), declared.value_size(), declared.map_flags());
    if is != expected {
        return Err(KernelError::Mismatch { path, found: is, expected });
    }
    // Maps whose size is not chosen at load time have the one that the programs were compiled for.
    let is_enough = MAY_BE_LARGER.contains(&name) && found.max_entries > declared.max_entries();
    if LASTING.contains(&name) && found.max_entries != declared.max_entries() && !is_enough {
        let (found, expected) = (found.max_entries, declared.max_entries());
        let elements = |count| format!("{count} elements");
        return Err(KernelError::Mismatch { path, found: elements(found), expected: elements(expected) });
    }
    Ok(())
}

/// What a hash is cut down with, to be the number of a set of a flow table.
fn mask(map: &'static str, sets: u32) -> Result<u32, KernelError> {
    if !sets.is_power_of_two() {
        let error = io::Error::other(format!("has {sets} sets, which is no power of two"));
        return Err(KernelError::Map { map, error });
    }
    Ok(sets - 1)
}

/// `CONFIG_HZ` of the running kernel: the coarse clock ticks once a jiffy.
pub(super) fn jiffies_per_second() -> Result<u32, KernelError> {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).map_err(|error| {
        KernelError::Load { error: format!("cannot read the kernel's tick: {error}"), hint: "" }
    })?;
    Ok((1_000_000_000 / tick.tv_nsec().max(1)) as u32)
}

/// Pins a program at a path, in the place of what is pinned there.
fn pin<E: std::error::Error + Send + Sync + 'static>(
    path: &Path,
    pin: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), KernelError> {
    let new = path.with_file_name(format!("{}-new", program_name(path)));
    pins::remove(&new)?;
    let failed = |error| KernelError::Pin { action: "pin a program at", path: path.to_owned(), error };
    pin(&new).map_err(|error| failed(io::Error::other(error)))?;
    std::fs::rename(&new, path).map_err(failed)
}

fn program_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn load_error(error: &dyn std::error::Error) -> KernelError {
    let text = super::chain(error);
    let hint = match text.contains("Operation not permitted") {
        true => ". weir needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        false => "",
    };
    KernelError::Load { error: text, hint }
}

fn verifier_error(program: Program, error: ProgramError) -> KernelError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(20)..];
            KernelError::Verifier { program: program.name(), error: io_error, log: last.join("\n") }
        }
        error => load_error(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_one_that_kernels_are_built_with() {
        assert!([100, 250, 300, 1000].contains(&jiffies_per_second().unwrap()));
    }

    #[test]
    fn flow_tables_have_a_power_of_two_of_sets() {
        assert_eq!(mask("FLOWS_V4", 1 << 14).unwrap(), 0x3fff);
        assert!(mask("FLOWS_V4", 1000).is_err());
    }
}
