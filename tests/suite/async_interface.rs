//! The async interface, on runtimes of tokio of one thread and of several.

use std::future::Future;
use std::time::{Duration, Instant};

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::runtime::Builder;
use ::tokio::time::timeout;
use stockade::limits::Overflow;
use stockade::tokio::{Pool, start};
use stockade::{Command, ErrorKind, Limits, Root, Sandbox, Signal, Stdio, Termination};

use crate::support::{at_most, eventually, payload, processes, rounds, text, with_payload};

const MS: Duration = Duration::from_millis(1);

/// Runs a test on a runtime of one thread, and on one of two.
fn on_runtimes<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        builder.worker_threads(2).enable_all().build().expect("a runtime").block_on(test());
    }
}

fn script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn sleep(argument: &str) -> Command {
    let mut command = Command::new("sleep");
    command.arg(argument).stdin(Stdio::null());
    command
}

/// Whether a process of the host sleeps with this argument.
fn sleeps(argument: &str) -> bool {
    !processes(|line| line.contains("sleep") && line.contains(argument)).is_empty()
}

fn argument(kind: u32) -> String {
    format!("200000.{kind}{}", std::process::id())
}

#[apply(test)]
fn commands_are_run_and_their_output_is_collected() {
    on_runtimes(async || {
        let sandbox = Sandbox::new();
        let outcome = stockade::tokio::status(&sandbox, script("exit 3").stdin(Stdio::null())).await.unwrap();
        assert_eq!(outcome.termination, Termination::Exited(3));
        let output = stockade::tokio::output(&sandbox, script("echo out; echo err >&2; kill -TERM $$")).await.unwrap();
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
        assert_eq!(output.outcome.termination, Termination::signaled(Signal::TERM, false));
        let error = stockade::tokio::spawn(&sandbox, Command::new("missing")).await.expect_err("no such program");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = stockade::tokio::output(&sandbox, script("true").pty(24, 80)).await.expect_err("a terminal");
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
    });
}

#[apply(test)]
fn many_commands_at_once_have_the_right_outcomes() {
    on_runtimes(async || {
        let mut tasks = ::tokio::task::JoinSet::new();
        for code in 0..rounds(40) as i32 {
            tasks.spawn(async move {
                let limits = Limits::new().wall_time(at_most(60_000 * MS));
                let command = script(&format!("echo {code}; sleep 0.05; exit {code}"));
                (code, stockade::tokio::output(&Sandbox::new().limits(limits), command).await.unwrap())
            });
        }
        while let Some(finished) = tasks.join_next().await {
            let (code, output) = finished.unwrap();
            assert_eq!(output.outcome.termination, Termination::Exited(code));
            assert_eq!(text(&output.stdout), code.to_string());
        }
    });
}

#[apply(test)]
fn limits_on_time_are_enforced() {
    on_runtimes(async || {
        let limit = 100 * MS;
        let sandbox = Sandbox::new().limits(Limits::new().wall_time(limit));
        let mut late = vec![];
        // Whatever else the machine does can make it late.
        while late.len() < 30 && late.last().is_none_or(|late| *late > at_most(20 * MS)) {
            let outcome = stockade::tokio::status(&sandbox, sleep("30")).await.unwrap();
            assert_eq!(outcome.termination, Termination::WallTime);
            late.push(outcome.usage.wall_time.checked_sub(limit).expect("it is never early"));
        }
        assert!(late.last().is_some_and(|late| *late <= at_most(20 * MS)), "{late:?}");
        let grace = Sandbox::new().limits(Limits::new().wall_time(at_most(limit)).kill_grace(at_most(200 * MS)));
        let output =
            stockade::tokio::output(&grace, script("trap 'echo asked' TERM; while :; do sleep 0.01; done")).await;
        let output = output.unwrap();
        assert_eq!((output.outcome.termination, text(&output.stdout)), (Termination::WallTime, "asked".into()));
        assert!(output.outcome.usage.wall_time >= at_most(300 * MS), "{}", output.outcome);
    });
}

#[apply(test)]
fn limits_on_output_are_enforced_and_large_output_is_collected() {
    on_runtimes(async || {
        let flood = script("while :; do echo 0123456789; done");
        let sandbox = Sandbox::new().limits(Limits::new().stdout_max(1000));
        let output = stockade::tokio::output(&sandbox, &flood).await.unwrap();
        assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Output, 1000));
        let large = script("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2");
        let output = stockade::tokio::output(&Sandbox::new(), &large).await.unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (5_000_000, 3_000_000));
        let discarding = Sandbox::new().limits(Limits::new().stdout_max(1000).overflow(Overflow::Discard));
        let output = stockade::tokio::output(&discarding, &large).await.unwrap();
        assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Exited(0), 1000));
        // A stream that is closed early does not keep the runtime busy.
        let output = stockade::tokio::output(&Sandbox::new(), script("exec >&- 2>&-; sleep 0.2")).await.unwrap();
        assert!(output.outcome.success());
    });
}

