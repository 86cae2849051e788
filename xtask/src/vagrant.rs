//! The demo in a virtual machine.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::shell::{self, step};

/// Starts the machine of `vagrant/Vagrantfile` and runs the demo in it.
pub(crate) fn run(manifests: &Path, once: bool) -> Result<ExitCode> {
    step("Starting", "the virtual machine (vagrant up)");
    shell::run(vagrant().arg("up")).context("see vagrant/Vagrantfile; Debian's package is called vagrant")?;
    // The workspace is at the same place in the machine for every user, so the path is relative to it.
    let manifests = manifests.strip_prefix(shell::root()).unwrap_or(manifests);
    let command = format!(
        "cd weir && sudo -E env PATH=\"$PATH\" cargo xtask run --manifests '{}'{}",
        manifests.display(),
        if once { " --once" } else { "" }
    );
    shell::verdict(vagrant().args(["ssh", "-c", &command]))
}

fn vagrant() -> Command {
    let mut command = Command::new("vagrant");
    command.env("VAGRANT_CWD", shell::root().join("vagrant"));
    command
}
