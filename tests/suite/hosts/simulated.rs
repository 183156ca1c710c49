//! A simulated host: a mount namespace of its own that a script has changed. On it a fixed list of sandboxes is tried,
//! and each answers that it works, or why it does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stockade::probe::{Feature, Support};
use stockade::{Command, Error, Outcome, Root, Sandbox, profile};

use crate::support::apart::{apart, as_before, host_output};
use crate::support::{at_most, is_root, own_path};

payloads![("try_host", try_host)];

/// What a sandbox answers that works.
pub const WORKS: &str = "works";
/// A directory of the simulated host that the caller owns.
pub const WORK: &str = "/mnt/work";
/// The longest that a trial may take: it answers otherwise that it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

type Trial = (&'static str, fn() -> String);

const TRIALS: &[Trial] = &[
    ("default", || runs(Sandbox::new())),
    ("build_step", || runs(profile::build_step())),
    ("test", || runs(profile::test())),
    ("agent", || runs(profile::agent())),
    ("judge", || runs(profile::judge())),
    ("writable bind", writable_bind),
    ("doctor", doctor),
];

fn answer(result: Result<Outcome, Error>) -> String {
    match result {
        Ok(outcome) if outcome.success() => WORKS.into(),
        Ok(outcome) => outcome.termination.to_string(),
        Err(error) => error.to_string(),
    }
}

fn runs(sandbox: Sandbox) -> String {
    answer(sandbox.status(Command::new("true")))
}

fn writable_bind() -> String {
    let sandbox = Sandbox::new().root(Root::host().bind_rw(WORK, "/work"));
    let said = answer(sandbox.status(Command::new("sh").args(["-c", "echo written >/work/file"])));
    match fs::read_to_string(Path::new(WORK).join("file")) {
        Ok(written) if said == WORKS => assert_eq!(written, "written\n"),
        Err(error) if said == WORKS => return format!("nothing was written: {error}"),
        _ => {}
    }
    said
}

/// Whether the probe has found that a default sandbox can be created, or what it advises.
fn doctor() -> String {
    let support = Support::probe();
    if support.has(Feature::Sandbox) {
        return WORKS.into();
    }
    let finding = support.findings.iter().find(|finding| finding.feature == Feature::Sandbox).expect("a finding");
    format!("{}: {}", finding.reason().unwrap_or_default(), finding.hint().unwrap_or_default())
}

/// Tries everything, and writes a line for each answer.
fn try_host(_: &[String]) -> i32 {
    for &(name, trial) in TRIALS {
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || sender.send(trial()));
        let said = answers.recv_timeout(at_most(PATIENCE)).unwrap_or_else(|_| "it hangs".into());
        println!("{name}\t{}", said.replace('\n', "\\n"));
    }
    0
}

/// A host that is the machine, but for what a shell script changes.
pub struct SimulatedHost {
    script: String,
    before: String,
    variables: Vec<(&'static str, String)>,
    namespaces: Vec<&'static str>,
}

impl SimulatedHost {
    /// The machine after a script, which is root in a mount namespace of its own.
    pub fn after(script: &str) -> Self {
        Self { script: script.into(), before: as_before(), variables: vec![], namespaces: vec!["-m"] }
    }

    /// The machine with another root directory: it has the entries of the machine's but for some, and what a script
    /// creates in it, whose working directory it is.
    pub fn with_root(without: &[&str], script: &str) -> Self {
        let entries = Self::entries(without);
        Self::after(&format!(
            "mkdir /mnt/root; mount -t tmpfs -o mode=755 tmpfs /mnt/root; cd /mnt/root
            {entries}
            {script}
            mkdir old; pivot_root . old; cd /; umount -l /old; rmdir /old"
        ))
    }

    /// The part of a script that shows the entries of the machine's root, but for some, in the working directory.
    fn entries(without: &[&str]) -> String {
        let left_out = [without, &["mnt"]].concat().join("|");
        format!(
            "for entry in /*; do
                case \"${{entry#/}}\" in {left_out}) continue;; esac
                if [ -L \"$entry\" ]; then cp -P \"$entry\" .
                elif [ -d \"$entry\" ]; then mkdir \".$entry\"; mount --rbind \"$entry\" \".$entry\"
                else : >\".$entry\"; mount --bind \"$entry\" \".$entry\"; fi
            done
            mkdir mnt; mount --bind /mnt mnt; mount --bind /mnt/payload mnt/payload"
        )
    }

    /// The machine in a chroot, which is a mount point or not.
    pub fn in_chroot(is_mount_point: bool) -> Self {
        let tmpfs = if is_mount_point { "mount -t tmpfs -o mode=755 tmpfs /mnt/root;" } else { "" };
        let host = Self::after(&format!("mkdir /mnt/root; {tmpfs} cd /mnt/root; {}", Self::entries(&[])));
        // The shell stays outside, as the one does from which chroot(8) is called.
        host.by("sh -c '\"$@\"; exit $?' sh chroot /mnt/root")
    }

    /// Sets an environment variable of the caller.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Gives the host a network of its own, with the loopback interface alone, where everybody may bind to every port.
    pub fn with_network(mut self) -> Self {
        self.namespaces.push("-n");
        self.script += "\nip link set lo up; echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start";
        self
    }

    /// Starts the caller by another command, such as `prlimit --nofile=64`.
    pub fn by(mut self, command: &str) -> Self {
        self.before = format!("{} {command}", self.before);
        self
    }

    /// Makes the caller an ordinary user, who owns the directory for a writable bind.
    pub fn of_user(mut self) -> Self {
        if is_root() {
            self.script += &format!("\nchown 1234:1234 {WORK}");
            self.before += " setpriv --reuid=1234 --regid=1234 --clear-groups";
        }
        self
    }

    /// Tries all sandboxes.
    #[track_caller]
    pub fn answers(&self) -> Answers {
        let said = self.output("try_host");
        let line = |line: &str| line.split_once('\t').map(|(name, said)| (name.to_owned(), said.to_owned()));
        let answers: BTreeMap<_, _> = said.lines().filter_map(line).collect();
        assert_eq!(answers.len(), TRIALS.len(), "{said}");
        Answers(answers)
    }

    /// Runs a payload as the caller on the host, and returns what it writes.
    #[track_caller]
    pub fn output(&self, payload: &str) -> String {
        let own = own_path();
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /mnt; mkdir {WORK}; : >/mnt/payload
            mount --bind \"$1\" /mnt/payload; shift
            {}
            exec {} /mnt/payload \"$@\"",
            self.script, self.before
        );
        let args = [own.as_os_str(), "--payload".as_ref(), payload.as_ref()];
        let mut command = apart(&self.namespaces, &script, &args);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        host_output(&mut command)
    }

    #[track_caller]
    pub fn assert_works(&self) {
        self.answers().assert_all_but(&[]);
    }
}

/// What the sandboxes answered.
#[derive(Debug)]
pub struct Answers(BTreeMap<String, String>);

impl Answers {
    /// Checks that all sandboxes work but for some, each of which answers with words that contain the given ones.
    #[track_caller]
    pub fn assert_all_but(&self, others: &[(&str, &str)]) {
        for (name, said) in &self.0 {
            match others.iter().find(|(other, _)| other == name) {
                Some((_, words)) => assert!(said.contains(words), "{name}: {said}"),
                None => assert_eq!(said, WORKS, "{name}"),
            }
        }
    }

    /// Checks that no sandbox works, and that each answers with words that contain the given ones.
    #[track_caller]
    pub fn assert_all(&self, words: &str) {
        for (name, said) in &self.0 {
            assert!(said.contains(words), "{name}: {said}");
        }
    }
}
