//! The system calls that Landlock restricts, and which of their arguments are paths, descriptors, flags and addresses.

/// The index of the argument with a directory descriptor, if there is one, and of the argument with the path.
pub(super) type PathArguments = (Option<usize>, usize);

/// What a call does. Numbers are indexes of arguments. A final `usize` is the index of the flags.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    Open(PathArguments, OpenArguments),
    Execute(PathArguments, Option<usize>),
    Create(PathArguments, NewKind),
    Remove(PathArguments, RemovalKind),
    Link(PathArguments, PathArguments, Option<usize>),
    Rename(PathArguments, PathArguments, Option<usize>),
    Truncate(PathArguments),
    TruncateDescriptor,
    Control,
    Bind,
    Connect,
    Send,
    SendMessage,
    SendMessages,
}

/// How the flags of an open are passed.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpenArguments {
    /// As an argument.
    Flags(usize),
    /// Implied by creat(2).
    Creat,
    /// In a structure (`struct open_how`).
    How(usize),
}

/// What is created.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewKind {
    Directory,
    Link,
    /// The file type in a mode.
    Mode(usize),
}

/// What is removed.
#[derive(Clone, Copy, Debug)]
pub(super) enum RemovalKind {
    File,
    Directory,
    /// A file or a directory, depending on flags.
    Flags(usize),
}

impl Effect {
    /// Returns what a call does, by its name. `None` if Landlock does not restrict it.
    pub fn of(name: &str) -> Option<Self> {
        let own = |path| (None, path);
        let at = |directory, path| (Some(directory), path);
        Some(match name {
            "open" => Self::Open(own(0), OpenArguments::Flags(1)),
            "creat" => Self::Open(own(0), OpenArguments::Creat),
            "openat" => Self::Open(at(0, 1), OpenArguments::Flags(2)),
            "openat2" => Self::Open(at(0, 1), OpenArguments::How(2)),
            "execve" => Self::Execute(own(0), None),
            "execveat" => Self::Execute(at(0, 1), Some(4)),
            "mkdir" => Self::Create(own(0), NewKind::Directory),
            "mkdirat" => Self::Create(at(0, 1), NewKind::Directory),
            "mknod" => Self::Create(own(0), NewKind::Mode(1)),
            "mknodat" => Self::Create(at(0, 1), NewKind::Mode(2)),
            "symlink" => Self::Create(own(1), NewKind::Link),
            "symlinkat" => Self::Create(at(1, 2), NewKind::Link),
            "unlink" => Self::Remove(own(0), RemovalKind::File),
            "rmdir" => Self::Remove(own(0), RemovalKind::Directory),
            "unlinkat" => Self::Remove(at(0, 1), RemovalKind::Flags(2)),
            "link" => Self::Link(own(0), own(1), None),
            "linkat" => Self::Link(at(0, 1), at(2, 3), Some(4)),
            "rename" => Self::Rename(own(0), own(1), None),
            "renameat" => Self::Rename(at(0, 1), at(2, 3), None),
            "renameat2" => Self::Rename(at(0, 1), at(2, 3), Some(4)),
            "truncate" => Self::Truncate(own(0)),
            "ftruncate" => Self::TruncateDescriptor,
            "ioctl" => Self::Control,
            "bind" => Self::Bind,
            "connect" => Self::Connect,
            "sendto" => Self::Send,
            "sendmsg" => Self::SendMessage,
            "sendmmsg" => Self::SendMessages,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::SystemCall;

    #[test]
    fn all_names_are_names_of_system_calls() {
        let known = SystemCall::all().filter_map(SystemCall::name).filter(|name| Effect::of(name).is_some()).count();
        assert_eq!(known, if cfg!(target_arch = "x86_64") { 28 } else { 18 });
    }
}
