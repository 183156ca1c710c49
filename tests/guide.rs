//! The guide: in each page on a use, the section "From an empty crate" is followed step by step. Its files are written, its
//! commands are executed, and what they print is what the page shows.
//!
//! The programs run as root and again as an ordinary user, who may create no cgroups.
//!
//! This has its own process, since it runs cargo.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as Host;

use stockade::{Cgroup, Command, Sandbox};
use tempfile::TempDir;

/// The user who runs the programs again.
const ORDINARY: u32 = 1000;

/// The command that builds a program and runs it.
const RUN: &str = "cargo run -q";

/// A step of a page.
#[derive(Debug, PartialEq)]
enum Step {
    /// A file, by the name that stands before it.
    File { name: String, text: String },
    /// Commands, and what they print: if there are several, the first is for who may create cgroups.
    Shell { commands: String, shown: Vec<String> },
}

/// Reads the steps of a section.
fn steps(page: &str) -> Vec<Step> {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix("From an empty crate\n"));
    let mut lines = section.expect("a section on the empty crate").lines();
    let (mut steps, mut before) = (vec![], "");
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = if line.is_empty() { before } else { line };
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match (language, named(before), steps.last_mut()) {
            (_, Some(name), _) => steps.push(Step::File { name: name.to_owned(), text: visible(&block) }),
            ("sh", ..) => steps.push(Step::Shell { commands: text(&block), shown: vec![] }),
            ("text", _, Some(Step::Shell { shown, .. })) => shown.push(text(&block)),
            _ => {}
        }
        before = "";
    }
    steps
}

/// The name of a file at the end of a line: "`name`:".
fn named(line: &str) -> Option<&str> {
    line.strip_suffix("`:")?.rsplit('`').next().filter(|name| name.contains('.') && !name.contains(' '))
}

fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A block without the lines that the documentation hides.
fn visible(block: &[&str]) -> String {
    let shown: Vec<&str> = block.iter().copied().filter(|line| *line != "#" && !line.starts_with("# ")).collect();
    text(&shown)
}

/// Whether a text is as shown, where `…` stands for any text.
fn is_as(shown: &str, text: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last.is_some_and(|last| rest.ends_with(last))
}

/// A directory in which a page is followed.
struct Place {
    directory: TempDir,
    /// The package, which the commands create.
    package: &'static str,
    /// The executable of an ordinary user, who may have no cargo.
    executable: Option<PathBuf>,
}

impl Place {
    fn new(package: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix("guide-").tempdir().expect("a directory");
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).expect("permissions");
        let settings = directory.path().join(".cargo");
        fs::create_dir(&settings).expect("a directory");
        let own = env!("CARGO_MANIFEST_DIR");
        let patch = format!("[patch.crates-io]\nstockade.path = {own:?}\n[net]\noffline = true\n");
        fs::write(settings.join("config.toml"), patch).expect("the settings of cargo");
        Self { directory, package, executable: None }
    }

    /// The place of an ordinary user, with an executable that was built.
    fn of_ordinary_user(package: &'static str) -> Self {
        let place = Self { executable: Some(PathBuf::new()), ..Self::new(package) };
        let copy = place.directory.path().join("executable");
        // Not by this process: one that another thread forks could hold the file open for writing (ETXTBSY).
        let cp = Host::new("cp").arg(target().join("debug").join(package)).arg(&copy).status();
        assert!(cp.is_ok_and(|status| status.success()), "a copy of the executable");
        chown(&place.directory, Some(ORDINARY), Some(ORDINARY)).expect("it belongs to the user");
        Self { executable: Some(copy), ..place }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(self.package)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of a file");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{name}: {error}"));
        if self.executable.is_some() {
            chown(&path, Some(ORDINARY), Some(ORDINARY)).expect("it belongs to the user");
        }
        if name == "Cargo.toml" {
            // The versions that this package is tested with, which are on this machine.
            let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
            fs::copy(lock, self.path().join("Cargo.lock")).expect("a copy of Cargo.lock");
        }
    }

    /// Executes commands, and returns all that they print.
    fn execute(&self, commands: &str) -> String {
        let mut commands = commands.to_owned();
        let mut host = Host::new("sh");
        if let Some(executable) = &self.executable {
            commands = commands.replace(RUN, executable.to_str().expect("a path")).replace("cargo new -q", "mkdir");
            host.uid(ORDINARY).gid(ORDINARY);
        }
        let exists = self.path().exists();
        host.current_dir(if exists { self.path() } else { self.directory.path().to_owned() });
        let cargo = Path::new(env!("CARGO")).parent().expect("the directory of cargo");
        let path = format!("{}:{}", cargo.display(), std::env::var("PATH").unwrap_or_default());
        host.env("PATH", path)
            .env("CARGO_TARGET_DIR", target())
            .env("HOME", self.home())
            .env("CARGO_TERM_COLOR", "never");
        let output = host.args(["-c", &format!("exec 2>&1\n{commands}")]).output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn home(&self) -> PathBuf {
        match self.executable {
            Some(_) => self.directory.path().to_owned(),
            None => std::env::home_dir().expect("a home directory"),
        }
    }

    /// Follows the steps. `has_cgroups` is `None` if that is unknown.
    fn follow(&self, steps: &[Step], has_cgroups: Option<bool>) {
        for step in steps {
            match step {
                Step::File { name, text } => self.write(name, text),
                Step::Shell { commands, shown } => {
                    let printed = self.execute(commands);
                    let nothing = [String::new()];
                    let expected = match (has_cgroups, shown.as_slice()) {
                        (_, []) => &nothing,
                        (Some(true), shown) => &shown[..1],
                        (Some(false), shown) => &shown[shown.len() - 1..],
                        (None, shown) => shown,
                    };
                    let is_shown = expected.iter().any(|shown| is_as(shown, &printed));
                    assert!(is_shown, "{commands}\nprinted\n{printed}\nand not one of\n{expected:#?}");
                }
            }
        }
    }
}

