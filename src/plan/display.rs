//! Displays a plan like strace: one line for each call, under the step that it belongs to.

use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStrExt;

use super::Plan;
use super::call::{Arg, Call, ConstantNames, OnError};
use super::script::Script;
use super::value::Address;
use crate::escape::shown;

/// Calls of a step that differ only in numbers are abbreviated after this many.
const SHOWN_OF_A_RUN: usize = 3;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (script, how) in self.scripts() {
            writeln!(f, "== {} ({how})", script.title)?;
            script.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut step = None;
        let mut index = 0;
        while index < self.calls.len() {
            let call = &self.calls[index];
            if step != Some(call.step) {
                step = Some(call.step);
                writeln!(f, "# {}", self.step_text(call.step as usize))?;
            }
            let run = self.run_length(index);
            let shown = if run > SHOWN_OF_A_RUN + 1 { SHOWN_OF_A_RUN } else { run };
            for at in index..index + shown {
                writeln!(f, "  {:>3}  {}", at, self.call_text(&self.calls[at]))?;
            }
            if run > shown {
                writeln!(f, "  ...  {} more, to {}", run - shown, self.call_text(&self.calls[index + run - 1]))?;
            }
            index += run;
        }
        Ok(())
    }
}

/// The names of the bits that are set.
fn bits(value: u32, names: &ConstantNames) -> String {
    let set: Vec<&str> = names.0.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "0".into() } else { set.join("|") }
}

impl Script {
    fn step_text(&self, step: usize) -> String {
        let step = &self.steps[step];
        match &step.path {
            Some(path) => format!("{}: {}", step.what, shown(path.as_os_str().as_bytes())),
            None => step.what.to_string(),
        }
    }

    /// The number of calls from `index` on that differ only in numbers and input slots.
    fn run_length(&self, index: usize) -> usize {
        let first = &self.calls[index];
        let alike = |call: &&Call| {
            call.nr == first.nr
                && call.step == first.step
                && call.store.is_none()
                && call.args().iter().zip(first.args()).all(|(a, b)| match (a, b) {
                    (Arg::Imm(_), Arg::Imm(_)) | (Arg::Slot(_), Arg::Slot(_)) => true,
                    (a, b) => a == b,
                })
        };
        self.calls[index..].iter().take_while(alike).count().max(1)
    }

    fn call_text(&self, call: &Call) -> String {
        let args: Vec<String> = call.args().iter().map(|&arg| self.arg_text(arg)).collect();
        let mut text = format!("{}({})", call.nr.name.trim_start_matches("SYS_"), args.join(", "));
        if let Some(slot) = call.store {
            text += &format!(" = {}", self.slot_text(slot.0));
        }
        match call.on_error {
            OnError::Fail => {}
            OnError::Ignore => text += "    or go on",
            OnError::GotoIf(errors, label) => {
                let [one, other] = errors.map(|errno| nix::errno::Errno::from_raw(errno.into()));
                text += &format!("    if {one:?} or {other:?} go to {}", self.target(Some(label)));
            }
            OnError::Goto(label) => text += &format!("    else go to {}", self.target(Some(label))),
        }
        if let Some(label) = call.above_zero {
            text += &format!("    if above 0 go to {}", self.target(Some(label)));
        }
        text
    }

    fn slot_text(&self, slot: u16) -> String {
        let info = &self.slots[slot as usize];
        match info.first {
            Some(Address::Input(input)) if info.name.is_empty() => input.name().into_owned(),
            _ => format!("{}#{slot}", info.name),
        }
    }

    fn arg_text(&self, arg: Arg) -> String {
        match arg {
            Arg::Imm(value) if (value as i64) < 0 => (value as i64).to_string(),
            Arg::Imm(value) if value > 0xffff => format!("{value:#x}"),
            Arg::Imm(value) => value.to_string(),
            Arg::Named(constant) => constant.name.trim_start_matches('|').to_owned(),
            Arg::Bits(value, names) => bits(value, names),
            Arg::Octal(mode) => format!("{mode:#o}"),
            Arg::Slot(slot) => self.slot_text(slot.0),
            Arg::SlotAddress(slot) => format!("&{}", self.slot_text(slot.0)),
            Arg::Data(place) => self.arena.show(place),
        }
    }
}
