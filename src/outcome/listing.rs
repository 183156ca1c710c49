//! An outcome as a table: a line for each figure, with its source.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{ActiveLayer, Outcome, Reading, Source};

/// Columns of a name and of a figure.
const NAME: usize = 22;
const FIGURE: usize = 14;

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rusage => "rusage",
            Self::Pipe => "pipe",
            Self::Cgroup => "cgroup",
            Self::CgroupWrites => "cgroup, at least",
        })
    }
}

/// A line, unless the figure is absent.
fn line<T>(f: &mut Formatter<'_>, name: &str, reading: Option<Reading<T>>, show: impl Fn(T) -> String) -> fmt::Result {
    match reading {
        Some(Reading { value, source }) => writeln!(f, "{name:NAME$}{:>FIGURE$}  {source}", show(value)),
        None => Ok(()),
    }
}

fn time(value: Duration) -> String {
    format!("{:.6} s", value.as_secs_f64())
}

fn kibibytes(value: u64) -> String {
    format!("{} KiB", value / 1024)
}

fn count(value: u64) -> String {
    value.to_string()
}

/// The table of an outcome.
pub(super) fn write(outcome: &Outcome, f: &mut Formatter<'_>) -> fmt::Result {
    let usage = &outcome.usage;
    writeln!(f, "{:NAME$}{}", "termination", outcome.termination)?;
    writeln!(f, "{:NAME$}{:>FIGURE$}  caller", "wall time", time(usage.wall_time))?;
    line(f, "CPU time", usage.cpu_time, time)?;
    line(f, "user time", usage.user_time, time)?;
    line(f, "system time", usage.system_time, time)?;
    line(f, "memory peak", usage.memory_peak, kibibytes)?;
    line(f, "memory pressure", usage.memory_pressure, time)?;
    line(f, "largest resident set", usage.max_rss, kibibytes)?;
    line(f, "pids peak", usage.pids_peak, count)?;
    line(f, "pids denied", usage.pids_denied, count)?;
    line(f, "bytes read", usage.read_bytes, count)?;
    line(f, "bytes written", usage.written_bytes, count)?;
    line(f, "stdout", usage.stdout, |value| format!("{value} B"))?;
    line(f, "stderr", usage.stderr, |value| format!("{value} B"))?;
    line(f, "major faults", usage.major_faults, count)?;
    line(f, "minor faults", usage.minor_faults, count)?;
    line(f, "voluntary switches", usage.voluntary_switches, count)?;
    line(f, "involuntary switches", usage.involuntary_switches, count)?;
    for leaked in &outcome.leaked {
        writeln!(f, "{:NAME$}{} (pid {})", "leaked", leaked.name, leaked.pid)?;
    }
    for violation in &outcome.violations {
        writeln!(f, "{:NAME$}{violation}", "denied")?;
    }
    for (name, omitted) in [("leaked", outcome.omitted.leaked), ("denied", outcome.omitted.violations)] {
        if omitted > 0 {
            writeln!(f, "{name:NAME$}{omitted} more")?;
        }
    }
    if outcome.omitted.leaked_late {
        writeln!(f, "{:NAME$}perhaps more, killed before the caller waited", "leaked")?;
    }
    for ActiveLayer { layer, summary } in outcome.enforcement.active() {
        writeln!(f, "{:NAME$}{summary}", layer.to_string())?;
    }
    for lost in &outcome.enforcement.unenforced {
        writeln!(f, "{:NAME$}UNENFORCED: {}: {}", lost.layer.to_string(), lost.requested, lost.reason)?;
    }
    for gap in &outcome.enforcement.gaps {
        writeln!(f, "{:NAME$}{gap}", "gap")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::layer::Layer;
    use crate::outcome::{Enforcement, Leaked, Omitted, Termination, Usage};
    use crate::stored::Version;

    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_figure_that_is_available() {
        let usage = Usage {
            wall_time: Duration::from_millis(1500),
            cpu_time: Some(Reading { value: Duration::from_millis(20), source: Source::Cgroup }),
            max_rss: Some(Reading { value: 652 << 10, source: Source::Rusage }),
            ..Usage::default()
        };
        let mut enforcement = Enforcement::default();
        enforcement.activate(Layer::NoNewPrivs, "set");
        let outcome = Outcome {
            version: Version,
            termination: Termination::Exited(3),
            usage,
            enforcement,
            violations: vec![],
            omitted: Omitted { leaked: 2, leaked_late: true, violations: 0 },
            leaked: vec![Leaked { pid: crate::unix::Pid::from_raw(7), name: "sleep".into() }],
        };
        let expected = "termination           exited with 3
wall time                 1.500000 s  caller
CPU time                  0.020000 s  cgroup
largest resident set         652 KiB  rusage
leaked                sleep (pid 7)
leaked                2 more
leaked                perhaps more, killed before the caller waited
no_new_privs          set
";
        assert_eq!(format!("{outcome:#}"), expected);
    }
}
