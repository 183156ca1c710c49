//! Which scripts may be executed in memory of the caller. A script can hold any number, also where the kernel takes a
//! pointer, so each call is checked against the list of those that need nothing but the script's own memory. A script
//! that is executed in an image of its own is not checked.

use crate::plan::{Arg, Call, OnError, Script, Slot, nr};

/// The process that executes a script in memory of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executor {
    Caller,
    /// A child. It may share the caller's table of descriptors (`CLONE_FILES`).
    Child {
        shares_descriptors: bool,
    },
}

/// What a call takes as an argument.
#[derive(Clone, Copy)]
enum Taken {
    Number,
    /// This number.
    Exactly(i64),
    /// An address of data of the script, which the kernel only reads.
    Read,
    /// The address of as many `struct pollfd` as the next argument says. The kernel writes to them.
    PollFds,
}
use Taken::{Exactly, Number, PollFds, Read};

/// The calls that open a descriptor, and need no other memory than the script's.
const OPENING: [(i64, &[Taken]); 2] =
    [(libc::SYS_openat2, &[Number, Read, Read, Number]), (libc::SYS_open_tree, &[Number, Read, Number])];
/// The other calls that every process may make in memory of the caller.
const OF_ANY: [(i64, &[Taken]); 3] = [
    (libc::SYS_mount_setattr, &[Number, Read, Number, Read, Number]),
    (libc::SYS_getpid, &[]),
    (libc::SYS_gettid, &[]),
];
/// Those of a child alone: they change the process that makes them.
const OF_CHILD: [(i64, &[Taken]); 6] = [
    (libc::SYS_prctl, &[Exactly(libc::PR_SET_NO_NEW_PRIVS as i64), Number, Number, Number, Number]),
    (libc::SYS_capset, &[Read, Read]),
    (libc::SYS_seccomp, &[Exactly(libc::SECCOMP_SET_MODE_FILTER as i64), Exactly(0), Read]),
    (libc::SYS_ppoll, &[PollFds, Number, Exactly(0), Exactly(0), Number]),
    (libc::SYS_execveat, &[Number, Read, Read, Read, Number]),
    (libc::SYS_exit_group, &[Number]),
];
/// Those of a child with a table of descriptors of its own: they close descriptors, or change their flags.
const OF_CHILD_WITH_DESCRIPTORS: [(i64, &[Taken]); 2] = [
    (libc::SYS_close_range, &[Number, Number, Number]),
    (libc::SYS_fcntl, &[Number, Exactly(libc::F_SETFD as i64), Number]),
];

/// A script whose calls need no memory of the caller but its own: the kernel writes only to the script's memory, and no
/// call maps, unmaps or protects memory of the caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// The slots that hold nothing but descriptors which calls of the script have opened.
    pub opened: Vec<Slot>,
}

impl Checked {
    /// Checks a script. The error is the index of a call that `executor` may not make.
    pub fn new(script: &Script, executor: Executor) -> Result<Self, usize> {
        let is_allowed = |call: &Call| {
            taken(call, executor).is_some_and(|taken| takes(script, call, taken))
                && call.store.is_none_or(|slot| has(script, slot))
                // The interpreter of a child goes on with what lies behind the table. The caller does not.
                && (executor == Executor::Caller || goes_on_inside(script, call))
        };
        if let Some(refused) = script.calls.iter().position(|call| !is_allowed(call)) {
            return Err(refused);
        }
        if executor != Executor::Caller && !script.calls.last().is_some_and(never_returns) {
            return Err(script.calls.len());
        }
        Ok(Self { opened: opened(script) })
    }
}

/// Returns the arguments of a call. `None` if it may not be made.
fn taken(call: &Call, executor: Executor) -> Option<&'static [Taken]> {
    let of_child = if executor == Executor::Caller { &[][..] } else { &OF_CHILD };
    let has_descriptors = executor == Executor::Child { shares_descriptors: false };
    let of_own = if has_descriptors { &OF_CHILD_WITH_DESCRIPTORS[..] } else { &[] };
    let lists = [&OPENING[..], &OF_ANY, of_child, of_own];
    lists.into_iter().flatten().find(|(number, _)| *number == i64::from(call.nr.number)).map(|(_, taken)| *taken)
}

