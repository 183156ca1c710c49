//! Rejects unsupported targets with one error, before any of the crate is compiled, and writes the interpreter's assembly with
//! the crate's version and a number of this build in the names of its symbols, so that two versions of the crate, or one version
//! from two places, link into one program.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    let architecture = target("ARCH");
    // Not x32, ILP32 or big-endian systems, which have these architectures' names too.
    let is_supported = target("OS") == "linux"
        && ["x86_64", "aarch64"].contains(&architecture.as_str())
        && target("POINTER_WIDTH") == "64"
        && target("ENDIAN") == "little";
    if is_supported {
        name_symbols(&architecture);
    } else {
        println!(
            "cargo::error=stockade supports only 64-bit Linux on x86_64 and aarch64, not {}: move the dependency to \
             [target.'cfg(all(target_os = \"linux\", any(target_arch = \"x86_64\", target_arch = \"aarch64\")))'.dependencies]",
            env::var("TARGET").unwrap_or_default()
        );
    }
}

/// Writes the source of the interpreter with the version in the names of its symbols.
fn name_symbols(architecture: &str) {
    let source = format!("src/sys/{architecture}.s");
    println!("cargo::rerun-if-changed={source}");
    let directory = env::var_os("OUT_DIR").unwrap_or_default();
    // Cargo's directory for this build is `stockade-HASH/out`: another one for another source, version or set of features.
    let build = Path::new(&directory).parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let build = build.rsplit('-').next().unwrap_or_default();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let prefix = format!("stockade_{version}_{build}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    println!("cargo::rustc-env=STOCKADE_SYMBOLS={prefix}");
    let output = Path::new(&directory).join("interpreter.s");
    let result = fs::read_to_string(source).map(|text| text.replace("stockade_", &format!("{prefix}_")));
    if let Err(error) = result.and_then(|text| fs::write(&output, text)) {
        println!("cargo::error=failed to write {}: {error}", output.display());
    }
}
