//! Programs of different languages that read, compute and write, under every preset.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command as Host;

use stockade::mount::Bind;
use stockade::{Command, Root, Sandbox, Signal, Stdio, Termination};
use tempfile::TempDir;

use crate::seccomp::presets::all;
use crate::seccomp::{bounded, run, under};
use crate::support::{shared_dir, text, unless_python, unless_root, unless_runs, with_payload};

payloads![("compute", compute), ("abort_under_filter", abort)];

pub const PYTHON: &str = "/usr/bin/python3";

pub fn unless_compilers() -> Option<String> {
    unless_runs("gcc").or_else(|| unless_runs("g++"))
}

/// The toolchain belongs to whoever builds this, and the second run is another's.
fn unless_rustc() -> Option<String> {
    unless_root().or_else(|| unless_runs("rustc"))
}

/// Numbers on standard input: their sum, the root of the sum of their squares, and how many different ones there are.
const INPUT: &str = "3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2 3 8 4 6 2 6 4 3 3 8 3 2 7\n";
const OUTPUT: &str = "141 29.0689 9";

const C: &str = r#"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int order(const void *a, const void *b) { return *(int *)a - *(int *)b; }
int main(void) {
    int *numbers = malloc(64 << 20), count = 0, different = 0;
    long sum = 0;
    double squares = 0;
    if (!numbers) return 1;
    memset(numbers, 1, 64 << 20);
    while (scanf("%d", &numbers[count]) == 1) {
        sum += numbers[count];
        squares += (double)numbers[count] * numbers[count];
        count++;
    }
    qsort(numbers, count, sizeof *numbers, order);
    for (int i = 0; i < count; i++) different += !i || numbers[i] != numbers[i - 1];
    printf("%ld %.4f %d\n", sum, sqrt(squares), different);
    free(numbers);
    return 0;
}
"#;

const CPP: &str = r#"
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <set>
#include <stdexcept>
#include <vector>
int main() {
    std::vector<int> numbers;
    for (int number; std::cin >> number;) numbers.push_back(number);
    std::vector<char> room(64 << 20, 1);
    long sum = 0;
    double squares = 0;
    for (int number : numbers) sum += number, squares += double(number) * number;
    try {
        numbers.at(numbers.size());
    } catch (const std::out_of_range &) {
        std::set<int> different(numbers.begin(), numbers.end());
        std::cout << sum << ' ' << std::fixed << std::setprecision(4) << std::sqrt(squares) << ' '
                  << different.size() << std::endl;
    }
    return room.back() - 1;
}
"#;

const RUST: &str = r#"
use std::io::Read;
fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let numbers: Vec<i64> = text.split_whitespace().map(|it| it.parse().unwrap()).collect();
    let room = vec![1u8; 64 << 20];
    let squares: f64 = numbers.iter().map(|it| (it * it) as f64).sum();
    let different: std::collections::HashSet<_> = numbers.iter().collect();
    println!("{} {:.4} {}", numbers.iter().sum::<i64>(), squares.sqrt(), different.len() * room[1 << 20] as usize);
}
"#;

const PYTHON_SCRIPT: &str = r#"
import hashlib, json, math, random, re, sys
numbers = [int(word) for word in re.findall(r"\d+", sys.stdin.read())]
room = bytearray(64 << 20)
random.shuffle(numbers)
assert json.loads(json.dumps(numbers)) == numbers and len(hashlib.sha256(room).hexdigest()) == 64
print(sum(numbers), "%.4f" % math.sqrt(sum(number * number for number in numbers)), len(set(numbers)))
"#;

/// The same, as this binary does it, which is linked dynamically.
fn compute(_: &[String]) -> i32 {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("input");
    let numbers: Vec<i64> = text.split_whitespace().map(|it| it.parse().expect("a number")).collect();
    let squares: f64 = numbers.iter().map(|it| (it * it) as f64).sum();
    let different: std::collections::HashSet<_> = numbers.iter().collect();
    println!("{} {:.4} {}", numbers.iter().sum::<i64>(), squares.sqrt(), different.len());
    0
}

fn abort(_: &[String]) -> i32 {
    std::process::abort()
}

/// A directory with a source, and with the programs that compilers make of it.
struct Built(TempDir);

impl Built {
    fn new(name: &str, source: &str) -> Self {
        let built = Self(shared_dir());
        fs::write(built.0.path().join(name), source).expect("a source");
        fs::write(built.0.path().join("input"), INPUT).expect("the input");
        built
    }

    fn with(self, compiler: &str, args: &[&str]) -> Self {
        let output = Host::new(compiler).args(args).current_dir(self.0.path()).output().expect("a compiler");
        assert!(output.status.success(), "{compiler} {args:?}: {}", text(&output.stderr));
        self
    }

    fn input(&self) -> Stdio {
        File::open(self.0.path().join("input")).expect("the input").into()
    }

    /// It gives the result under every preset.
    fn computes(&self, program: &str, args: &[&str]) {
        for (preset, policy) in all() {
            let root = with_payload(Root::host()).with(Bind::new(self.0.path(), "/mnt").unmapped());
            let sandbox = bounded(Sandbox::new().root(root).seccomp(policy));
            let mut command = Command::new(program);
            command.args(args).stdin(self.input());
            let output = sandbox.output(&command).unwrap_or_else(|error| panic!("{program}: {error}"));
            let said = text(&output.stderr);
            assert_eq!(output.outcome.termination, Termination::Exited(0), "{program} under {preset} said {said:?}");
            assert_eq!(text(&output.stdout), OUTPUT, "{program} under {preset}");
        }
    }
}

#[apply(test)]
#[skip(unless_compilers)]
fn c_computes_under_every_preset() {
    let built = Built::new("a.c", C);
    let built = built.with("gcc", &["-O1", "-o", "dynamic", "a.c", "-lm"]);
    let built = built.with("gcc", &["-O1", "-static", "-o", "static", "a.c", "-lm"]);
    built.computes("/mnt/dynamic", &[]);
    built.computes("/mnt/static", &[]);
}

#[apply(test)]
#[skip(unless_compilers)]
fn cpp_computes_under_every_preset() {
    let built = Built::new("a.cpp", CPP);
    let built = built.with("g++", &["-o", "dynamic", "a.cpp"]).with("g++", &["-static", "-o", "static", "a.cpp"]);
    built.computes("/mnt/dynamic", &[]);
    built.computes("/mnt/static", &[]);
}

#[apply(test)]
fn rust_computes_under_every_preset() {
    Built::new("none", "").computes(crate::support::PAYLOAD, &["--payload", "compute"]);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_rustc)]
fn rust_that_is_linked_statically_computes_under_every_preset() {
    let built = Built::new("a.rs", RUST);
    built.with("rustc", &["-C", "target-feature=+crt-static", "-o", "static", "a.rs"]).computes("/mnt/static", &[]);
}

#[apply(test)]
#[skip(unless_python)]
fn python_computes_under_every_preset() {
    Built::new("a.py", PYTHON_SCRIPT).computes(PYTHON, &["/mnt/a.py"]);
}

#[apply(test)]
fn a_program_aborts_under_every_preset() {
    for (preset, policy) in all() {
        let outcome = run(&under(policy), "abort_under_filter", &[]).outcome;
        let aborted = matches!(outcome.termination, Termination::Signaled { signal: Signal::ABRT, .. });
        assert!(aborted, "under {preset}: {outcome}");
    }
}
