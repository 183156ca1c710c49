//! Which calls do something to files or addresses, and in which of their arguments they name them.

/// The argument with the descriptor of a directory, if there is one, and the argument with the path.
pub(super) type At = (Option<usize>, usize);

/// What a call does. Numbers are those of arguments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Open(At, Opening),
    /// The flags.
    Execute(At, Option<usize>),
    Make(At, Making),
    /// A file, a directory, or what the flags say.
    Remove(At, Removing),
    /// The flags.
    Link(At, At, Option<usize>),
    /// The flags.
    Rename(At, At, Option<usize>),
    Truncate(At),
    TruncateDescriptor,
    Control,
    Bind,
    Connect,
    Send,
    SendMessage,
    SendMessages,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    /// By flags.
    Flags(usize),
    /// As a file that is created.
    Creat,
    /// By a structure (`struct open_how`).
    How(usize),
}

/// What is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Making {
    Directory,
    Link,
    /// What a mode says.
    Mode(usize),
}

/// What is removed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Removing {
    File,
    Directory,
    /// What flags say.
    Flags(usize),
}

impl Act {
    /// What a call does, by its name; none if it does nothing that Landlock restricts.
    pub fn of(name: &str) -> Option<Self> {
        let own = |path| (None, path);
        let at = |directory, path| (Some(directory), path);
        Some(match name {
            "open" => Self::Open(own(0), Opening::Flags(1)),
            "creat" => Self::Open(own(0), Opening::Creat),
            "openat" => Self::Open(at(0, 1), Opening::Flags(2)),
            "openat2" => Self::Open(at(0, 1), Opening::How(2)),
            "execve" => Self::Execute(own(0), None),
            "execveat" => Self::Execute(at(0, 1), Some(4)),
            "mkdir" => Self::Make(own(0), Making::Directory),
            "mkdirat" => Self::Make(at(0, 1), Making::Directory),
            "mknod" => Self::Make(own(0), Making::Mode(1)),
            "mknodat" => Self::Make(at(0, 1), Making::Mode(2)),
            "symlink" => Self::Make(own(1), Making::Link),
            "symlinkat" => Self::Make(at(1, 2), Making::Link),
            "unlink" => Self::Remove(own(0), Removing::File),
            "rmdir" => Self::Remove(own(0), Removing::Directory),
            "unlinkat" => Self::Remove(at(0, 1), Removing::Flags(2)),
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
    use crate::system_call::SystemCall;

    #[test]
    fn all_names_are_those_of_system_calls() {
        let known = SystemCall::all().filter_map(SystemCall::name).filter(|name| Act::of(name).is_some()).count();
        assert_eq!(known, if cfg!(target_arch = "x86_64") { 28 } else { 18 });
    }
}
