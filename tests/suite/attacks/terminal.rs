//! The terminal of the caller: input that a program inserts would be read by the shell that has started the caller.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command as Host, Stdio as HostStdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::unistd::setsid;
use stockade::{Identity, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::attacks::common::{Attempts, attempt, host_output, tell};
use crate::attacks::sys;
use crate::support::{is_root, payload, payload_on_host, text, with_payload};

payloads![("caller_on_terminal", caller_on_terminal), ("type_into", type_into), ("take_over", take_over)];

/// Types into its standard input, in every way that there is, and tries to make it its controlling terminal first.
fn type_into(_: &[String]) -> i32 {
    attempt("controlling terminal", File::options().read(true).write(true).open("/dev/tty"));
    let type_in = |prefix: &str, character: u8| {
        let request = libc::TIOCSTI;
        attempt(&format!("{prefix}TIOCSTI"), sys::ioctl(0, request, Some(character)));
        for upper in [0x1, 0xdead_beef, 0x8000_0000u64] {
            let garbage = upper << 32 | request;
            attempt(&format!("{prefix}TIOCSTI {upper:x}"), sys::ioctl(0, garbage, Some(character)));
        }
    };
    type_in("", b'x');
    for upper in [0u64, 0xffff_ffff] {
        // TIOCL_SELMOUSEREPORT and TIOCL_PASTESEL of a virtual console
        attempt(
            &format!("TIOCLINUX {upper:x}"),
            sys::ioctl(0, upper << 32 | u64::from(libc::TIOCLINUX as u32), Some(3)),
        );
    }
    attempt("take the terminal", sys::ioctl(0, libc::TIOCSCTTY, None));
    attempt("open by its name", File::options().read(true).write(true).open("/proc/self/fd/0"));
    type_in("then ", b'y');
    attempt("foreground", nix::unistd::tcsetpgrp(std::io::stdin(), nix::unistd::getpgrp()));
    0
}

/// A caller in a session of its own, with its standard input as its controlling terminal.
fn caller_on_terminal(args: &[String]) -> i32 {
    setsid().unwrap();
    // A leader of a session without a terminal gets the one that it opens.
    let name = nix::unistd::ttyname(std::io::stdin()).unwrap();
    let terminal = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(name).unwrap();
    assert!(File::open("/dev/tty").is_ok(), "the terminal is that of the session");
    nix::sys::termios::tcgetattr(&terminal)
        .and_then(|mut settings| {
            // Every character by itself, and none of them shown.
            nix::sys::termios::cfmakeraw(&mut settings);
            nix::sys::termios::tcsetattr(&terminal, nix::sys::termios::SetArg::TCSANOW, &settings)
        })
        .unwrap();
    let bind = stockade::mount::Bind::new("/dev/tty", "/dev/tty").unmapped().devices();
    let root = with_payload(Root::host());
    let sandbox = match args[0].as_str() {
        "caller" => Sandbox::new().identity(Identity::caller()).root(root),
        "with-tty" => Sandbox::new().namespaces(Namespaces::USER | Namespaces::MOUNT).root(root.with(bind)),
        _ => Sandbox::new().root(root),
    };
    // In the caller's session without the filter nothing is in the way.
    let sandbox = if args[1] == "shared" { sandbox.seccomp(Seccomp::unconfined()) } else { sandbox };
    let mut command = payload("type_into");
    command.new_session(args[1] == "new").stdin(Stdio::inherit());
    let output = sandbox.output(&command).unwrap();
    println!("{}", text(&output.stdout));
    let mut waiting = [PollFd::new(std::os::fd::AsFd::as_fd(&terminal), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::ZERO).unwrap();
    let mut typed = [0; 64];
    let len = if waiting[0].any().unwrap() { (&terminal).read(&mut typed).unwrap() } else { 0 };
    tell("typed", text(&typed[..len]));
    0
}

fn on_terminal(sandbox: &str, session: &str) -> Attempts {
    let pair = openpty(None, None).unwrap();
    assert!(pair.slave.as_raw_fd() > 2);
    if is_root() {
        // As for a login: it belongs to who types into it.
        let name = nix::unistd::ttyname(&pair.slave).unwrap();
        std::fs::set_permissions(name, std::os::unix::fs::PermissionsExt::from_mode(0o622)).unwrap();
    }
    let mut caller: Host = payload_on_host("caller_on_terminal");
    caller.args([sandbox, session]).stdin(HostStdio::from(pair.slave));
    let attempts = Attempts::parse(&host_output(&mut caller));
    drop(pair.master);
    attempts
}

/// Attack 29: TIOCSTI and TIOCLINUX, also with garbage in the upper half of the request, which the kernel does not look
/// at.
#[apply(test)]
fn no_input_is_injected_into_the_callers_terminal() {
    let sandboxes = ["default", "caller", "with-tty"];
    let shared = on_terminal("caller", "shared");
    shared.assert_done(&["controlling terminal"]);
    let legacy = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").map_or(true, |text| text.trim() == "1");
    if legacy {
        shared.assert_done(&["TIOCSTI", "TIOCSTI deadbeef", "then TIOCSTI"]);
        assert_eq!(shared.get("typed"), "\"xxxxyyyy\"");
    }
    let filtered = on_terminal("caller", "filtered");
    filtered.assert_done(&["controlling terminal"]);
    for upper in ["1", "deadbeef", "80000000"] {
        filtered.assert_refused(&[&format!("TIOCSTI {upper}"), &format!("then TIOCSTI {upper}")]);
    }
    filtered.assert_refused(&["TIOCSTI", "TIOCLINUX 0", "TIOCLINUX ffffffff"]);
    assert_eq!(filtered.get("typed"), "\"\"", "by the filter alone: {filtered:?}");
    for sandbox in sandboxes {
        let inside = on_terminal(sandbox, "new");
        for attempt in ["controlling terminal", "TIOCSTI", "take the terminal", "foreground"] {
            inside.assert_refused(&[attempt]);
        }
        for upper in ["1", "deadbeef", "80000000"] {
            inside.assert_refused(&[&format!("TIOCSTI {upper}"), &format!("then TIOCSTI {upper}")]);
        }
        inside.assert_refused(&["TIOCLINUX 0", "TIOCLINUX ffffffff"]);
        assert_eq!(inside.get("typed"), "\"\"", "{sandbox}: {inside:?}");
    }
}

/// TIOCGEXCL, and requests that libc does not have everywhere: TIOCSLCKTRMIOS, TIOCVHANGUP; KDSKBMODE and VT_ACTIVATE
/// of virtual consoles.
const IS_EXCLUSIVE: i64 = 0x8004_5440;
const OTHERS: [(&str, u64); 4] = [("lock", 0x5457), ("hang up", 0x5437), ("keyboard", 0x4b45), ("switch", 0x5606)];

/// Changes the terminal on standard input for everybody who uses it.
fn take_over(_: &[String]) -> i32 {
    attempt("exclusive", sys::ioctl(0, libc::TIOCEXCL, None));
    attempt("exclusive with garbage", sys::ioctl(0, 0xdead_beef << 32 | libc::TIOCEXCL, None));
    // N_NULL, which no other program understands.
    attempt("discipline", sys::ioctl(0, libc::TIOCSETD, Some(27)));
    attempt("console", sys::ioctl(0, libc::TIOCCONS, None));
    for (name, request) in OTHERS {
        attempt(name, sys::ioctl(0, request, Some(0)));
    }
    0
}

/// Attack 46: A program keeps others from opening the terminal that it was handed, or makes it useless for them.
#[apply(test)]
fn a_terminal_is_neither_made_exclusive_nor_given_a_line_discipline() {
    let run = |policy: Seccomp| {
        let pair = openpty(None, None).unwrap();
        let terminal = pair.slave.try_clone().unwrap();
        let sandbox = Sandbox::new().root(with_payload(Root::host())).seccomp(policy);
        let attempts = crate::attacks::common::attack_as(&sandbox, payload("take_over").stdin(pair.slave));
        let mut exclusive = [0; 4];
        let words = &mut [
            sys::Word::Number(terminal.as_raw_fd().into()),
            sys::Word::Number(IS_EXCLUSIVE),
            sys::Word::Room(&mut exclusive),
        ];
        sys::call(libc::SYS_ioctl, words).unwrap();
        (attempts, i32::from_ne_bytes(exclusive) != 0)
    };
    let (unfiltered, is_exclusive) = run(Seccomp::unconfined());
    unfiltered.assert_done(&["exclusive", "exclusive with garbage"]);
    assert!(is_exclusive, "the attack must work here");
    for policy in [Seccomp::new(), Seccomp::container()] {
        let (attempts, is_exclusive) = run(policy);
        for name in attempts.names() {
            assert_eq!(attempts.get(name), "EPERM", "{name}");
        }
        assert!(!is_exclusive);
    }
}
