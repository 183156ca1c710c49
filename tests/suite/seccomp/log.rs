//! The calls of a program that the kernel logs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::Duration;

use stockade::seccomp::Action;
use stockade::{Seccomp, Stdio};

use crate::seccomp::under;
use crate::support::{self, unless_root};

/// An ordinary user may not read it.
fn unless_log() -> Option<String> {
    unless_root()
        .or_else(|| log_from_now_on().err().map(|error| format!("the log of the kernel can't be read: {error}")))
}

fn log_from_now_on() -> std::io::Result<File> {
    let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    Ok(log)
}

/// Whether getppid(2) of a program is in the log, under a policy that does this with it.
fn logs(action: Action) -> bool {
    let mut log = log_from_now_on().expect("the log of the kernel");
    let mut command = support::payload("calls");
    command.args(["getppid"]).stdout(Stdio::null());
    let mut child = under(Seccomp::deny_list().on(["getppid"], action)).spawn(&command).unwrap();
    let (pid, call) = (format!(" pid={} ", child.pid().number()), format!(" syscall={} ", libc::SYS_getppid));
    assert!(child.wait().unwrap().success());
    // A read gives one record (the kernel's Documentation/ABI/testing/dev-kmsg).
    let mut record = vec![0; 8192];
    std::iter::from_fn(|| log.read(&mut record).ok().map(|len| String::from_utf8_lossy(&record[..len]).into_owned()))
        .any(|record| record.contains("type=1326") && record.contains(&pid) && record.contains(&call))
}

#[apply(test)]
#[only(Root)]
#[skip(unless_log)]
fn a_logged_call_stands_in_the_log_of_the_kernel() {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(500);
    assert!(!logs(Action::Allow));
    // The kernel leaves out what comes too often (kernel.printk_ratelimit).
    let is_logged = (0..TRIES).any(|_| {
        let is_logged = logs(Action::Log);
        if !is_logged {
            sleep(PAUSE);
        }
        is_logged
    });
    assert!(is_logged);
}
