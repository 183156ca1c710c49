//! A program prepares a workspace of git in one sandbox, so that less of it is protected in the next.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command as Host;
use std::time::{Duration, SystemTime};

use stockade::mount::Bind;
use stockade::{Command, ErrorKind, Root, Sandbox};

use crate::attacks::common::host_output;
use crate::attacks::protect::{Repository, git, git_ok, unless_git, unless_protected};
use crate::support::{exists, payload_on_host, sh, shared_dir, text};

payloads![("plant_in_workspace", plant_in_workspace)];

/// An attack in two sandboxes. The scripts start in the directory that is bound, and know `$WS`, the workspace on the
/// host and inside, and `$EVIL`, the program that git on the host is to execute. `plant FILE` adds a setting that has git
/// execute it, and `hook FILE` creates a hook.
struct Attack {
    what: &'static str,
    /// What the host does before, in the workspace.
    before: &'static str,
    /// The directory that is bound, beside the workspace or below it.
    source: &'static str,
    first: &'static str,
    second: &'static str,
    /// The directory in which the host executes git afterwards, and its arguments.
    then: (&'static str, &'static [&'static str]),
}

const STATUS: &[&str] = &["status"];
const CHECKOUT: &[&str] = &["checkout", "-q", "-b", "more"];
const NOTHING: Attack = Attack { what: "", before: "", source: "ws", first: "", second: "", then: ("ws", STATUS) };

const ATTACKS: &[Attack] = &[
    Attack {
        what: "a submodule without HEAD",
        first: "mv .git/modules/sub/HEAD .git/modules/sub/H",
        second: "plant .git/modules/sub/config; mv .git/modules/sub/H .git/modules/sub/HEAD",
        then: ("ws/sub", STATUS),
        ..NOTHING
    },
    Attack {
        what: "a directory above a submodule that has HEAD",
        first: "touch .git/modules/third_party/HEAD",
        second: "plant .git/modules/third_party/foo/config",
        then: ("ws/third_party/foo", STATUS),
        ..NOTHING
    },
    Attack {
        what: "a directory above a submodule that is a git directory",
        first: "cd .git/modules/third_party; mkdir objects refs hooks; echo '[core] bare = 1' > config; cp foo/HEAD .",
        second: "hook .git/modules/third_party/foo/hooks/post-checkout",
        then: ("ws/third_party/foo", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "a bare repository without objects",
        source: "bare",
        first: "mv objects o",
        second: "plant config; printf '[core]\nbare = false\nworktree = ../ws\n' >> config; mv o objects",
        then: ("bare", STATUS),
        ..NOTHING
    },
    Attack {
        what: "a bare repository without HEAD and refs",
        source: "bare",
        first: "mv HEAD H; mv refs r",
        second: "plant config; printf '[core]\nbare = false\nworktree = ../ws\n' >> config; mv H HEAD; mv r refs",
        then: ("bare", STATUS),
        ..NOTHING
    },
    Attack {
        what: "many submodules",
        first: "cd .git/modules && seq -f a%g 5000 | xargs mkdir",
        second: "plant .git/modules/sub/config",
        then: ("ws/sub", STATUS),
        ..NOTHING
    },
    Attack {
        what: "many worktrees",
        first: "cp -r .git new && plant new/config && cd .git/worktrees && seq -f a%g 5000 | xargs mkdir",
        second: "echo $WS/new > .git/worktrees/within/commondir",
        then: ("ws/within", STATUS),
        ..NOTHING
    },
    Attack {
        what: "submodules deep below others",
        first: "cd .git/modules/third_party/foo && for i in 1 2 3 4 5 6 7 8 9; do mkdir a; touch HEAD; cd a; done",
        second: "hook .git/modules/third_party/foo/hooks/post-checkout",
        then: ("ws/third_party/foo", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "a directory of submodules that cannot be listed",
        first: "chmod a-r .git/modules",
        second: "chmod u+r .git/modules; plant .git/modules/sub/config",
        then: ("ws/sub", STATUS),
        ..NOTHING
    },
    Attack {
        what: "a git directory with the mark of a placeholder",
        // Then no placeholder is created and removed there, which would change the time.
        before: "touch .git/config.worktree; echo . > .git/commondir",
        first: "touch -d @437133 .git",
        second: "hook .hooks/post-checkout",
        then: ("ws", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "hooks of a linked worktree",
        before: "git worktree add -q .worktrees/f; git config core.hooksPath .husky",
        second: "hook .worktrees/f/.husky/post-checkout",
        then: ("ws/.worktrees/f", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "hooks that the configuration of a linked worktree names",
        before: "git config --unset core.hooksPath; git config extensions.worktreeConfig true
                 git -C within config --worktree core.hooksPath hk",
        second: "hook within/hk/post-checkout",
        then: ("ws/within", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "hooks of a linked worktree whose repository is elsewhere",
        before: "git config core.hooksPath .husky",
        source: "linked",
        second: "hook .husky/post-checkout",
        then: ("linked", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "a submodule of a linked worktree",
        before: "git -c protocol.file.allow=always -C within submodule update -q --init",
        second: "plant .git/worktrees/within/modules/sub/config",
        then: ("ws/within/sub", STATUS),
        ..NOTHING
    },
    Attack {
        what: "hooks in the git directory",
        before: "git config core.hooksPath .git/others",
        second: "hook .git/others/post-checkout",
        then: ("ws", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "hooks by a symlink that leads to the workspace",
        before: "ln -s $WS ../link; git config core.hooksPath $WS/../link/hk",
        second: "hook hk/post-checkout",
        then: ("ws", CHECKOUT),
        ..NOTHING
    },
    Attack {
        what: "a workspace that becomes the repository",
        first: "mkdir objects refs; plant config
                printf '[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\n' >> config",
        second: "mv .git/HEAD .git/H; echo 'ref: refs/heads/main' > HEAD",
        ..NOTHING
    },
    Attack {
        what: "a workspace with a configuration that becomes the repository",
        first: "printf '[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\n' > config; plant config",
        second: "mkdir objects refs; mv .git/HEAD .git/H; echo 'ref: refs/heads/main' > HEAD",
        ..NOTHING
    },
    Attack {
        what: "a workspace whose objects are elsewhere becomes the repository",
        first: "mkdir -p d/objects d/refs; echo d > commondir
                printf '[core]\nbare = true\n[remote \"origin\"]\nurl = /\nuploadpack = %s\n' $EVIL > d/config",
        second: "mv .git/HEAD .git/H; echo 'ref: refs/heads/main' > HEAD",
        then: ("ws", &["fetch"]),
        ..NOTHING
    },
];

impl Attack {
    /// Returns whether git on the host has executed what the programs have planted.
    fn succeeds(&self, is_protected: bool) -> bool {
        let repository = Repository::new();
        let (dir, ws) = (repository.dir.path(), repository.path());
        let hit = dir.join("hit");
        let other = dir.join("other");
        git_ok(&ws, &["submodule", "add", "-q", other.to_str().unwrap(), "third_party/foo"]);
        git_ok(&ws, &["commit", "-qm", "third party"]);
        git_ok(dir, &["clone", "-q", "--bare", "ws", "bare"]);
        let evil = dir.join("evil");
        fs::write(&evil, format!("#!/bin/sh\ntouch {}\n", hit.display())).unwrap();
        fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
        let before =
            Host::new("sh").args(["-ec", self.before]).current_dir(&ws).env("WS", &ws).env("HOME", "/nowhere").status();
        assert!(before.unwrap().success(), "{}", self.what);
        let source = dir.join(self.source);
        let bind = Bind::new(&source, &source).writable();
        let bind = if is_protected { bind.protect_git() } else { bind };
        let sandbox = Sandbox::new().root(Root::host().with(bind));
        for script in [self.first, self.second] {
            let functions = format!(
                "plant() {{ printf '[core]\\nfsmonitor = {}\\n' >> \"$1\"; }}
                 hook() {{ mkdir -p \"${{1%/*}}\"; printf '#!/bin/sh\\ntouch {}\\n' > \"$1\"; chmod +x \"$1\"; }}",
                evil.display(),
                hit.display()
            );
            let mut command = Command::new("sh");
            command
                .args(["-c", &format!("{functions}\ncd {}\n{script}", source.display())])
                .env("WS", &ws)
                .env("EVIL", &evil);
            // The next sandbox may refuse what the first program has left.
            if let Err(error) = sandbox.output(&command) {
                assert!(is_protected && error.hint().is_some(), "{}: {error}", self.what);
            }
        }
        git(&dir.join(self.then.0), self.then.1);
        // So that the directory can be removed.
        let _ = Host::new("chmod").args(["-R", "u+rwx"]).arg(dir).status();
        exists(hit)
    }
}

/// Attack 49: What a program creates, renames or removes in one sandbox does not reduce what the next one protects.
#[apply(test)]
#[skip(unless_git)]
fn nothing_that_a_program_leaves_reduces_what_the_next_sandbox_protects() {
    let mut wrong = vec![];
    for attack in ATTACKS {
        if !attack.succeeds(false) {
            wrong.push(format!("{} must work without protection", attack.what));
        }
        if attack.succeeds(true) {
            wrong.push(format!("{} works", attack.what));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Attack 49: A repository that is too large to search is an error rather than protected in part.
#[apply(test)]
#[skip(unless_git)]
fn too_many_git_directories_are_an_error() {
    let repository = Repository::new();
    let modules = repository.path().join(".git/modules");
    for number in 0..2100 {
        let module = modules.join(format!("a{number}"));
        fs::create_dir(&module).unwrap();
        fs::write(module.join("config"), "[core]\nbare = false\n").unwrap();
    }
    let sandbox = Sandbox::new().root(Root::host().git_workspace(repository.path(), "/tmp/ws"));
    let error = sandbox.status(Command::new("true")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    assert!(error.to_string().contains("too large to protect"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("remove the directories of submodules")), "{error}");
}

/// A caller whose home has a configuration of git, and whose sandbox writes to a workspace.
fn plant_in_workspace(args: &[String]) -> i32 {
    let [workspace, script] = args else { panic!("{args:?}") };
    let output = sh(&Sandbox::new().root(Root::host().git_workspace(workspace, "/tmp/ws")), script);
    println!("{}", output.outcome.success());
    0
}

/// Attack 49: The caller's own configuration, or a file that it includes, lies in the workspace.
#[apply(test)]
#[skip(unless_git)]
fn the_callers_own_configuration_is_protected_in_a_workspace() {
    let (home, repository) = (shared_dir(), Repository::new());
    let (ws, included) = (repository.path(), repository.path().join("settings"));
    let written = |home: &PathBuf, script: &str| {
        let mut caller = payload_on_host("plant_in_workspace");
        caller.args([ws.to_str().unwrap(), script]).env("HOME", home);
        host_output(caller.env_remove("XDG_CONFIG_HOME").env_remove("GIT_CONFIG_GLOBAL"))
    };
    let at = home.path().to_owned();
    assert_eq!(written(&at, "echo evil > /tmp/ws/settings"), "true");
    fs::remove_file(&included).unwrap();
    fs::write(at.join(".gitconfig"), format!("[include] path = {}\n", included.display())).unwrap();
    assert_eq!(written(&at, "echo evil > /tmp/ws/settings"), "false");
    assert_eq!(written(&at, "echo evil > /tmp/ws/.gitconfig"), "true");
    fs::remove_file(ws.join(".gitconfig")).unwrap();
    assert_eq!(written(&ws, "echo evil > /tmp/ws/.gitconfig"), "false");
    assert!(!exists(included) && !exists(ws.join(".gitconfig")));
}

/// Work in a bare repository goes on as before.
#[apply(test)]
#[skip(unless_git)]
fn bare_repositories_can_be_worked_in() {
    let repository = Repository::new();
    let (dir, bare) = (repository.dir.path(), repository.dir.path().join("bare"));
    git_ok(dir, &["clone", "-q", "--bare", "ws", "bare"]);
    let root = Root::host().git_workspace(&bare, &bare).bind(dir.join("other"), dir.join("other"));
    let script = format!(
        "cd {} && git config --global safe.directory '*' && git fetch -q {}/other HEAD:refs/heads/fetched && git \
         symbolic-ref HEAD refs/heads/fetched && git gc -q && git pack-refs --all",
        bare.display(),
        dir.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("HOME", "/tmp");
    let output = Sandbox::new().root(root).output(&command).unwrap();
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    assert_eq!(git_ok(&bare, &["symbolic-ref", "HEAD"]).trim(), "refs/heads/fetched");
    for name in ["commondir", "config.worktree", ".git"] {
        assert!(!exists(bare.join(name)), "{name} stays");
    }
}

/// Sets the modification time that placeholders have.
fn mark(path: &PathBuf) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(437_133);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Attack 49: A program sets the modification time of placeholders, which the caller removes.
#[apply(test)]
#[skip(unless_protected)]
fn files_with_the_mark_of_a_placeholder_are_none() {
    let workspace = shared_dir();
    let at = |name: &str| workspace.path().join(name);
    let root = |path: &str| Root::host().bind_rw(workspace.path(), "/tmp/ws").protect(format!("/tmp/ws/{path}"));
    // The mark counts: an empty file with it is removed.
    fs::write(at("empty"), "").unwrap();
    mark(&at("empty"));
    assert!(sh(&Sandbox::new().root(root("empty")), "true").outcome.success());
    assert!(!exists(at("empty")));

    fs::write(at("notes"), "mine").unwrap();
    mark(&at("notes"));
    assert!(sh(&Sandbox::new().root(root("notes")), "! echo evil > /tmp/ws/notes").outcome.success());
    assert_eq!(fs::read_to_string(at("notes")).unwrap(), "mine");

    fs::create_dir(at("directory")).unwrap();
    fs::write(at("directory/file"), "mine").unwrap();
    mark(&at("directory"));
    let script = "cd /tmp/ws/directory && ! echo evil > file && echo new > other";
    let output = sh(&Sandbox::new().root(root("directory/file")), script);
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    assert!(exists(at("directory/other")));
}
