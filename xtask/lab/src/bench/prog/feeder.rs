//! Running a program behind the feeder: see `xtask/floors`.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, ProgramArray},
    programs::{Program, ProgramFd},
};
use weir::kernel::sys::{MapFd, Packet, test_run, test_run_xdp};

use super::frame::{Frame, LEN};

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// At TC.
    Tc,
    /// At XDP.
    Xdp,
}

/// Where a packet is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    /// The interface whose program sees it.
    pub(super) ifindex: u32,
    /// The interface by which it came; 0: the node itself sent it.
    pub(super) ingress: u32,
}

/// A program with a table of frames before it.
pub(super) struct Feeder {
    /// Keeps the maps.
    _loaded: Ebpf,
    entry: OwnedFd,
    kind: Kind,
    at: At,
    packet: Frame,
    frames: u32,
}

/// What a number of runs gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    /// What the program returned last.
    pub(super) verdict: u32,
    /// Nanoseconds a run, with the feeder's.
    pub(super) nanoseconds: f64,
}

impl Feeder {
    /// Puts a table of frames before a program.
    pub(super) fn new(
        floors: &Path,
        kind: Kind,
        at: At,
        frames: &[Frame],
        program: &ProgramFd,
    ) -> Result<Self> {
        let count = u32::try_from(frames.len())?;
        let mut loaded = EbpfLoader::new()
            .map_max_entries("FRAMES", count)
            .load_file(floors)
            .context("cannot load the feeder")?;
        fill(&loaded, frames)?;
        let (entry, next) = match kind {
            Kind::Tc => ("feed_tc", "MEASURED_TC"),
            Kind::Xdp => ("feed_xdp", "MEASURED_XDP"),
        };
        let entry = load(&mut loaded, entry)?.as_fd().try_clone_to_owned()?;
        let map = loaded.map_mut(next).context("the feeder has no program array")?;
        ProgramArray::try_from(map)?
            .set(0, program, 0)
            .context("the program cannot stand behind the feeder")?;
        Ok(Self { _loaded: loaded, entry, kind, at, packet: frames[0], frames: count })
    }

    /// How many frames there are.
    pub(super) const fn frames(&self) -> u32 {
        self.frames
    }

    /// Runs the program, on one frame after the other.
    pub(super) fn run(&self, times: u32) -> Result<Runs> {
        let packet = Packet {
            data: &self.packet,
            repeat: times,
            ifindex: self.at.ifindex,
            ingress_ifindex: self.at.ingress,
            mark: 0,
            gso_size: 0,
        };
        let outcome = match self.kind {
            Kind::Tc => test_run(self.entry.as_fd(), &packet),
            Kind::Xdp => test_run_xdp(self.entry.as_fd(), &packet),
        }?;
        Ok(Runs { verdict: outcome.verdict, nanoseconds: f64::from(outcome.nanoseconds) })
    }
}

/// Loads a program of the object of floors and feeders.
pub(super) fn load(loaded: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program = loaded.program_mut(name).with_context(|| format!("there is no program {name}"))?;
    let refused = || format!("the kernel refuses {name}");
    let fd = match program {
        Program::SchedClassifier(program) => {
            program.load().with_context(refused)?;
            program.fd()?
        }
        Program::Xdp(program) => {
            program.load().with_context(refused)?;
            program.fd()?
        }
        other => bail!("{name} is a {:?} program", other.prog_type()),
    };
    Ok(fd.try_clone()?)
}

/// A map of the object of floors and feeders.
pub(super) fn map(loaded: &Ebpf, name: &str) -> Result<MapFd> {
    let data = match loaded.map(name).with_context(|| format!("there is no map {name}"))? {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) => data,
        _ => bail!("{name} is a map of another type"),
    };
    Ok(MapFd::new(data.fd().as_fd().try_clone_to_owned()?)?)
}

fn fill(loaded: &Ebpf, frames: &[Frame]) -> Result<()> {
    let table = map(loaded, "FRAMES")?;
    for (chunk, some) in frames.chunks(4096).enumerate() {
        let indices = (0..some.len()).flat_map(|index| ((chunk * 4096 + index) as u32).to_ne_bytes());
        table.update_batch(&indices.collect::<Vec<_>>(), some.as_flattened())?;
    }
    const { assert!(LEN == 64) };
    let turn = [0, frames.len() as u32].map(u32::to_ne_bytes);
    map(loaded, "TURN")?.update(&0_u32.to_ne_bytes(), turn.as_flattened())?;
    Ok(())
}
