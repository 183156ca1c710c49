//! What holds for any configuration: it is plain data, and a plan is made of it or refused with words.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use stockade::{
    Bind, Collected, Collector, Command, Errno, Error, FsAccess, HidePid, IdRange, Identity, Learned, Mount,
    Namespaces, Overlay, Proc, Root, Sandbox, Stdio, TimeOffsets, Tmpfs, Unfit,
};

/// Paths as people write them, and as they should not.
fn path() -> impl Strategy<Value = PathBuf> {
    let text = prop_oneof![
        4 => "/[a-z]{1,6}(/[a-z]{1,6}){0,3}",
        1 => prop::sample::select(vec!["/", "", ".", "relative", "/a/../b", "/usr", "/etc/passwd", "/tmp", "/proc", "/a\0b"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,12}",
    ];
    prop_oneof![6 => text.prop_map(PathBuf::from), 1 => name().prop_map(PathBuf::from)]
}

/// Any bytes: a program names its files as it likes.
fn name() -> impl Strategy<Value = OsString> {
    let byte = prop_oneof![4 => any::<u8>(), 1 => Just(b'\\'), 1 => Just(b'x')];
    vec(byte, 0..12).prop_map(OsString::from_vec)
}

/// A command with any words, and without descriptors, which are no data.
fn command() -> impl Strategy<Value = Command> {
    let variables = vec((name(), name()), 0..4);
    (name(), vec(name(), 0..4), variables, proptest::option::of(name())).prop_map(|(program, args, variables, cwd)| {
        let mut command = Command::new(program);
        command.args(args).envs(variables).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        command
    })
}

fn learned() -> impl Strategy<Value = Learned> {
    vec(path(), 0..4).prop_map(|paths| {
        let mut learned = Learned::default();
        learned.paths = paths.into_iter().map(|path| (path, FsAccess::READ_FILE)).collect();
        learned
    })
}

/// Names that a file can have, and texts of symbolic links.
fn file_name() -> impl Strategy<Value = OsString> {
    let byte = prop_oneof![4 => any::<u8>(), 1 => Just(b'\\'), 1 => Just(b'x')];
    let is_name = |bytes: &Vec<u8>| bytes != b"." && bytes != b"..";
    vec(byte.prop_filter("no name has it", |byte| !b"\0/".contains(byte)), 1..12)
        .prop_filter("a directory's own", is_name)
        .prop_map(OsString::from_vec)
}

/// What a program has left, which is collected.
fn collected() -> impl Strategy<Value = Collected> {
    let left = vec((file_name(), file_name(), any::<bool>()), 0..4);
    (left, any::<i32>()).prop_map(|(left, errno)| {
        let place = tempfile::tempdir().expect("a directory");
        let from = place.path().join("from");
        std::fs::create_dir(&from).expect("a directory");
        for (name, text, is_link) in left {
            // Two may have one name.
            let path = from.join(name);
            let _ = if is_link { symlink(text, path) } else { std::fs::create_dir(path) };
        }
        let copy = |collector: Collector, to| collector.copy(&from, place.path().join(to)).expect("a copy");
        let mut collected = copy(Collector::new().symlinks(), "told");
        collected.left = copy(Collector::new(), "left").left;
        if let Some(last) = collected.left.last_mut() {
            last.why = Unfit::Unreadable(Errno(errno));
        }
        collected
    })
}

fn mount() -> impl Strategy<Value = Mount> {
    let hidepid = prop::sample::select(vec![HidePid::NoAccess, HidePid::Invisible, HidePid::Ptraceable]);
    prop_oneof![
        (path(), path()).prop_map(|(source, target)| Bind::new(source, target).writable().noexec().into()),
        (path(), path()).prop_map(|(source, target)| Bind::new(source, target).owner(1, 2).devices().into()),
        (path(), any::<u64>(), any::<u64>()).prop_map(|(target, size, inodes)| Tmpfs::new(target)
            .size(size)
            .inodes(inodes)
            .noexec()
            .into()),
        (path(), vec(path(), 0..3))
            .prop_map(|(target, lowers)| { lowers.into_iter().fold(Overlay::new(target), Overlay::lower).into() }),
        (path(), hidepid).prop_map(|(target, hidepid)| Proc::new(target).hidepid(hidepid).subset_pid().into()),
        path().prop_map(Mount::Dev),
        (path(), vec(any::<u8>(), 0..64), 0u32..0o10000).prop_map(|(target, contents, mode)| Mount::File {
            target,
            contents,
            mode
        }),
        (path(), path()).prop_map(|(text, link)| Mount::Symlink { text: text.into(), link }),
        (path(), 0u32..0o10000).prop_map(|(target, mode)| Mount::Dir { target, mode }),
        path().prop_map(Mount::Mask),
        path().prop_map(Mount::ReadOnly),
    ]
}

fn root() -> impl Strategy<Value = Root> {
    let base = prop_oneof![
        Just(Root::host()),
        Just(Root::empty()),
        Just(Root::inherit()),
        Just(Root::empty().writable()),
        path().prop_map(Root::dir),
    ];
    (base, vec(mount(), 0..5)).prop_map(|(base, mounts)| mounts.into_iter().fold(base, Root::mount))
}

fn identity() -> impl Strategy<Value = Identity> {
    let range = (any::<u32>(), any::<u32>(), any::<u32>());
    let range = range.prop_map(|(inside, outside, count)| IdRange { inside, outside, count });
    prop_oneof![
        Just(Identity::new()),
        Just(Identity::caller()),
        (any::<u32>(), any::<u32>()).prop_map(|(uid, gid)| Identity::new().uid(uid).gid(gid)),
        vec(any::<u32>(), 0..4).prop_map(|groups| Identity::new().groups(groups)),
        (any::<u32>(), any::<u32>()).prop_map(|(first, count)| Identity::new().host_ids(first, count)),
        (vec(range.clone(), 0..3), vec(range, 0..3)).prop_map(|(uid, gid)| Identity::new().maps(uid, gid)),
    ]
}

fn sandbox() -> impl Strategy<Value = Sandbox> {
    let offsets = proptest::option::of((any::<i64>(), any::<i64>()));
    (any::<u32>(), root(), identity(), "\\PC{0,80}", offsets).prop_map(|(bits, root, identity, name, offsets)| {
        let sandbox = Sandbox::new()
            .namespaces(Namespaces::from_bits_truncate(bits))
            .root(root)
            .identity(identity)
            .hostname(&name)
            .domain_name(name);
        match offsets {
            Some((monotonic, boottime)) => sandbox.time_offsets(TimeOffsets { monotonic, boottime }),
            None => sandbox,
        }
    })
}

proptest! {
    #[test]
    fn a_configuration_is_the_same_after_a_trip_through_json(sandbox in sandbox()) {
        let json = serde_json::to_string(&sandbox).expect("as JSON");
        prop_assert_eq!(serde_json::from_str::<Sandbox>(&json).expect("from JSON"), sandbox);
    }

    #[test]
    fn commands_and_what_was_learned_are_the_same_after_a_trip_through_json(command in command(), learned in learned()) {
        let json = serde_json::to_string(&command).expect("as JSON");
        prop_assert_eq!(serde_json::from_str::<Command>(&json).expect("from JSON"), command);
        let json = serde_json::to_string(&learned).expect("as JSON");
        prop_assert_eq!(serde_json::from_str::<Learned>(&json).expect("from JSON"), learned);
    }

    #[test]
    fn what_is_collected_is_the_same_after_a_trip_through_json(collected in collected()) {
        let json = serde_json::to_string(&collected).expect("as JSON");
        prop_assert_eq!(serde_json::from_str::<Collected>(&json).expect("from JSON"), collected);
    }

    #[test]
    fn what_is_planned_is_launched_or_fails_with_a_typed_error(sandbox in sandbox()) {
        if let Ok(plan) = sandbox.plan(Command::new("true").stdout(Stdio::null())) {
            match plan.spawn() {
                Ok(mut child) => drop(child.wait().expect("an outcome")),
                Err(Error::SetUp { step, .. }) => prop_assert!(!step.is_empty()),
                Err(Error::NotFound { .. } | Error::NotExecutable { .. }) => {}
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn a_plan_is_made_or_refused_with_words(sandbox in sandbox(), cwd in path(), args in vec("\\PC{0,9}", 0..3)) {
        match sandbox.plan(Command::new("true").args(args).current_dir(cwd)) {
            Ok(plan) => prop_assert!(plan.to_string().contains("execve")),
            Err(Error::Invalid { what, remedy, .. }) => prop_assert!(!what.is_empty() && !remedy.is_empty()),
            Err(error @ Error::SetUp { .. }) => prop_assert!(error.remedy().is_some(), "{}", error),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
