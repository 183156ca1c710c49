//! The CPU time of steps with and without a sandbox.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Failure;
use crate::hermetic;
use crate::step::{OUT, Step};

/// CPU time of all processes of the steps together, and of this process while it ran them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTimes {
    pub plain: Duration,
    pub sandboxed: Duration,
}

impl CpuTimes {
    /// The cost of the sandboxes, as a part of the plain time.
    pub fn cost(&self) -> f64 {
        self.sandboxed.as_secs_f64() / self.plain.as_secs_f64() - 1.0
    }
}

/// Runs a command on the host, in the directory of the sources, as any build does. Its outputs are written to `out`, which
/// takes the place of the directory in the command.
pub fn run_plainly(step: &Step, sources: &Path, out: &Path) -> Result<(), Failure> {
    let words = step.command.iter().map(|word| match word.strip_prefix(&format!("{OUT}/")) {
        Some(output) => out.join(output).into_os_string(),
        None => word.into(),
    });
    let words: Vec<_> = words.collect();
    let output = Command::new(&words[0]).args(&words[1..]).current_dir(sources).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", step.name, String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Runs each step plainly and in a sandbox, in turns, and returns the CPU time of both. `out` gets the directories `plain`
/// and `sandboxed` with the outputs.
pub fn compare(steps: &[Step], sources: &Path, out: &Path, rounds: usize) -> Result<CpuTimes, Failure> {
    let (plain, sandboxed) = (out.join("plain"), out.join("sandboxed"));
    fs::create_dir_all(&plain)?;
    fs::create_dir_all(&sandboxed)?;
    let mut times = CpuTimes::default();
    for round in 0..rounds {
        for step in steps {
            // What is first warms caches for the other.
            for is_plain in [round % 2 == 0, round % 2 != 0] {
                let before = cpu_time()?;
                match is_plain {
                    true => run_plainly(step, sources, &plain)?,
                    false => hermetic::run(step, sources)?.collect(&sandboxed)?,
                }
                let taken = cpu_time()? - before;
                *(if is_plain { &mut times.plain } else { &mut times.sandboxed }) += taken;
            }
        }
    }
    Ok(times)
}

/// Returns the CPU time of this process and of those that it has waited for.
fn cpu_time() -> Result<Duration, Failure> {
    let time =
        |value: TimeVal| Duration::from_secs(value.tv_sec() as u64) + Duration::from_micros(value.tv_usec() as u64);
    let total = |usage: Usage| time(usage.user_time()) + time(usage.system_time());
    Ok(total(getrusage(UsageWho::RUSAGE_SELF)?) + total(getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

/// Returns the first output that is not the same in both directories, byte for byte.
pub fn difference(steps: &[Step], one: &Path, other: &Path) -> Result<Option<String>, Failure> {
    for output in steps.iter().flat_map(|step| &step.outputs) {
        if fs::read(one.join(output))? != fs::read(other.join(output))? {
            return Ok(Some(output.display().to_string()));
        }
    }
    Ok(None)
}
