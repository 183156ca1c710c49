//! The project that is built: the library zstd, from the sources that the crate `zstd-sys` contains.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{CargoOpt, MetadataCommand};

use crate::Failure;
use crate::includes::Includes;
use crate::step::{OUT, Step};

/// The directories of the library, below that of the sources.
const DIRECTORIES: [&str; 4] = ["common", "compress", "decompress", "dictBuilder"];

/// The options of the compiler.
const OPTIONS: [&str; 6] = ["-O3", "-fPIC", "-Wall", "-DXXH_NAMESPACE=ZSTD_", "-DZSTD_LEGACY_SUPPORT=0", "-c"];

/// Returns the directory of the sources, which cargo downloads if it has to.
pub fn sources() -> Result<PathBuf, Failure> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).features(CargoOpt::AllFeatures).exec()?;
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "zstd-sys");
    let package = package.ok_or("cargo does not know the package zstd-sys: see Cargo.toml")?;
    let directory = package.manifest_path.parent().ok_or("the package zstd-sys has no directory")?;
    Ok(directory.join("zstd/lib").canonicalize()?)
}

/// Returns a step for each file that is compiled, in the order of their names.
pub fn steps(sources: &Path) -> Result<Vec<Step>, Failure> {
    let mut includes = Includes::new(sources);
    let mut files = vec![];
    for directory in DIRECTORIES {
        for entry in fs::read_dir(sources.join(directory))? {
            files.push(Path::new(directory).join(entry?.file_name()));
        }
    }
    files.retain(|file| file.extension().is_some_and(|kind| kind == "c" || kind == "S"));
    files.sort();
    files.iter().map(|file| Ok(compile(file, &mut includes)?)).collect()
}

fn compile(file: &Path, includes: &mut Includes<'_>) -> std::io::Result<Step> {
    let name = file.display().to_string();
    let object = file.with_extension("o");
    let words = ["cc"].into_iter().chain(OPTIONS).map(String::from);
    let output = Path::new(OUT).join(&object).display().to_string();
    // The directory of an output exists only once it is created.
    let output = output.replacen(&format!("{OUT}/"), "", 1).replace('/', "-");
    let command = words.chain([name.clone(), "-o".into(), format!("{OUT}/{output}")]).collect();
    Ok(Step { name, command, inputs: includes.of(file)?, outputs: vec![output.into()] })
}

/// Returns the versions of the tools.
pub fn tools() -> Result<String, Failure> {
    let output = std::process::Command::new("cc").arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
