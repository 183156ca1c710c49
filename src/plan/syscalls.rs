//! The system calls that more than one feature makes, with names for their arguments.

use std::ffi::OsStr;
use std::path::Path;

use super::arena::Ref;
use super::call::{Arg, Slot, flags, nr};
use super::program::{Added, Program, Step};
use super::sync::Flag;

/// Highest signal number.
const SIGNALS: u64 = 64;

/// `struct open_how` resolution: beneath the root, as if it were the process's own, and by no magic link.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// The path as the host resolved it: a symlink that has appeared in it since is an error.
const NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;

impl Program {
    pub fn read(&mut self, fd: impl Into<Arg>, buffer: Ref, len: usize) -> Added<'_> {
        self.call(nr!(SYS_read), [fd.into(), buffer.into(), (len as u64).into()])
    }

    /// Waits for a byte from a pipe, and ends when nobody holds its other end any more.
    pub fn wait_for_byte(&mut self, pipe: Slot) {
        let byte = self.arena.buffer(8);
        let go = self.label();
        self.read(pipe, byte, 1).above_zero(go);
        self.exit(0);
        self.bind(go);
    }

    pub fn write(&mut self, fd: impl Into<Arg>, data: impl Into<Arg>, len: usize) -> Added<'_> {
        self.call(nr!(SYS_write), [fd.into(), data.into(), (len as u64).into()])
    }

    pub fn close(&mut self, fd: impl Into<Arg>) {
        self.call(nr!(SYS_close), [fd.into()]);
    }

    pub fn exit(&mut self, status: i32) {
        self.call(nr!(SYS_exit_group), [status.into()]);
    }

    pub fn prctl(&mut self, option: Arg, value: impl Into<Arg>) -> Added<'_> {
        self.call(nr!(SYS_prctl), [option, value.into(), Arg::NONE, Arg::NONE, Arg::NONE])
    }

    fn open_how(&mut self, dir: Arg, path: &OsStr, resolve: u64, shown: &'static str) -> Added<'_> {
        let path = self.text(path);
        let how = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, resolve];
        let how: Vec<u8> = how.into_iter().flat_map(u64::to_ne_bytes).collect();
        let how = self.arena.bytes(&how, shown);
        // A rename or a mount anywhere on the machine may come between the parts of a path: EAGAIN (openat2(2)).
        self.call(nr!(SYS_openat2), [dir, path, how.into(), 24u64.into()]).again()
    }

    /// Opens, for its place alone, a path of the host that the host has resolved already.
    pub fn open_source(&mut self, path: &Path) -> Slot {
        self.open_how(Arg::CWD, path.as_os_str(), NO_SYMLINKS, "{O_PATH|O_CLOEXEC, RESOLVE_NO_SYMLINKS}")
            .store("source")
    }

    /// Opens, for its place alone, what `path` is in the tree below `root`, following links as the sandbox will.
    pub fn open_target(&mut self, root: Slot, path: &OsStr) -> Added<'_> {
        self.open_how(root.into(), path, IN_ROOT, "{O_PATH|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS}")
    }

    /// The same, where no symlink may be on the way.
    pub fn open_beneath(&mut self, root: Slot, path: &OsStr) -> Added<'_> {
        let shown = "{O_PATH|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS}";
        self.open_how(root.into(), path, IN_ROOT | NO_SYMLINKS, shown)
    }

    /// Opens, for its place alone, a path that no magic link may lead elsewhere: a process that is not confined yet has
    /// descriptors that lead out.
    pub fn open_directory(&mut self, path: &Path) -> Slot {
        let shown = "{O_PATH|O_CLOEXEC, RESOLVE_NO_MAGICLINKS}";
        self.open_how(Arg::CWD, path.as_os_str(), libc::RESOLVE_NO_MAGICLINKS, shown).store("directory")
    }

    pub fn openat(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, flags: Arg, mode: u32) -> Slot {
        let path = self.text(path);
        self.call(nr!(SYS_openat), [dir.into(), path, flags, Arg::Octal(mode)]).store("fd")
    }

    /// Writes to a file that exists.
    pub fn write_file(&mut self, path: &'static str, contents: Ref, len: usize) {
        let fd = self.openat(Arg::CWD, path, flags!(O_WRONLY | O_CLOEXEC), 0);
        self.write(fd, contents, len);
        self.close(fd);
    }

    pub fn mkdirat(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, mode: u32) {
        let path = self.text(path);
        self.call(nr!(SYS_mkdirat), [dir.into(), path, Arg::Octal(mode)]);
    }

    /// Makes an empty regular file.
    pub fn create(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, mode: u32) {
        let path = self.text(path);
        self.call(nr!(SYS_mknodat), [dir.into(), path, Arg::Octal(libc::S_IFREG | mode), Arg::NONE]);
    }

    pub fn symlinkat(&mut self, text: impl AsRef<OsStr>, dir: impl Into<Arg>, path: impl AsRef<OsStr>) {
        let (text, path) = (self.text(text), self.text(path));
        self.call(nr!(SYS_symlinkat), [text, dir.into(), path]);
    }

    /// clone(2) of a child that shares the memory, with the place of its pid, and a flag that is cleared when it ends or executes
    /// something.
    pub fn clone(&mut self, how: Arg, pid: impl Into<Arg>, flag: Flag) -> Added<'_> {
        // Of the last two one is the flag's address and the other is not used, in an order that the architectures differ in.
        let args = [how, Arg::NULL, pid.into(), flag.address(), flag.address()];
        self.call(nr!(SYS_clone), args)
    }

    /// Sets the permitted and effective set of capabilities, and the inheritable one.
    pub fn capset(&mut self, permitted: u64, inheritable: u64) -> Added<'_> {
        // struct __user_cap_header_struct {u32 version; int pid}
        let header = [0x2008_0522u32, 0].map(u32::to_ne_bytes);
        let header = self.arena.bytes(header.as_flattened(), "{_LINUX_CAPABILITY_VERSION_3, 0}");
        // struct __user_cap_data_struct {u32 effective, permitted, inheritable}, the lower halves first
        let halves = [0, 32].map(|shift| [permitted, permitted, inheritable].map(|set| (set >> shift) as u32));
        let sets: Vec<u8> = halves.as_flattened().iter().flat_map(|half| half.to_ne_bytes()).collect();
        let shown = match permitted | inheritable {
            0 => "{effective = permitted = inheritable = 0}".into(),
            _ => format!("{{effective = permitted = {permitted:#x}, inheritable = {inheritable:#x}}}"),
        };
        let sets = self.arena.bytes(&sets, shown);
        self.call(nr!(SYS_capset), [header.into(), sets.into()])
    }

    pub fn dup3(&mut self, fd: impl Into<Arg>, to: u64, flags: Arg) -> Added<'_> {
        self.call(nr!(SYS_dup3), [fd.into(), to.into(), flags])
    }

    pub fn fcntl(&mut self, fd: impl Into<Arg>, command: Arg, value: Arg) -> Added<'_> {
        self.call(nr!(SYS_fcntl), [fd.into(), command, value])
    }

    pub fn ioctl(&mut self, fd: impl Into<Arg>, request: Arg, value: Arg) -> Added<'_> {
        self.call(nr!(SYS_ioctl), [fd.into(), request, value])
    }

    pub fn setns(&mut self, fd: impl Into<Arg>, kinds: Arg) {
        self.call(nr!(SYS_setns), [fd.into(), kinds]);
    }

    /// Keeps the process from being looked into by those that have its user id (prctl(2), `PR_SET_DUMPABLE`).
    pub fn hide(&mut self) {
        self.step(Step::new("keeping the process from being looked into"));
        self.prctl(flags!(PR_SET_DUMPABLE), 0);
    }

    /// Sets every signal to its default, and the mask of blocked signals to none.
    pub fn reset_signals(&mut self) {
        self.step(Step::new("resetting signals to their defaults"));
        let default = self.arena.bytes(&[0; 32], "{SIG_DFL}");
        for signal in (1..=SIGNALS).filter(|&s| s != libc::SIGKILL as u64 && s != libc::SIGSTOP as u64) {
            self.call(nr!(SYS_rt_sigaction), [signal.into(), default.into(), Arg::NULL, 8u64.into()]);
        }
        let none = self.arena.bytes(&[0; 8], "[]");
        self.call(nr!(SYS_rt_sigprocmask), [flags!(SIG_SETMASK), none.into(), Arg::NULL, 8u64.into()]);
    }

    /// `execveat` of a descriptor.
    pub fn exec_image(&mut self, image: Slot, argv0: &str) {
        let argv = self.vector([argv0]);
        let envp = self.vector::<&str>([]);
        let empty = self.text("");
        self.call(nr!(SYS_execveat), [image.into(), empty, argv.into(), envp.into(), flags!(AT_EMPTY_PATH)]);
    }
}
