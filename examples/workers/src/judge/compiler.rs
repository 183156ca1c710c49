//! Compiling a program, and taking the compiler's output out of its sandbox.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};

use stockade::{Session, Stdio, Termination};
use tar::Archive;
use tempfile::TempDir;

use super::failure::Failure;
use super::job::Program;
use super::report::Compiling;
use super::sandboxes::{Host, LARGEST_OUT, OUT, command, compile_command};
use super::scratch::Scratch;

/// A program that can be run.
#[derive(Debug)]
pub struct Executable {
    pub program: Program,
    /// What the compiler wrote. `None` if the language is not compiled. It is removed with this.
    pub directory: Option<TempDir>,
}

/// The result of compiling.
#[derive(Debug)]
pub enum Compiled {
    Executable(Executable, Option<Compiling>),
    Rejected(Compiling),
}

/// Compiles a program, if its language is compiled.
pub fn compile(host: &Host, scratch: &Scratch, program: &Program, cpu: Option<u32>) -> Result<Compiled, Failure> {
    let language = program.language()?;
    if !language.is_present() {
        let probe = language.probe.join(" ");
        return Err(Failure::Worker(format!("{} is not installed on this worker: {probe} failed", language.name)));
    }
    let program = program.clone();
    let Some(words) = language.compile else {
        return Ok(Compiled::Executable(Executable { program, directory: None }, None));
    };
    let failed = |error| Failure::sandbox("the compiler", &error);
    let session = host.compiler(&program, cpu)?.start().map_err(failed)?;
    let output = session.output(compile_command(words)).map_err(failed)?;
    let termination = output.outcome.termination;
    if matches!(termination, Termination::HostMemory | Termination::Killed) {
        return Err(Failure::Worker(format!("the compiler was {termination}")));
    }
    let log = Compiling::new(&output);
    if !termination.success() {
        return Ok(Compiled::Rejected(log));
    }
    let directory = scratch.directory()?;
    take_out(&session, directory.path())?;
    Ok(Compiled::Executable(Executable { program, directory: Some(directory) }, Some(log)))
}

/// Copies the files in [`OUT`] to an empty directory of the host. What the session sends is not trusted: whatever a source
/// has executed in the compiler could have replaced it. Only regular files with plain names are taken.
fn take_out(session: &Session, to: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::sandbox("tar on the compiler's output", &error);
    let mut pack = command(&["tar", "--create", "--directory", OUT, "."]);
    pack.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = session.spawn(pack).map_err(failed)?;
    let pipe = child.stdout.take().ok_or_else(|| Failure::Worker("tar has no standard output".into()))?;
    // Twice as much, for headers and padding of many small files.
    let unpacked = unpack(pipe.take(2 * LARGEST_OUT), to);
    let outcome = child.wait().map_err(failed)?;
    unpacked.map_err(Failure::to("take the compiler's output out of its sandbox"))?;
    match outcome.success() {
        true => Ok(()),
        false => Err(Failure::Worker(format!("tar on the compiler's output: {}", outcome.termination))),
    }
}

fn unpack(archive: impl Read, to: &Path) -> io::Result<()> {
    let mut archive = Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !entry.header().entry_type().is_file() || !is_inside {
            continue;
        }
        let path = to.join(path);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path)?;
        io::copy(&mut entry, &mut file)?;
        drop(file);
        // Whatever the umask of the worker is: another user runs it.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    // Reads what follows the end, so that tar does not fail to write it.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends an entry with any name and type, as a hostile session would.
    fn entry(archive: &mut Vec<u8>, name: &str, kind: tar::EntryType, link: &str, contents: &[u8]) {
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(contents.len() as u64);
        header.set_mode(0o4777);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(contents);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }

    #[test]
    fn hostile_archives_write_nothing_outside_and_no_links() {
        use std::os::unix::fs::PermissionsExt;

        let (place, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let to = place.path().join("to");
        fs::create_dir(&to).unwrap();
        let stolen = outside.path().join("stolen");
        let mut archive = vec![];
        entry(&mut archive, "../escaped", tar::EntryType::Regular, "", b"x");
        entry(&mut archive, stolen.to_str().unwrap(), tar::EntryType::Regular, "", b"x");
        entry(&mut archive, "./link", tar::EntryType::Symlink, outside.path().to_str().unwrap(), b"");
        entry(&mut archive, "./hard", tar::EntryType::Link, "/etc/passwd", b"");
        entry(&mut archive, "./link/stolen", tar::EntryType::Regular, "", b"x");
        entry(&mut archive, "./a/b", tar::EntryType::Regular, "", b"kept");
        unpack(&archive[..], &to).unwrap();
        assert!(!stolen.exists() && !place.path().join("escaped").exists());
        assert_eq!(fs::read_to_string(to.join("a/b")).unwrap(), "kept");
        assert_eq!(fs::metadata(to.join("a/b")).unwrap().permissions().mode() & 0o7777, 0o755);
        // The link was not created, so that this is a directory.
        assert!(fs::symlink_metadata(to.join("link")).unwrap().is_dir());
        assert!(!to.join("hard").exists());
    }
}
