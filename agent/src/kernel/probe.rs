//! What this kernel can do, asked of the kernel and not of its version.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    programs::{ProgramType, SchedClassifier, TcAttachType},
    sys::{BpfHelper, is_helper_supported},
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facilities {
    /// Programs can be attached by TCX links; else by clsact filters.
    pub tcx: bool,
    /// Packets can be handed straight into another namespace.
    pub redirect_peer: bool,
    /// A BPF file system is mounted here.
    pub bpffs: Option<PathBuf>,
}

/// Asks the kernel.
pub fn facilities() -> Facilities {
    let bpffs = Path::new("/sys/fs/bpf");
    Facilities {
        tcx: has_tcx(),
        redirect_peer: has_redirect_peer(),
        bpffs: is_bpffs(bpffs).then(|| bpffs.into()),
    }
}

/// Whether a directory is on a BPF file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC)
}

/// Whether there are TCX links: older kernels do not know the hook that is asked about.
pub(super) fn has_tcx() -> bool {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => true,
        Err(error) => {
            let error = super::io_error(&error);
            // Nothing attached yet is an answer too.
            error.raw_os_error() == Some(libc::ENOENT) || error.kind() == io::ErrorKind::NotFound
        }
    }
}

fn has_redirect_peer() -> bool {
    is_helper_supported(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect_peer).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_directory_is_no_bpffs() {
        assert!(!is_bpffs(Path::new("/tmp")));
        assert!(!is_bpffs(Path::new("/no/such/directory")));
    }
}
