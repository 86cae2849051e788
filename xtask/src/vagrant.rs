//! The demo in a virtual machine.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::shell::{self, step};

/// Starts the machine of `vagrant/Vagrantfile` and runs the demo in it.
pub(crate) fn run(manifests: &Path, once: bool) -> Result<ExitCode> {
    let manifests = manifests.strip_prefix(shell::root()).with_context(|| {
        format!(
            "{} lies outside of the workspace, which is all that the machine gets to see",
            manifests.display()
        )
    })?;
    step("Starting", "the virtual machine (vagrant up)");
    shell::run(vagrant().arg("up")).context("see vagrant/Vagrantfile; Debian's package is called vagrant")?;
    step("Copying", "the workspace into it (vagrant rsync)");
    shell::run(vagrant().arg("rsync"))?;
    shell::verdict(vagrant().args(["ssh", "-c", &inside(manifests, once)]))
}

/// What is typed in the machine.
fn inside(manifests: &Path, once: bool) -> String {
    let quoted = manifests.display().to_string().replace('\'', r"'\''");
    let once = if once { " --once" } else { "" };
    format!("cd weir && cargo xtask run --manifests '{quoted}'{once}")
}

fn vagrant() -> Command {
    let mut command = Command::new("vagrant");
    command.env("VAGRANT_CWD", shell::root().join("vagrant"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reaches_the_machine_as_one_word() {
        assert_eq!(inside(Path::new("a b"), true), "cd weir && cargo xtask run --manifests 'a b' --once");
        assert_eq!(inside(Path::new("it's"), false), r"cd weir && cargo xtask run --manifests 'it'\''s'");
    }
}
