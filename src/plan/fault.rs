//! Fault injection: calls that tests make fail.

use super::{Call, OnError, Part, Plan, Script};

impl Plan {
    /// Returns the calls of a part, each with whether it is always made and its failure fails the launch.
    pub fn calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        let script = self.script(part);
        // Calls between a branch and its target may be skipped.
        let mut certain_from = 0;
        let calls = script.calls.iter().enumerate().map(|(index, call)| {
            let certain = index as u32 >= certain_from;
            certain_from = certain_from.max(script.furthest(call));
            (call.nr.name, certain && call.on_error == OnError::Fail)
        });
        calls.collect()
    }

    /// Replaces a call by one that no kernel has, so that it fails with `ENOSYS`.
    pub fn with_fault(mut self, part: Part, call: usize) -> Self {
        self.fault = Some((part, call));
        self
    }
}

impl Script {
    /// The furthest call that a branch of `call` leads to.
    fn furthest(&self, call: &Call) -> u32 {
        let error = match call.on_error {
            OnError::Goto(label) | OnError::GotoIf(_, label) => Some(label),
            OnError::Fail | OnError::Ignore => None,
        };
        self.target(error).max(self.target(call.above_zero))
    }
}