fn takes(script: &Script, call: &Call, taken: &[Taken]) -> bool {
    let args = call.args();
    let is_one = |(index, &taken): (usize, &Taken)| match (taken, args[index]) {
        (Number, Arg::Slot(slot)) => has(script, slot),
        (Number, Arg::SlotAddress(_) | Arg::Data(_)) => false,
        (Number, _) => true,
        (Exactly(number), arg) => arg.number() == Some(number as u64),
        (Read, Arg::Data(_)) => true,
        (PollFds, Arg::Data(place)) => {
            let count = args.get(index + 1).and_then(|count| count.number());
            let len = count.and_then(|count| count.checked_mul(size_of::<libc::pollfd>() as u64));
            len.is_some_and(|len| len <= script.arena.room(place) as u64)
        }
        (Read | PollFds, _) => false,
    };
    args.len() == taken.len() && taken.iter().enumerate().all(is_one)
}

fn has(script: &Script, slot: Slot) -> bool {
    usize::from(slot.0) < script.slots.len()
}

/// Returns whether the calls exist at which the script goes on after a call.
fn goes_on_inside(script: &Script, call: &Call) -> bool {
    let error = match call.on_error {
        OnError::Goto(label) | OnError::GotoIf(_, label) => Some(label),
        OnError::Fail | OnError::Ignore => None,
    };
    [error, call.above_zero].into_iter().all(|label| (script.target(label) as usize) < script.calls.len())
}

fn never_returns(call: &Call) -> bool {
    let is_one_of = [nr!(SYS_exit_group), nr!(SYS_execveat)].iter().any(|last| last.number == call.nr.number);
    is_one_of && call.on_error == OnError::Fail && call.above_zero.is_none()
}

/// Returns whether the result of a call is a new descriptor.
pub(super) fn opens(call: &Call) -> bool {
    OPENING.iter().any(|(number, _)| *number == i64::from(call.nr.number))
}