#[apply(test)]
fn what_is_dropped_is_killed() {
    on_runtimes(async || {
        for kind in 0..4 {
            let argument = argument(kind);
            let sandbox = Sandbox::new();
            match kind {
                0 => drop(timeout(300 * MS, stockade::tokio::status(&sandbox, sleep(&argument))).await),
                1 => drop(timeout(300 * MS, stockade::tokio::output(&sandbox, sleep(&argument))).await),
                2 => {
                    let child = stockade::tokio::spawn(&sandbox, sleep(&argument)).await.unwrap();
                    eventually("it runs", || sleeps(&argument));
                    drop(child);
                }
                _ => {
                    let session = start(&sandbox).await.unwrap();
                    let mut child = session.spawn(sleep(&argument)).await.unwrap();
                    eventually("it runs", || sleeps(&argument));
                    drop(session);
                    assert_eq!(child.wait().await.unwrap().termination, Termination::Killed);
                }
            }
            let begin = Instant::now();
            eventually("it is gone", || !sleeps(&argument));
            assert!(begin.elapsed() < at_most(1000 * MS), "{kind}: {:?}", begin.elapsed());
        }
    });
    // Also outside of a runtime.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let argument = argument(9);
    let child = runtime.block_on(stockade::tokio::spawn(&Sandbox::new(), sleep(&argument))).unwrap();
    eventually("it runs", || sleeps(&argument));
    drop(runtime);
    drop(child);
    assert!(!sleeps(&argument));
}

#[apply(test)]
fn a_wait_that_is_cancelled_can_be_repeated() {
    on_runtimes(async || {
        let mut child =
            stockade::tokio::spawn(&Sandbox::new(), script("sleep 1; exit 5").stdin(Stdio::null())).await.unwrap();
        for _ in 0..5 {
            assert!(timeout(10 * MS, child.wait()).await.is_err());
        }
        assert_eq!(child.wait().await.unwrap().termination, Termination::Exited(5));
        assert_eq!(child.wait().await.unwrap().termination, Termination::Exited(5), "every wait has the same outcome");
        child.kill().unwrap();
        child.signal(Signal::TERM).unwrap();
        // At the end, where it is reaped.
        for _ in 0..rounds(20) {
            let mut child =
                stockade::tokio::spawn(&Sandbox::new(), script("exit 6").stdin(Stdio::null())).await.unwrap();
            let outcome = loop {
                if let Ok(outcome) = timeout(Duration::from_micros(300), child.wait()).await {
                    break outcome.unwrap();
                }
            };
            assert_eq!(outcome.termination, Termination::Exited(6));
        }
    });
}

#[apply(test)]
fn a_program_is_killed_while_it_is_waited_for() {
    on_runtimes(async || {
        let mut child = stockade::tokio::spawn(&Sandbox::new(), sleep("1000")).await.unwrap();
        let killer = child.killer();
        ::tokio::spawn(async move {
            ::tokio::time::sleep(50 * MS).await;
            killer.kill()
        });
        assert_eq!(child.wait().await.unwrap().termination, Termination::Killed);
    });
}

#[apply(test)]
fn pipes_and_terminals_are_read_and_written() {
    on_runtimes(async || {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = stockade::tokio::spawn(&Sandbox::new(), &command).await.unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let written: Vec<u8> = (0..1_000_000_u32).map(|byte| byte as u8).collect();
        let expected = written.clone();
        let writing = ::tokio::spawn(async move { stdin.write_all(&written).await });
        let mut read = vec![];
        stdout.read_to_end(&mut read).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(read == expected);
        assert!(child.wait().await.unwrap().success());

        let mut command = script("read word; echo typed: $word; stty size");
        let mut child = stockade::tokio::spawn(&Sandbox::new(), command.pty(24, 80)).await.unwrap();
        let mut terminal = child.pty.take().unwrap();
        terminal.resize(30, 90).unwrap();
        terminal.write_all(b"word\n").await.unwrap();
        let mut said = vec![];
        terminal.read_to_end(&mut said).await.unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("typed: word") && said.contains("30 90"), "{said}");
        assert!(child.wait().await.unwrap().success());

        // What was written before a wait is still there after it.
        let mut command = script("echo said");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = stockade::tokio::spawn(&Sandbox::new(), &command).await.unwrap();
        assert!(child.wait().await.unwrap().success());
        assert_eq!(text(&child.wait_with_output().await.unwrap().stdout), "said");
    });
}

