//! Manifests on the command line: read and judged here, so that a wrong file is refused before an agent is asked.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{Error, args::Target, client, output::Style, warn};
use crate::{
    check::PolicyCheck,
    cluster::{Cluster, Objects},
    daemon,
    manifest::{Diagnostics, Documents, Reader},
    protocol::{Request, Response},
};

/// Reads files, directories, and `-` for standard input.
pub(super) fn read(paths: &[PathBuf]) -> Result<Documents, Diagnostics> {
    let mut reader = Reader::default();
    for path in paths {
        reader = if path == Path::new("-") {
            let mut bytes = Vec::new();
            match std::io::stdin().lock().read_to_end(&mut bytes) {
                Ok(_) => reader.bytes("<stdin>", bytes),
                // Named as a file that is not there: the message says why it cannot be read.
                Err(_) => reader.paths(&[PathBuf::from("/dev/stdin")]),
            }
        } else {
            reader.paths(std::slice::from_ref(path))
        };
    }
    reader.finish()
}

/// The cluster that manifests make up, with the expectations kept beside them; no agent is asked.
pub(super) fn read_offline(paths: &[PathBuf]) -> Result<(Cluster, Vec<PolicyCheck>), Error> {
    let wrong = |found: Diagnostics| Error::input(found.render(false));
    let mut documents = read(paths).map_err(wrong)?;
    if !documents.warnings.is_empty() {
        eprint!("{}", documents.warnings.render(Style::stderr().is_coloured()));
    }
    let checks = std::mem::take(&mut documents.checks);
    let mut objects = Objects::default();
    objects.insert_all(documents);
    Ok((objects.build().map_err(wrong)?, checks))
}

/// The same for agents: what is wrong is said together with what stays in force there.
pub(super) fn read_for(target: &Target, paths: &[PathBuf]) -> Result<Documents, Error> {
    match read(paths) {
        Ok(documents) => {
            if !documents.warnings.is_empty() {
                eprint!("{}", documents.warnings.render(Style::stderr().is_coloured()));
            }
            for (kind, number) in &documents.skipped {
                let why = match kind.as_str() {
                    PolicyCheck::COUNTED_AS => "which `weir check` evaluates",
                    _ => "which does not concern weir",
                };
                warn(&format!("skipped: {number} of {kind}, {why}"));
            }
            Ok(documents)
        }
        Err(found) => {
            let revision =
                client::agents(target).ok().and_then(|agents| match agents.first()?.ask(&Request::Status) {
                    Ok(Response::Status(status)) => Some(status.revision),
                    _ => None,
                });
            Err(Error::input(daemon::refusal(&found, revision.unwrap_or_default())))
        }
    }
}