/// Returns the slots in which only calls store a result that open a descriptor.
fn opened(script: &Script) -> Vec<Slot> {
    let mut slots: Vec<bool> = script.slots.iter().map(|slot| slot.first.is_none()).collect();
    slots.iter_mut().take(Script::RESERVED.len()).for_each(|holds| *holds = false);
    for call in script.calls.iter().filter(|call| !opens(call)) {
        if let Some(holds) = call.store.and_then(|slot| slots.get_mut(usize::from(slot.0))) {
            *holds = false;
        }
    }
    (0..).map(Slot).zip(slots).filter_map(|(slot, holds)| holds.then_some(slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Attributes, Change, Nr, flags};
    use crate::sys::clone::ChildProcess;
    use crate::sys::in_caller;
    use crate::sys::layout::Layout;
    use nix::errno::Errno;

    const OWN: Executor = Executor::Child { shares_descriptors: false };
    const SHARING: Executor = Executor::Child { shares_descriptors: true };
    const ALL: [Executor; 3] = [Executor::Caller, OWN, SHARING];

    /// A script with these calls, which ends.
    fn script(calls: impl FnOnce(&mut Script)) -> Script {
        let mut script = Script::new("test");
        calls(&mut script);
        script.exit(0);
        script
    }

    /// The executors that may execute these calls.
    fn executors(calls: impl FnOnce(&mut Script)) -> Vec<Executor> {
        let mut script = Script::new("test");
        calls(&mut script);
        // The caller is not to exit.
        let may_caller = Checked::new(&script, Executor::Caller).is_ok();
        script.exit(0);
        let children = [OWN, SHARING].into_iter().filter(|&child| Checked::new(&script, child).is_ok());
        may_caller.then_some(Executor::Caller).into_iter().chain(children).collect()
    }

    /// The executors that may make a call.
    fn executors_of<const N: usize>(nr: Nr, args: [Arg; N]) -> Vec<Executor> {
        executors(|script| {
            script.call(nr, args);
        })
    }

    #[test]
    fn every_executor_may_bind_a_file() {
        let calls = |script: &mut Script| {
            let source = script.open_source("/etc".as_ref());
            let tree = script.open_tree(source, "");
            script.mount_setattr(tree, Change::tree(Attributes::RDONLY));
        };
        assert_eq!(executors(calls), ALL);
    }

    #[test]
    fn a_number_is_no_pointer() {
        assert_eq!(executors_of(nr!(SYS_open_tree), [0.into(), 0x1000.into(), 0.into()]), []);
        let value_of_a_slot = |script: &mut Script| {
            let slot = script.value("address", 0x1000);
            script.call(nr!(SYS_open_tree), [0.into(), slot.into(), 0.into()]);
        };
        assert_eq!(executors(value_of_a_slot), []);
    }

    #[test]
    fn the_kernel_writes_to_data_of_the_script_alone() {
        let read = |script: &mut Script| {
            let buffer = script.arena.buffer(8);
            script.read(0, buffer, 8);
        };
        assert_eq!(executors(read), []);
        let poll = |len: usize, count: u64| {
            move |script: &mut Script| {
                let entries = script.arena.buffer(len);
                script.call(nr!(SYS_ppoll), [entries.into(), count.into(), Arg::NULL, Arg::NULL, 8.into()]);
            }
        };
        assert_eq!(executors(poll(16, 2)), [OWN, SHARING]);
        assert_eq!(executors(poll(16, 3)), []);
        assert_eq!(executors(poll(16, u64::MAX)), []);
    }

    #[test]
    fn memory_of_the_caller_is_not_mapped() {
        assert_eq!(executors_of(nr!(SYS_munmap), [0x1000.into(), 0x1000.into()]), []);
    }

    #[test]
    fn only_descriptors_that_are_not_shared_are_closed() {
        assert_eq!(executors_of(nr!(SYS_close_range), [0.into(), 9.into(), Arg::NONE]), [OWN]);
        assert_eq!(executors_of(nr!(SYS_fcntl), [0.into(), flags!(F_SETFD), Arg::NONE]), [OWN]);
        assert_eq!(executors_of(nr!(SYS_fcntl), [0.into(), flags!(F_DUPFD), Arg::NONE]), []);
    }

    #[test]
    fn a_slot_of_another_script_is_refused() {
        let beyond = Slot(1000);
        let store = |script: &mut Script| {
            script.call(nr!(SYS_getpid), []).store_in(beyond);
        };
        assert_eq!(executors(store), []);
        let set = |script: &mut Script| {
            script.mount_setattr(beyond, Change::tree(Attributes::RDONLY));
        };
        assert_eq!(executors(set), []);
    }

    #[test]
    fn the_script_of_a_child_ends() {
        let mut endless = Script::new("test");
        endless.call(nr!(SYS_getpid), []);
        assert_eq!(Checked::new(&endless, OWN), Err(1));
        let mut behind = script(|_| ());
        let end = behind.label();
        behind.calls[0].on_error = OnError::Goto(end);
        behind.bind(end);
        assert_eq!(Checked::new(&behind, OWN), Err(0));
        assert_eq!(Checked::new(&Script::new("test"), OWN), Err(0));
    }

    #[test]
    fn a_slot_with_another_result_holds_no_descriptor() {
        let mut script = Script::new("test");
        let tree = script.open_tree(0, "");
        script.call(nr!(SYS_getpid), []).store("pid");
        let mixed = script.open_tree(0, "");
        script.call(nr!(SYS_getpid), []).store_in(mixed);
        script.value("number", 3);
        script.exit(0);
        assert_eq!(Checked::new(&script, SHARING).expect("a script").opened, [tree]);
    }

    #[test]
    fn nothing_of_a_refused_script_is_executed() {
        let script = script(|script| {
            script.call(nr!(SYS_getpid), []);
            script.call(nr!(SYS_write), [1.into(), 0x1000.into(), 1.into()]);
        });
        let layout = Layout { script: &script, tag: 0, fault: None, resolve: &|_| 0 };
        assert_eq!(in_caller::execute(&layout).err(), Some((1, Errno::EINVAL)));
        assert_eq!(ChildProcess::clone(0, &layout).err(), Some(Errno::EINVAL));
        let ends = super::tests::script(|_| ());
        let layout = Layout { script: &ends, ..layout };
        assert_eq!(ChildProcess::clone(libc::CLONE_SIGHAND as u64, &layout).err(), Some(Errno::EINVAL));
    }
}
