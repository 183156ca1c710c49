//! Rejects unsupported targets with one error, before any of the crate is compiled, and writes the interpreter's assembly with
//! the crate's version and a number of this build in the names of its symbols, so that two versions of the crate, or one version
//! from two places, link into one program. Links the command with a stack unwinder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

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
        let is_native = env::var("HOST") == env::var("TARGET");
        let has_command = env::var_os("CARGO_FEATURE_CLI").is_some();
        if has_command && architecture == "x86_64" && target("ENV") == "gnu" && is_native {
            link_unwinder();
        }
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
    let directory = output_directory();
    // Cargo's directory for this build is `stockade-HASH/out`: another one for another source, version or set of features.
    let build = directory.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let build = build.rsplit('-').next().unwrap_or_default();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let prefix = format!("stockade_{version}_{build}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    println!("cargo::rustc-env=STOCKADE_SYMBOLS={prefix}");
    let output = directory.join("interpreter.s");
    let result = fs::read_to_string(source).map(|text| text.replace("stockade_", &format!("{prefix}_")));
    if let Err(error) = result.and_then(|text| fs::write(&output, text)) {
        println!("cargo::error=failed to write {}: {error}", output.display());
    }
}

fn output_directory() -> PathBuf {
    env::var_os("OUT_DIR").unwrap_or_default().into()
}

/// Links the static unwinder of the compiler into the command, where the linker has it. The shared one is a library more to
/// load, and asks the processor for its features when it is loaded, which a hypervisor has to answer: 0.1 ms of every start.
fn link_unwinder() {
    const STATIC: &str = "libgcc_eh.a";
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let found = Command::new(linker).arg(format!("-print-file-name={STATIC}")).output();
    // A linker prints the name as it is if it has no such file.
    let path = found.map(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim())).unwrap_or_default();
    if path.is_absolute() && path.exists() {
        // Found in place of the shared library, whose name is among the arguments of the linker.
        match write_linker_script("libgcc_s.so", &format!("GROUP({STATIC} libgcc.a)\n")) {
            Ok(directory) => println!("cargo::rustc-link-arg-bins=-L{}", directory.display()),
            Err(error) => println!("cargo::error=failed to write a linker script: {error}"),
        }
    }
}

/// Writes a linker script that stands for a library, in a directory of its own, and returns the directory.
fn write_linker_script(library: &str, script: &str) -> io::Result<PathBuf> {
    let directory = output_directory().join("link");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(library), script)?;
    Ok(directory)
}
