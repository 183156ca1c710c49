//! Another target than those that the crate is written for fails here, with one sentence and before anything else. And the
//! symbols of the interpreter get the version of the crate and a number of this build of it into their names, so that two
//! versions, or one version from two places, can be in one binary.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") != "linux" || !["x86_64", "aarch64"].contains(&target("ARCH").as_str()) {
        println!(
            "cargo::error=stockade runs on Linux on x86_64 and aarch64 alone: it is made of that kernel's own system calls"
        );
    }
    name_symbols(&target("ARCH"));
}

/// Writes the source of the interpreter with the version in the names of its symbols.
fn name_symbols(architecture: &str) {
    let source = format!("src/launch/{architecture}.s");
    println!("cargo::rerun-if-changed={source}");
    let directory = env::var_os("OUT_DIR").unwrap_or_default();
    // Cargo's directory for this build is `stockade-HASH/out`: another one for another source, version or set of features.
    let build = Path::new(&directory).parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let build = build.rsplit('-').next().unwrap_or_default();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let prefix = format!("stockade_{version}_{build}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    println!("cargo::rustc-env=STOCKADE_SYMBOLS={prefix}");
    // Of another architecture there is none, which was said.
    let text = fs::read_to_string(source).unwrap_or_default().replace("stockade_", &format!("{prefix}_"));
    if let Err(error) = fs::write(Path::new(&directory).join("interpreter.s"), text) {
        println!("cargo::error=failed to write the interpreter to {}: {error}", Path::new(&directory).display());
    }
}
