//! Fault injection: calls that tests make fail.

use super::call::{SWITCH, SWITCH_TO_STACK, VALUE};
use super::{Call, OnError, Part, Plan, Script, nr};

/// Calls by name, each with whether it is always made and its failure fails the launch.
type Calls = Vec<(&'static str, bool)>;

impl Plan {
    /// Returns the calls of a part.
    pub fn calls(&self, part: Part) -> Calls {
        self.script(part).fallible()
    }

    /// Replaces a call by one that no kernel has, so that it fails with `ENOSYS`.
    pub fn with_fault(mut self, part: Part, call: usize) -> Self {
        self.fault = Some((part, call));
        self
    }
}

/// The faults of the commands of a session.
#[derive(Debug, Default)]
pub(crate) struct CommandFaults {
    /// The call that fails in every command.
    pub fault: Option<(Part, usize)>,
    /// The calls of the parts of the commands so far, the last command last.
    calls: Vec<(Part, Calls)>,
}

impl CommandFaults {
    /// Returns the index of the call of a script that fails, and records the calls of the script.
    pub fn of(&mut self, part: Part, script: &Script) -> Option<usize> {
        self.calls.retain(|(known, _)| *known != part);
        self.calls.push((part, script.fallible()));
        self.fault.filter(|(faulty, _)| *faulty == part).map(|(_, call)| call)
    }

    /// Returns the calls of a part of the last command that had it.
    pub fn calls(&self, part: Part) -> Calls {
        self.calls.iter().find(|(known, _)| *known == part).map(|(_, calls)| calls.clone()).unwrap_or_default()
    }
}

impl Script {
    fn fallible(&self) -> Calls {
        // Calls between a branch and its target may be skipped.
        let mut certain_from = 0;
        let calls = self.calls.iter().enumerate().map(|(index, call)| {
            let certain = index as u32 >= certain_from;
            // What follows the execution of a program is done if that fails.
            certain_from = if call.nr == nr!(SYS_execve) { u32::MAX } else { certain_from.max(self.furthest(call)) };
            (call.nr.name, certain && call.on_error == OnError::Fail && call.can_fail())
        });
        calls.collect()
    }

    /// The furthest call that a branch of `call` leads to.
    fn furthest(&self, call: &Call) -> u32 {
        let error = match call.on_error {
            OnError::Goto(label) | OnError::GotoIf(_, label) => Some(label),
            OnError::Fail | OnError::Ignore => None,
        };
        self.target(error).max(self.target(call.above_zero))
    }
}

impl Call {
    /// Whether it does more than lead elsewhere or store a number: see [`Script::jump`]. The jump at the end of a loop may
    /// never be reached.
    fn can_fail(&self) -> bool {
        let is_jump = self.nr == nr!(SYS_gettid) && self.above_zero.is_some();
        !is_jump && ![SWITCH, SWITCH_TO_STACK, VALUE].contains(&self.nr)
    }
}
