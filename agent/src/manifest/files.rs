//! Which files are manifests, and what is in them.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    Diagnostic,
    diagnostics::{Diagnostics, Excerpt, Severity},
};
use crate::source::Source;

/// Bytes that a manifest file may have.
const MOST: u64 = 256 << 20;
/// Directories below each other that are entered.
const DEEPEST: usize = 32;

/// The manifest files at `path`, in order: itself, or what is below it and ends in a name of YAML or JSON.
/// Hidden files and what editors leave behind are passed over.
pub(super) fn list(path: &Path, found: &mut Diagnostics) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if path.is_dir() {
        list_directory(path, DEEPEST, &mut files, found);
    } else {
        files.push(path.to_owned());
    }
    files
}

/// The text of a file.
pub(super) fn read(path: &Path, found: &mut Diagnostics) -> Option<String> {
    let mut bytes = Vec::new();
    let result = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    let name = path.display().to_string();
    match result {
        Err(error) => found.file_error(&name, format!("cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > MOST => {
            found.file_error(&name, format!("is larger than {} MiB", MOST >> 20));
        }
        Ok(_) => return text(&name, bytes, found),
    }
    None
}

/// Bytes as text.
pub(super) fn text(name: &str, bytes: Vec<u8>, found: &mut Diagnostics) -> Option<String> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Some(text),
        Err(error) => error,
    };
    let good = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let before = &text[..good];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
    found.push(Diagnostic {
        source: Source {
            file: name.into(),
            line: number(before.matches('\n').count()),
            column: number(before[line_start..].chars().count()),
        },
        severity: Severity::Error,
        message: "not UTF-8 text".to_owned(),
        excerpt: Some(Excerpt::new(&text, good, good + 1)),
    });
    None
}

fn list_directory(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, found: &mut Diagnostics) {
    let name = directory.display().to_string();
    let Some(depth) = depth.checked_sub(1) else {
        return found.file_error(&name, "directories are nested too deep");
    };
    let entries = std::fs::read_dir(directory).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return found.file_error(&name, format!("cannot be read: {error}")),
    };
    entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if is_left_behind(&name.to_string_lossy()) {
            continue;
        }
        // Follows links, as a mounted ConfigMap consists of them.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => list_directory(&path, depth, files, found),
            Ok(metadata) if metadata.is_file() && is_manifest(&path) => files.push(path),
            Err(error) if is_manifest(&path) => {
                found.file_error(&path.display().to_string(), format!("cannot be read: {error}"));
            }
            _ => {}
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn is_left_behind(name: &str) -> bool {
    name.starts_with(['.', '#', '~']) || name.ends_with(['~', '#'])
}
