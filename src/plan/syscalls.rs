//! System calls that more than one layer makes, with names for their arguments.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::call::{Arg, flags, nr};
use super::flag::Flag;
use super::script::{Added, Script, Step};
use super::value::{Ref, Slot};

/// Highest signal number.
const SIGNALS: u64 = 64;

/// The `resolve` of `struct open_how`: inside the root, and through no magic link.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// For a path that the caller has resolved: a symlink that has appeared in it since is an error.
const NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;

impl Script {
    pub fn read(&mut self, fd: impl Into<Arg>, buffer: Ref, len: usize) -> Added<'_> {
        self.call(nr!(SYS_read), [fd.into(), buffer.into(), (len as u64).into()])
    }

    /// Waits for a byte from a pipe. Exits if its write end is closed.
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

    /// Writes the contents of a file.
    pub fn write_contents(&mut self, file: Slot, contents: &[u8]) {
        let bytes = self.arena.bytes(contents, format!("<{} bytes>", contents.len()));
        self.write(file, bytes, contents.len());
    }

    pub fn close(&mut self, fd: impl Into<Arg>) {
        self.call(nr!(SYS_close), [fd.into()]);
    }

    /// Closes a descriptor that no later call uses, whatever the path of execution. A call that follows may store its
    /// result in the same slot.
    pub fn close_and_free(&mut self, fd: Slot) {
        self.close(fd);
        self.free(fd);
    }

    pub fn exit(&mut self, status: i32) {
        self.call(nr!(SYS_exit_group), [status.into()]);
    }

    pub fn prctl(&mut self, option: Arg, value: impl Into<Arg>) -> Added<'_> {
        self.call(nr!(SYS_prctl), [option, value.into(), Arg::NONE, Arg::NONE, Arg::NONE])
    }

    fn open_how(&mut self, dir: Arg, path: &OsStr, resolve: u64, shown: &'static str) -> Added<'_> {
        self.open_with(dir, path, libc::O_PATH | libc::O_CLOEXEC, resolve, shown)
    }

    /// Opens a file for the caller, through no magic link.
    pub fn open_file(&mut self, path: &Path, flags: i32, mode: u32) -> Slot {
        // The kernel refuses a mode for a file that is not created.
        let mode = if flags & libc::O_CREAT != 0 { mode } else { 0 };
        let how = [flags as u64, mode.into(), libc::RESOLVE_NO_MAGICLINKS];
        let shown = format!("{{{flags:#x}, {mode:#o}, RESOLVE_NO_MAGICLINKS}}");
        self.open_how_with(Arg::CWD, path.as_os_str(), how, shown).store("file")
    }

    fn open_with(&mut self, dir: Arg, path: &OsStr, flags: i32, resolve: u64, shown: &'static str) -> Added<'_> {
        // EAGAIN: a rename or a mount on the machine raced with the path resolution (openat2(2)).
        self.open_how_with(dir, path, [flags as u64, 0, resolve], shown).again()
    }

    /// `how` is a `struct open_how`: flags, mode, and how the path is resolved.
    fn open_how_with(
        &mut self,
        dir: Arg,
        path: &OsStr,
        how: [u64; 3],
        shown: impl Into<Cow<'static, str>>,
    ) -> Added<'_> {
        let path = self.text(path);
        let how: Vec<u8> = how.into_iter().flat_map(u64::to_ne_bytes).collect();
        let how = self.arena.bytes(&how, shown);
        self.call(nr!(SYS_openat2), [dir, path, how.into(), 24u64.into()])
    }

    /// Opens (`O_PATH`) a path of the host that the caller has resolved.
    pub fn open_source(&mut self, path: &Path) -> Slot {
        let source = self.reusable_slot("source");
        self.open_how(Arg::CWD, path.as_os_str(), NO_SYMLINKS, "{O_PATH|O_CLOEXEC, RESOLVE_NO_SYMLINKS}")
            .store_in(source)
    }

    /// Opens (`O_PATH`) `path` in the tree below `root`, following symlinks as the program will.
    pub fn open_target(&mut self, root: Slot, path: &OsStr) -> Added<'_> {
        self.open_how(root.into(), path, IN_ROOT, "{O_PATH|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS}")
    }

    /// Opens (`O_PATH`) `path` in the tree below `root`, which must be a directory.
    pub fn open_target_directory(&mut self, root: Slot, path: &OsStr) -> Added<'_> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let shown = "{O_PATH|O_DIRECTORY|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS}";
        self.open_with(root.into(), path, flags, IN_ROOT, shown)
    }

    /// Opens (`O_PATH`) `path` in the tree below `root`: if it is a symlink, the link itself.
    pub fn open_target_itself(&mut self, root: Slot, path: &OsStr) -> Added<'_> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let shown = "{O_PATH|O_NOFOLLOW|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS}";
        self.open_with(root.into(), path, flags, IN_ROOT, shown)
    }

    /// Opens (`O_PATH`) `path` in the tree below `root`, through no symlink.
    pub fn open_beneath(&mut self, root: Slot, path: &OsStr) -> Added<'_> {
        let shown = "{O_PATH|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS}";
        self.open_how(root.into(), path, IN_ROOT | NO_SYMLINKS, shown)
    }

    /// Opens (`O_PATH`) a path through no magic link: a process that is not confined yet has descriptors of files
    /// outside.
    pub fn open_directory(&mut self, path: &Path) -> Slot {
        let shown = "{O_PATH|O_CLOEXEC, RESOLVE_NO_MAGICLINKS}";
        self.open_how(Arg::CWD, path.as_os_str(), libc::RESOLVE_NO_MAGICLINKS, shown).store("directory")
    }

    pub fn openat(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, flags: Arg, mode: u32) -> Slot {
        let path = self.text(path);
        self.call(nr!(SYS_openat), [dir.into(), path, flags, Arg::Octal(mode)]).store("fd")
    }

    /// Writes to an existing file.
    pub fn write_file(&mut self, path: &'static str, contents: Ref, len: usize) {
        let fd = self.openat(Arg::CWD, path, flags!(O_WRONLY | O_CLOEXEC), 0);
        self.write(fd, contents, len);
        self.close(fd);
    }

    pub fn mkdirat(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, mode: u32) {
        let path = self.text(path);
        self.call(nr!(SYS_mkdirat), [dir.into(), path, Arg::Octal(mode)]);
    }

    /// Creates an empty regular file.
    pub fn create(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, mode: u32) {
        let path = self.text(path);
        self.call(nr!(SYS_mknodat), [dir.into(), path, Arg::Octal(libc::S_IFREG | mode), Arg::NONE]);
    }

    pub fn unlinkat(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>) {
        let path = self.text(path);
        self.call(nr!(SYS_unlinkat), [dir.into(), path, Arg::NONE]);
    }

    pub fn symlinkat(&mut self, text: impl AsRef<OsStr>, dir: impl Into<Arg>, path: impl AsRef<OsStr>) {
        let (text, path) = (self.text(text), self.text(path));
        self.call(nr!(SYS_symlinkat), [text, dir.into(), path]);
    }

    /// Fails unless there is a symlink with this text: with EAGAIN if the text is another one.
    pub fn fail_unless_symlink(&mut self, dir: impl Into<Arg>, path: impl AsRef<OsStr>, text: &OsStr) {
        let path = self.text(path);
        // A text that is longer has a byte there that is not zero.
        let len = text.len() + 1;
        let mut expected = text.as_bytes().to_vec();
        expected.resize(len.next_multiple_of(4), 0);
        let found = self.arena.buffer(expected.len());
        self.call(nr!(SYS_readlinkat), [dir.into(), path, found.into(), (len as u64).into()]);
        for (index, word) in expected.as_chunks::<4>().0.iter().enumerate() {
            let plus = index as u32 * 4;
            self.fail_unless_equal(Ref { plus, ..found }, u32::from_ne_bytes(*word));
        }
    }

    /// Clones a child that shares the memory. `pid` is where the kernel writes its PID, and `flag` is cleared when it
    /// exits or executes a program.
    pub fn clone(&mut self, how: Arg, pid: impl Into<Arg>, flag: Flag) -> Added<'_> {
        // One of the last two is the address of the flag, the other is not used. Their order depends on the
        // architecture.
        let args = [how, Arg::NULL, pid.into(), flag.address(), flag.address()];
        self.call(nr!(SYS_clone), args)
    }

    /// Sets the permitted, effective and inheritable capability sets.
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

    /// Prevents processes of the same user from tracing the process and reading its memory (prctl(2),
    /// `PR_SET_DUMPABLE`).
    pub fn make_undumpable(&mut self) {
        self.step(Step::new("make the process undumpable"));
        self.prctl(flags!(PR_SET_DUMPABLE), 0);
    }

    /// Resets every signal to its default action, and unblocks all signals.
    pub fn reset_signals(&mut self) {
        self.step(Step::new("reset signals to their defaults"));
        let default = self.arena.bytes(&[0; 32], "{SIG_DFL}");
        for signal in (1..=SIGNALS).filter(|&s| s != libc::SIGKILL as u64 && s != libc::SIGSTOP as u64) {
            self.call(nr!(SYS_rt_sigaction), [signal.into(), default.into(), Arg::NULL, 8u64.into()]);
        }
        let none = self.arena.bytes(&[0; 8], "[]");
        self.call(nr!(SYS_rt_sigprocmask), [flags!(SIG_SETMASK), none.into(), Arg::NULL, 8u64.into()]);
    }

    /// Executes a program by its descriptor (execveat(2)).
    pub fn exec_image(&mut self, image: Slot, argv0: &str) {
        let argv = self.vector([argv0]);
        let envp = self.vector::<&str>([]);
        let empty = self.text("");
        self.call(nr!(SYS_execveat), [image.into(), empty, argv.into(), envp.into(), flags!(AT_EMPTY_PATH)]);
    }
}