/// A start that takes long does not keep other tasks of a runtime of one thread from going on.
#[apply(test)]
fn a_slow_start_blocks_no_other_task() {
    let time = at_most(500 * MS);
    let sandbox = Sandbox::new().root(with_payload(Root::host())).setup_timeout(time);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = start(&sandbox).await.unwrap();
        let mut attacker = payload("signal_others");
        let attacker = session.spawn(attacker.arg(libc::SIGSTOP.to_string()).stdout(Stdio::piped()));
        let mut attacker = attacker.await.unwrap();
        attacker.stdout.as_mut().unwrap().read_exact(&mut [0; 7]).await.unwrap();
        // Until one is stopped while it is started.
        for _ in 0..rounds(200) {
            let (begin, ticks) = (Instant::now(), std::cell::Cell::new(0));
            let ticking = async {
                loop {
                    ::tokio::time::sleep(10 * MS).await;
                    ticks.set(ticks.get() + 1);
                }
            };
            let mut command = Command::new("true");
            command.stdin(Stdio::null());
            let spawned = ::tokio::select! {
                spawned = session.spawn(&command) => spawned.map(drop),
                () = ticking => unreachable!("it never ends"),
            };
            if spawned.is_err_and(|error| error.kind() == ErrorKind::SetupTimedOut) {
                assert!(begin.elapsed() >= time);
                assert!(ticks.get() >= 5, "{} ticks in {:?}", ticks.get(), begin.elapsed());
                return;
            }
        }
        println!("not tested: no start was stopped");
    });
}

#[apply(test)]
fn sessions_and_pools_are_as_in_the_blocking_interface() {
    on_runtimes(async || {
        let pool = Pool::new(Sandbox::new().root(with_payload(Root::host())), 2).await.unwrap();
        let session = pool.take().await.unwrap();
        let mut file = ::tokio::fs::File::from_std(session.create("/tmp/file").await.unwrap());
        file.write_all(b"placed").await.unwrap();
        file.flush().await.unwrap();
        let output = session.output(script("cat /tmp/file; echo made > /tmp/made")).await.unwrap();
        assert_eq!(text(&output.stdout), "placed");
        let mut read = String::new();
        std::io::Read::read_to_string(&mut session.open("/tmp/made").await.unwrap(), &mut read).unwrap();
        assert_eq!(read, "made\n");
        assert!(session.status(script("true").stdin(Stdio::null())).await.unwrap().success());

        let listener = session.listen_tcp("127.0.0.1:8080".parse().unwrap()).await.unwrap();
        let unix = session.listen_unix("/tmp/socket").await.unwrap();
        let serve = async {
            listener.accept().await.unwrap().0.write_all(b"one ").await.unwrap();
            unix.accept().await.unwrap().0.write_all(b"two").await.unwrap();
        };
        let mut client = payload("served");
        let (output, ()) = ::tokio::join!(session.output(client.args(["127.0.0.1:8080", "/tmp/socket"])), serve);
        assert_eq!(text(&output.unwrap().stdout), "one two");

        let mut server = payload("serving");
        let server = session.spawn(server.args(["127.0.0.1:8081", "/tmp/server"]).stdout(Stdio::piped()));
        let mut server = server.await.unwrap();
        server.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).await.unwrap();
        let mut said = String::new();
        let tcp = session.connect_tcp("127.0.0.1:8081".parse().unwrap());
        tcp.await.unwrap().read_to_string(&mut said).await.unwrap();
        session.connect_unix("/tmp/server").await.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "by TCPby a path");
        assert!(server.wait().await.unwrap().success());

        assert!(!session.namespaces().is_empty() && session.usage().wall_time > Duration::ZERO);
        session.freeze().expect_err("there is no cgroup");
        session.kill().await.unwrap();
        session.open("/etc/passwd").await.expect_err("it has ended");

        let others: Vec<_> =
            [pool.take().await.unwrap(), pool.take().await.unwrap(), pool.take().await.unwrap()].into();
        for session in &others {
            session.open("/tmp/file").await.expect_err("a fresh one");
        }
        pool.shut_down().await;
        pool.take().await.expect_err("it was shut down");
    });
}