/// The directory in which cargo builds the programs. They share the dependencies.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide")
}

fn has_cgroups() -> bool {
    let sandbox = Sandbox::new().cgroup(Cgroup::new().memory_max(64 << 20).pids_max(64));
    sandbox.status(Command::new("true")).is_ok()
}

/// Whether a program can be executed, with the reason to skip a test if it cannot.
fn runs(program: &str) -> bool {
    let error = Host::new(program).arg("--version").output().err();
    if let Some(error) = &error {
        eprintln!("skipped: {program} can't be run: {error}");
    }
    error.is_none()
}

/// Whether a package has a program. An ordinary user may have no cargo to run tests, which `tests/isolated.rs` runs as one.
fn has_program(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::File { name, .. } if name == "src/main.rs"))
}

/// Follows a page, and as root again as an ordinary user.
fn follow(page: &str, package: &'static str) {
    let steps = steps(page);
    assert!(steps.iter().any(|step| matches!(step, Step::Shell { shown, .. } if !shown.is_empty())), "{steps:#?}");
    Place::new(package).follow(&steps, Some(has_cgroups()));
    if !nix::unistd::geteuid().is_root() {
        eprintln!("started by an ordinary user: what root sees is not tested");
    } else if has_program(&steps) {
        Place::of_ordinary_user(package).follow(&steps, None);
    }
}

#[test]
fn the_build_system_builds_what_its_page_says() {
    if runs("cc") {
        follow(include_str!("../docs/builds.md"), "minibuild");
    }
}

#[test]
fn the_judge_gives_the_verdicts_of_its_page() {
    if runs("cc") {
        follow(include_str!("../docs/judging.md"), "minijudge");
    }
}

#[test]
fn the_agent_does_what_its_page_says() {
    if runs("/usr/bin/python3") {
        follow(include_str!("../docs/agents.md"), "miniagent");
    }
}

#[test]
fn tests_are_isolated_as_their_page_says() {
    follow(include_str!("../docs/testing.md"), "ports");
}

#[test]
fn steps_are_read_and_compared() {
    let page = "# Page\n\n```sh\nno\n```\n\n## From an empty crate\n\nThe file. `src/main.rs`:\n\n```rust\n# hidden\nfn main() {}\n\
                ```\n\n```sh\nrun\n```\n\n```text\none\n```\n\nOr:\n\n```text\ntwo\n```\n\n## Next\n\n```sh\nno\n```\n";
    let file = Step::File { name: "src/main.rs".into(), text: "fn main() {}\n".into() };
    let shell = Step::Shell { commands: "run\n".into(), shown: vec!["one\n".into(), "two\n".into()] };
    assert_eq!(steps(page), [file, shell]);
    assert!(is_as("a\n", "a\n") && is_as("a…c…\n", "a b c d\n") && is_as("…\nb\n", "a\nb\n"));
    assert!(!is_as("a\n", "b\n") && !is_as("a…c\n", "a c d\n") && !is_as("…\nb\n", "a\nc\n"));
}
