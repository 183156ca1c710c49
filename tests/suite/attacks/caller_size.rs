//! Callers that use much memory. It affects neither the reported usage of a program nor the cost of a spawn.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child as HostChild, ChildStdin, ChildStdout, Command as Host, Stdio as HostStdio};
use std::time::Instant;

use nix::sys::prctl::set_thp_disable;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::geteuid;
use stockade::{Command, Sandbox};

use crate::attacks::common::sandbox;
use crate::support::{field, on_host, payload, payload_on_host, text, touched};

payloads![("max-rss", tell_max_rss), ("sized-caller", caller_of_a_size), ("compare-sizes", compare_sizes)];

/// Megabytes that a caller touches, and those that must be free beyond them.
const SIZES: [u64; 2] = [1 << 10, 4 << 10];
const SPARE: u64 = 512;

/// How often each is measured, in turns.
const TIMES: usize = 11;
/// A time that is the same is not so many times as long. That of a fork of 1 GB is.
const FACTOR: u64 = 5;
/// Kilobytes by which the memory of the same program differs: it depends on which pages of files are in memory.
const ALIKE: u64 = 2 << 10;

/// Attack 38: A caller with 1 and 4 GB of touched memory. A program that it starts by itself is said to have used them
/// all, and a fork takes the longer the more there are.
#[apply(test)]
fn memory_of_the_caller_affects_neither_usage_nor_time() {
    let status = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let available: u64 = field(&status, "MemAvailable").trim_end_matches(" kB").parse().expect("kilobytes");
    for size in SIZES {
        if available >> 10 < size + SPARE {
            println!("skipped: a caller of {size} MB: {} MB are available", available >> 10);
            continue;
        }
        println!("{}", on_host(&[], "compare-sizes", &[&size.to_string()]));
    }
}

/// A small caller and one of a size do the same, in turns.
fn compare_sizes(args: &[String]) -> i32 {
    let size: u64 = args[0].parse().expect("megabytes");
    let mut callers = [1, size].map(SizedCaller::start);
    let mut medians = |what: &str| {
        let mut measured = [vec![], vec![]];
        for _ in 0..TIMES {
            measured.iter_mut().zip(&mut callers).for_each(|(all, caller)| all.push(caller.ask(what)));
        }
        measured.map(|mut all| {
            all.sort_unstable();
            all[TIMES / 2]
        })
    };
    let [small, large] = medians("fork");
    let forks = format!("a fork {small} and {large} us");
    assert!(large > FACTOR * small, "the attack must work here, or its failure proves nothing: {forks}");
    let [small, large] = medians("spawn");
    println!("a caller of 1 and of {size} MB: {forks}, a spawn {small} and {large} us");
    assert!(large < FACTOR * small, "a spawn takes {small} us in a small caller, {large} us in one of {size} MB");

    let [small, large] = medians("rss of a child");
    assert!(small < size << 10 && large >= size << 10, "the attack must work here: {small} and {large} kB");
    for what in ["rss of a program", "rss that it sees"] {
        let [small, large] = medians(what);
        assert!(small > 0 && small.abs_diff(large) < ALIKE, "{what}: {small} kB in a small caller, {large} kB");
    }
    0
}

/// A caller that has touched so many megabytes.
struct SizedCaller {
    process: HostChild,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl SizedCaller {
    fn start(size: u64) -> Self {
        let mut command = payload_on_host("sized-caller");
        command.arg(size.to_string()).stdin(HostStdio::piped()).stdout(HostStdio::piped());
        let mut process = command.spawn().expect("a caller");
        let questions = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output")).lines();
        Self { process, questions, answers }
    }

    fn ask(&mut self, what: &str) -> u64 {
        writeln!(self.questions, "{what}").expect("a question");
        let answer = self.answers.next().expect("an answer").expect("an answer");
        answer.parse().unwrap_or_else(|_| panic!("{what}: {answer}"))
    }
}

impl Drop for SizedCaller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn caller_of_a_size(args: &[String]) -> i32 {
    let size: usize = args[0].parse().expect("megabytes");
    // A fork copies a huge page as fast as a small one.
    set_thp_disable(true).expect("no huge pages");
    let memory = touched(size << 20);
    for question in std::io::stdin().lines() {
        println!("{}", answer(&question.expect("a question")));
    }
    drop(memory);
    0
}

fn answer(question: &str) -> u128 {
    let start = Instant::now();
    let own = |output: &[u8]| text(output).parse().expect("kilobytes");
    match question {
        // Setting the user makes the standard library fork.
        "fork" => assert!(Host::new("true").uid(geteuid().as_raw()).status().expect("a fork").success()),
        "spawn" => assert!(Sandbox::new().status(Command::new("true")).expect("a spawn").success()),
        "rss of a child" => return own(&payload_on_host("max-rss").output().expect("a child").stdout),
        "rss of a program" => {
            let outcome = sandbox().status(payload("max-rss").stdout(stockade::Stdio::null())).expect("a program");
            return u128::from(outcome.usage.max_rss.expect("a figure").value >> 10);
        }
        "rss that it sees" => return own(&sandbox().output(payload("max-rss")).expect("a program").stdout),
        _ => panic!("no such question: {question}"),
    }
    start.elapsed().as_micros()
}

/// Kilobytes that a program has used at most, as it is told itself.
fn tell_max_rss(_: &[String]) -> i32 {
    println!("{}", getrusage(UsageWho::RUSAGE_SELF).expect("own usage").max_rss());
    0
}
