//! Programs that use the resources which cgroups limit and count.

use std::hint::black_box;
use std::process::Command as Host;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::cgroups::MS;
use crate::support::{own_path, touched};

payloads![
    ("touch", touch),
    ("hold", hold),
    ("touch-twice", touch_twice),
    ("touch-in-child", touch_in_child),
    ("burn", burn),
    ("burn-many", burn_many),
    ("burn-wall", burn_wall),
    ("spawn", spawn_up_to),
    ("threads_up_to", threads_up_to),
];

fn number(args: &[String]) -> u64 {
    args[0].parse().expect("a number")
}

/// Uses so many megabytes.
fn touch(args: &[String]) -> i32 {
    let bytes = touched((number(args) as usize) << 20);
    println!("touched {}", bytes.len() >> 20);
    0
}

/// The same, for as long as it lives.
fn hold(args: &[String]) -> i32 {
    let bytes = touched((number(args) as usize) << 20);
    println!("holds {}", bytes.len() >> 20);
    std::thread::sleep(60_000 * MS);
    drop(black_box(bytes));
    0
}

/// Uses so many megabytes, and as many in a child meanwhile.
fn touch_twice(args: &[String]) -> i32 {
    let bytes = touched((number(args) as usize) << 20);
    child("touch", &args[0]).status().expect("a child");
    drop(black_box(bytes));
    0
}

/// The same in a child, whose end it passes over.
fn touch_in_child(args: &[String]) -> i32 {
    let status = child("touch", &args[0]).status().expect("a child");
    println!("{status}");
    0
}

fn child(name: &str, arg: &str) -> Host {
    let mut command = Host::new(own_path());
    command.args(["--payload", name, arg]);
    command
}

fn spin() {
    for number in 0..10_000 {
        black_box(number);
    }
}

/// CPU time of this process so far.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("own usage");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

/// Uses so many milliseconds of CPU time, and tells how many microseconds it has used at its end. What this process
/// used before is not among them: it was in no group at first.
fn burn(args: &[String]) -> i32 {
    let end = used() + Duration::from_millis(number(args));
    while used() < end {
        spin();
    }
    println!("{}", used().as_micros());
    0
}

/// The same in so many processes.
fn burn_many(args: &[String]) -> i32 {
    let mut children: Vec<_> = (0..number(args)).map(|_| child("burn", &args[1]).spawn().expect("a process")).collect();
    for child in &mut children {
        child.wait().expect("its end");
    }
    0
}

/// Uses the CPU for so many milliseconds of time.
fn burn_wall(args: &[String]) -> i32 {
    let (start, time) = (Instant::now(), Duration::from_millis(number(args)));
    while start.elapsed() < time {
        spin();
    }
    0
}

/// Starts up to so many processes, and tells how many there were and why there was not one more.
fn spawn_up_to(args: &[String]) -> i32 {
    let mut children = vec![];
    let mut error = None;
    while (children.len() as u64) < number(args) && error.is_none() {
        match Host::new("sleep").arg("1000").spawn() {
            Ok(child) => children.push(child),
            Err(found) => error = found.raw_os_error(),
        }
    }
    println!("{} {}", children.len(), error.unwrap_or(0));
    children.iter_mut().for_each(|child| drop(child.kill()));
    0
}

/// The same of threads.
fn threads_up_to(args: &[String]) -> i32 {
    let mut count = 0;
    let mut error = None;
    while count < number(args) && error.is_none() {
        match std::thread::Builder::new().spawn(|| std::thread::sleep(60_000 * MS)) {
            Ok(_) => count += 1,
            Err(found) => error = found.raw_os_error(),
        }
    }
    println!("{count} {}", error.unwrap_or(0));
    0
}
