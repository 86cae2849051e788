//! Tells the agent where the kernel programs are that it is to carry.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-env-changed=WEIR_EBPF_OBJECT");
    let object = env::var_os("WEIR_EBPF_OBJECT").map_or_else(built, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let object = if object.exists() { object } else { placeholder() };
    println!("cargo::rustc-env=WEIR_EBPF_OBJECT={}", object.display());
}

/// Where `cargo xtask build` puts them.
fn built() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let workspace = Path::new(&manifest).parent().expect("the package lies in the workspace");
    workspace.join("target/bpf/weir")
}

/// An empty file: the compiler and its tests need no kernel programs, and the binary refuses to start with it.
fn placeholder() -> PathBuf {
    println!("cargo::warning=no kernel programs in this build; `cargo xtask build` makes them");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    let file = Path::new(&out).join("no-kernel-programs");
    fs::write(&file, []).expect("the output directory can be written");
    file
}
