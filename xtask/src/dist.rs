//! The release: one static binary and its checksum.

use std::{env, fs};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    build,
    shell::{self, step},
};

/// Builds `target/dist/weir` and `target/dist/weir.sha256`.
pub(crate) fn run() -> Result<()> {
    build::kernel_programs()?;
    step("Building", "weir, static");
    // glibc's own target with a static C library: nothing more to install than a linker. weir resolves no host
    // names, the one thing that a static glibc cannot do.
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut cargo = shell::cargo();
    cargo.args(["build", "--profile", "dist", "--package", "weir", "--bin", "weir", "--target", &target]);
    shell::run(cargo.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let binary = fs::read(build::target_dir().join(&target).join("dist/weir"))?;
    if is_dynamic(&binary).context("the build is no 64-bit ELF file")? {
        bail!("the binary asks for a dynamic loader, so it is not static");
    }
    let dist = build::target_dir().join("dist");
    fs::create_dir_all(&dist)?;
    let path = dist.join("weir");
    fs::copy(build::target_dir().join(&target).join("dist/weir"), &path)?;
    let sum: String = Sha256::digest(&binary).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(dist.join("weir.sha256"), format!("{sum}  weir\n"))?;
    step("Finished", format_args!("{} ({} MiB), sha256 {sum}", path.display(), binary.len() >> 20));
    Ok(())
}

/// Whether an ELF file names an interpreter (a program header of type `PT_INTERP`).
fn is_dynamic(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    let types: Option<Vec<u32>> = (0..count).map(|index| word(table + index * size)).collect();
    Some(types?.contains(&PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_asks_for_a_dynamic_loader_and_a_text_is_no_elf_file() {
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        assert_eq!(is_dynamic(&own), Some(true));
        assert_eq!(is_dynamic(b"#!/bin/sh"), None);
        assert_eq!(is_dynamic(b"\x7fELF\x02\x01"), None);
    }
}
