//! The interpreter that a script or an ELF file names, and that the kernel opens on execve(2).

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Bytes of a script that the kernel reads (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// Bytes of the header of a 64-bit ELF file.
const ELF_HEADER: usize = 64;
/// Maximum number of program headers that are read.
const MAX_SEGMENTS: u16 = 512;
const PT_INTERP: u32 = 3;
/// Bytes of the longest path, including the terminating null.
const PATH_MAX: u64 = 4096;

/// Returns the path of the interpreter that a program names, if it names one and can be read.
pub(super) fn interpreter(program: &OwnedFd) -> Option<Vec<u8>> {
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut head = [0; HEAD];
    let len = file.read_at(&mut head, 0).ok()?;
    match &head[..len] {
        [b'#', b'!', line @ ..] => of_script(line),
        head @ [0x7f, b'E', b'L', b'F', ..] if head.len() >= ELF_HEADER => of_elf(&file, head),
        _ => None,
    }
}

/// Returns the interpreter of a script: the first word after `#!`.
fn of_script(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty()).map(<[u8]>::to_vec)
}

/// Returns the contents of the segment `PT_INTERP` of a 64-bit file (elf(5)). A seccomp filter kills 32-bit programs.
fn of_elf(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    let start = u64::from_ne_bytes(head[32..40].try_into().ok()?);
    let half = |at: usize| Some(u16::from_ne_bytes(head[at..at + 2].try_into().ok()?));
    let (size, count) = (half(54)?, half(56)?);
    for index in 0..count.min(MAX_SEGMENTS) {
        let mut header = [0; 56];
        file.read_exact_at(&mut header, start.checked_add(u64::from(index) * u64::from(size))?).ok()?;
        let long = |at: usize| Some(u64::from_ne_bytes(header[at..at + 8].try_into().ok()?));
        if u32::from_ne_bytes(header[..4].try_into().ok()?) == PT_INTERP {
            let mut text = vec![0; long(32)?.min(PATH_MAX) as usize];
            file.read_exact_at(&mut text, long(8)?).ok()?;
            return text.split(|&byte| byte == 0).next().map(<[u8]>::to_vec);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<String> {
        let interpreter = interpreter(&File::open(path).expect(path).into());
        interpreter.map(|path| String::from_utf8(path).expect("a path"))
    }

    #[test]
    fn a_program_names_the_dynamic_linker() {
        let own = std::env::current_exe().expect("own path");
        let linker = of(own.to_str().expect("a text")).expect("an interpreter");
        assert!(linker.starts_with("/lib") && std::path::Path::new(&linker).exists(), "{linker}");
    }

    #[test]
    fn a_script_names_the_first_word_of_its_line() {
        for (line, word) in [
            ("/bin/sh\nexit", Some("/bin/sh")),
            (" \t/usr/bin/env  python3", Some("/usr/bin/env")),
            ("bin/relative", Some("bin/relative")),
            ("  \n/bin/sh", None),
            ("", None),
        ] {
            assert_eq!(of_script(line.as_bytes()).as_deref(), word.map(str::as_bytes), "{line:?}");
        }
    }

    #[test]
    fn truncated_and_corrupt_programs_name_no_interpreter() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        let own = std::fs::read("/proc/self/exe").expect("this program");
        let mut far = own[..HEAD].to_vec();
        far[32..40].fill(0xff);
        for bytes in [&[][..], b"#!", b"\x7fELF", &own[..63], &own[..70], &far] {
            std::fs::write(&path, bytes).expect("a file");
            assert_eq!(of(path.to_str().expect("a text")), None, "{} bytes", bytes.len());
        }
    }
}
