//! Files of a workspace that the host executes later, which a program replaces or creates.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command as Host, Stdio as HostStdio};

use stockade::mount::Bind;
use stockade::{Command, Root, Sandbox, Stdio};
use tempfile::TempDir;

use crate::attacks::common::{Bystander, host_output, line};
use crate::support::{exists, kernel, own_path, payload_on_host, sh, shared_dir, stdout, text, unless_idmapped_mounts};
use stockade::ErrorKind;

payloads![("protect_and_wait", protect_and_wait), ("plant_a_hook", plant_a_hook)];

pub(super) fn unless_protected() -> Option<String> {
    unless_idmapped_mounts().or_else(|| (kernel() < (5, 12)).then(|| "it takes mount_setattr of Linux 5.12".into()))
}

pub(super) fn unless_git() -> Option<String> {
    let has_git = Path::new("/usr/bin/git").exists();
    unless_protected().or_else(|| (!has_git).then(|| "git is not installed".into()))
}

/// A workspace with a hook and settings.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        let dir = shared_dir();
        fs::create_dir_all(dir.path().join(".git/hooks")).unwrap();
        fs::write(dir.path().join(".git/hooks/pre-commit"), "good\n").unwrap();
        fs::write(dir.path().join(".git/config"), "good\n").unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn root(&self) -> Root {
        Root::host().bind_rw(self.0.path(), "/tmp/ws")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[track_caller]
    fn assert_good(&self, by: &str) {
        for name in [".git/hooks/pre-commit", ".git/config"] {
            assert_eq!(fs::read_to_string(self.at(name)).unwrap(), "good\n", "{name} after {by}");
        }
        assert_eq!(fs::read_dir(self.at(".git/hooks")).unwrap().count(), 1, "{by}");
    }
}

/// Attempts to plant a hook, each to be tried alone.
const REPLACEMENTS: [&str; 12] = [
    "mv .git x && cp -r x .git && echo evil > .git/hooks/pre-commit",
    "rm -rf .git; mkdir -p .git/hooks && echo evil > .git/hooks/pre-commit",
    "mv .git/hooks .git/x && mkdir .git/hooks && echo evil > .git/hooks/pre-commit",
    "echo evil > .git/hooks/pre-commit",
    "echo evil > .git/hooks/post-commit",
    "rm .git/hooks/pre-commit",
    "chmod 777 .git/hooks",
    "echo evil > .git/config",
    "echo evil > .git/new && mv .git/new .git/config",
    "ln .git/config .git/x && echo evil > .git/x",
    "mkdir y && mv -T y .git",
    "python3 -c 'import os; os.rmdir(\".git/hooks\")'",
];

/// Attack 49: A read-only path in a writable bind is evaded by a directory above it.
#[apply(test)]
#[skip(unless_protected)]
fn protected_paths_cannot_be_changed_or_replaced() {
    let workspace = Workspace::new();
    let evaded = workspace.root().read_only("/tmp/ws/.git/hooks");
    stdout(&Sandbox::new().root(evaded), &format!("cd /tmp/ws; {}", REPLACEMENTS[0]));
    let planted = fs::read_to_string(workspace.at(".git/hooks/pre-commit")).unwrap();
    assert_eq!(planted, "evil\n", "the attack must work here");

    let workspace = Workspace::new();
    let root = workspace.root().protect("/tmp/ws/.git/hooks").protect("/tmp/ws/.git/config");
    let sandbox = Sandbox::new().root(root);
    for script in REPLACEMENTS {
        let output = sh(&sandbox, &format!("cd /tmp/ws; ({script})"));
        assert!(!output.outcome.success(), "{script}");
        workspace.assert_good(script);
        let _ = fs::remove_dir(workspace.at("y"));
    }
    // The rest is written as before.
    stdout(&sandbox, "cd /tmp/ws; echo new > .git/HEAD; mkdir -p a/b; mv a c; rm -r c; echo new > file");
    assert_eq!(fs::read_to_string(workspace.at("file")).unwrap(), "new\n");
    assert_eq!(workspace.names(), [".git", "file"]);
}

#[apply(test)]
#[skip(unless_protected)]
fn missing_protected_paths_cannot_be_created() {
    let workspace = Workspace::new();
    let planted =
        "cd /tmp/ws; mkdir -p deep/er; echo evil > deep/er/x; echo evil > .envrc; mkdir hooks; echo evil > hooks/x";
    stdout(&Sandbox::new().root(workspace.root()), planted);
    assert!(exists(workspace.at(".envrc")), "the attack must work here");

    let workspace = Workspace::new();
    let root = workspace.root().protect("/tmp/ws/.envrc").protect("/tmp/ws/hooks/").protect("/tmp/ws/deep/er/x");
    let sandbox = Sandbox::new().root(root);
    for script in planted.split(';').skip(1).chain([
        "mv .envrc x",
        "rm .envrc",
        "rmdir hooks",
        "mv hooks x",
        "mv deep x",
        "ln -sfn x .envrc",
        "touch hooks/x",
        "chmod 777 hooks",
    ]) {
        let output = sh(&sandbox, &format!("cd /tmp/ws; {script}"));
        assert!(!output.outcome.success() || script.contains("mkdir -p deep/er"), "{script}");
        assert_eq!(workspace.names(), [".git"], "nothing stays after {script}");
    }
    assert_eq!(
        stdout(&sandbox, "cd /tmp/ws; cat .envrc; ls -A; ls -A deep hooks"),
        ".envrc\n.git\ndeep\nhooks\ndeep:\n\nhooks:"
    );
    // A sandbox that can't be made leaves none.
    let fails = sandbox.spawn(Command::new("/no/such/program"));
    assert!(fails.is_err() && workspace.names() == [".git"]);
    // Nor does a plan make one.
    assert!(sandbox.plan(Command::new("true")).is_ok() && workspace.names() == [".git"]);
}

#[apply(test)]
#[skip(unless_protected)]
fn placeholders_stay_while_any_sandbox_needs_them() {
    let workspace = Workspace::new();
    let sandbox = Sandbox::new().root(workspace.root().protect("/tmp/ws/.envrc").protect("/tmp/ws/hooks/"));
    let waits = || {
        let mut command = Command::new("sh");
        command.args(["-c", "read go; echo evil > /tmp/ws/.envrc; mv /tmp/ws/hooks /tmp/ws/x; echo done"]);
        sandbox.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null())).unwrap()
    };
    let mut all = [waits(), waits(), waits()];
    for child in &mut all {
        assert_eq!(workspace.names(), [".envrc", ".git", "hooks"]);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(line(child.stdout.as_mut().unwrap()), "done");
        let _ = child.wait().unwrap();
    }
    assert_eq!(workspace.names(), [".git"]);
}

/// Protects what does not exist in the directory that it is given, and waits.
fn protect_and_wait(args: &[String]) -> i32 {
    let root = Root::host().bind_rw(&args[0], "/tmp/ws").protect("/tmp/ws/.envrc").protect("/tmp/ws/hooks/");
    let mut child = Sandbox::new().root(root).spawn(Command::new("sleep").arg("100")).expect("a sandbox");
    println!("ready");
    let _ = child.wait().expect("an outcome");
    0
}

#[apply(test)]
#[skip(unless_protected)]
fn placeholders_of_a_killed_caller_are_removed_by_the_next() {
    let workspace = Workspace::new();
    let mut caller = Bystander::start(
        Host::new(own_path()).args(["--payload", "protect_and_wait"]).arg(workspace.0.path()).stderr(HostStdio::null()),
    );
    assert_eq!(caller.line(), "ready");
    drop(caller);
    assert_eq!(workspace.names(), [".envrc", ".git", "hooks"], "nobody removes them");
    let sandbox = Sandbox::new().root(workspace.root().protect("/tmp/ws/.envrc").protect("/tmp/ws/hooks/"));
    assert!(!sh(&sandbox, "echo evil > /tmp/ws/.envrc || touch /tmp/ws/hooks/x").outcome.success());
    assert_eq!(workspace.names(), [".git"]);
}

#[apply(test)]
#[skip(unless_protected)]
fn a_placeholder_of_another_sandbox_is_no_directory() {
    let workspace = Workspace::new();
    let sandbox = Sandbox::new().root(workspace.root().protect("/tmp/ws/a/b/c"));
    let mut command = Command::new("sh");
    command.args(["-c", "read go"]).stdin(Stdio::piped());
    let mut child = sandbox.spawn(&command).unwrap();
    for _ in 0..3 {
        let output =
            sh(&sandbox, "touch /tmp/ws/a/x || mkdir /tmp/ws/a/b || rmdir /tmp/ws/a || mv /tmp/ws/a /tmp/ws/x");
        assert!(!output.outcome.success());
        assert_eq!(fs::read_dir(workspace.at("a")).unwrap().count(), 0);
    }
    drop(child.stdin.take());
    let _ = child.wait().unwrap();
    drop(child);
    assert_eq!(workspace.names(), [".git"]);
}

#[apply(test)]
#[skip(unless_protected)]
fn placeholders_that_were_written_to_stay() {
    let workspace = Workspace::new();
    fs::write(workspace.at("empty"), "").unwrap();
    fs::create_dir(workspace.at("directory")).unwrap();
    let root = ["new", "made/", "empty", "directory"]
        .iter()
        .fold(workspace.root(), |root, name| root.protect(format!("/tmp/ws/{name}")));
    let mut command = Command::new("sh");
    command.args(["-c", "read go"]).stdin(Stdio::piped());
    let mut child = Sandbox::new().root(root).spawn(&command).unwrap();
    fs::write(workspace.at("new"), "the host's\n").unwrap();
    fs::write(workspace.at("made/file"), "the host's\n").unwrap();
    drop(child.stdin.take());
    let _ = child.wait().unwrap();
    drop(child);
    assert_eq!(workspace.names(), [".git", "directory", "empty", "made", "new"]);
    assert_eq!(fs::read_to_string(workspace.at("new")).unwrap(), "the host's\n");
}

#[apply(test)]
#[skip(unless_protected)]
fn symlinks_cannot_be_protected() {
    let workspace = Workspace::new();
    symlink(".git", workspace.at("link")).unwrap();
    symlink("config", workspace.at(".git/linked")).unwrap();
    for path in ["/tmp/ws/link/hooks", "/tmp/ws/link", "/tmp/ws/.git/linked"] {
        let error = Sandbox::new().root(workspace.root().protect(path)).status(Command::new("true")).unwrap_err();
        assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ELOOP), "{error}");
        assert!(error.hint().is_some_and(|remedy| remedy.contains("protect what it leads to")), "{error}");
    }
    for path in ["/tmp/ws", "/etc/passwd", "/tmp/ws/../x", "/tmp/wsx/y"] {
        let error = Sandbox::new().root(workspace.root().protect(path)).status(Command::new("true")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{path}: {error}");
    }
}

#[apply(test)]
#[skip(unless_protected)]
fn the_error_of_a_protected_path_that_is_covered_names_what_covers_it() {
    let workspace = Workspace::new();
    for root in [
        workspace.root().tmpfs("/tmp/ws/.git", 1 << 20).protect("/tmp/ws/.git/hooks"),
        workspace.root().protect("/tmp/ws/.git/hooks").mask("/tmp/ws/.git/hooks"),
    ] {
        let error = Sandbox::new().root(root).status(Command::new("true")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        let (said, remedy) = (error.to_string(), error.hint().unwrap_or_default());
        assert!(said.contains("what is mounted at /tmp/ws/.git") && remedy.contains("add the bind after"), "{said}");
    }
    // What git executes there is out of reach, and needs no protection.
    let root = Root::host().with(Bind::new(workspace.at(""), "/tmp/ws").writable().protect_git());
    let output = sh(&Sandbox::new().root(root.tmpfs("/tmp/ws/.git", 1 << 20)), "echo x > /tmp/ws/.git/config");
    assert!(output.outcome.success(), "{output:?}");
    assert_ne!(fs::read_to_string(workspace.at(".git/config")).unwrap(), "x\n");
}

/// git(1), in a directory of the host's or of a sandbox.
pub(super) fn git(directory: &Path, args: &[&str]) -> (bool, String) {
    let mut git = Host::new("git");
    git.args([
        "-c",
        "safe.directory=*",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "protocol.file.allow=always",
    ]);
    let output = git.arg("-C").arg(directory).args(args).env("HOME", "/nowhere").output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[track_caller]
pub(super) fn git_ok(directory: &Path, args: &[&str]) -> String {
    let (success, said) = git(directory, args);
    assert!(success, "git {args:?}: {said}");
    said
}

/// A repository with a submodule, a linked worktree, and hooks in the worktree.
pub(super) struct Repository {
    pub(super) dir: TempDir,
}

const COMMIT: &str = "cd /tmp/ws && git config --global safe.directory '*' && git config --global user.name a && git \
                      config --global user.email a@b && echo more >> file && git add file && git commit -qm more && \
                      git checkout -qb other && git status --short";

impl Repository {
    pub(super) fn new() -> Self {
        let dir = shared_dir();
        let (repository, other) = (dir.path().join("ws"), dir.path().join("other"));
        for path in [&repository, &other] {
            fs::create_dir(path).unwrap();
            git_ok(path, &["init", "-q"]);
            fs::write(path.join("file"), "file\n").unwrap();
            git_ok(path, &["add", "."]);
            git_ok(path, &["commit", "-qm", "first"]);
        }
        git_ok(&repository, &["submodule", "add", "-q", other.to_str().unwrap(), "sub"]);
        git_ok(&repository, &["commit", "-qm", "submodule"]);
        git_ok(&repository, &["worktree", "add", "-q", dir.path().join("linked").to_str().unwrap()]);
        git_ok(&repository, &["worktree", "add", "-q", "within"]);
        fs::write(repository.join(".git/info/exclude"), "within\n").unwrap();
        git_ok(&repository, &["config", "core.hooksPath", ".hooks"]);
        Self { dir }
    }

    fn copy(&self) -> Self {
        let dir = shared_dir();
        assert!(Host::new("cp").arg("-a").args([self.path(), dir.path().join("ws")]).status().unwrap().success());
        Self { dir }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("ws")
    }

    fn sandbox(&self) -> Sandbox {
        Sandbox::new().root(Root::host().git_workspace(self.path(), "/tmp/ws").tmpfs("/tmp/home", 1 << 20))
    }

    fn run(&self, sandbox: &Sandbox, script: &str) -> stockade::Output {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("HOME", "/tmp/home");
        sandbox.output(&command).unwrap()
    }
}

/// Ways to have the host's git execute `touch $OUT`.
const PLANTS: [&str; 10] = [
    "git config core.fsmonitor /tmp/ws/evil",
    "printf '[core]\\nfsmonitor = %s\\n' evil >> .git/config",
    "mkdir -p .hooks && cp evil .hooks/post-checkout",
    "cp evil .git/hooks/post-checkout",
    "cp -r .git new && printf '[core]\\nfsmonitor = evil\\n' >> new/config && rm -rf .git && mv new .git",
    "cp -r .git new && printf '[core]\\nfsmonitor = evil\\n' >> new/config && echo ../new > .git/commondir",
    "printf '[core]\\nfsmonitor = evil\\n' > .git/config.worktree",
    "printf '[core]\\nfsmonitor = evil\\n' >> .git/modules/sub/config",
    "rm sub/.git && cp -r .git/modules/sub sub/.git && printf '[core]\\nfsmonitor = evil\\n' > sub/.git/config",
    "cp -r .git new && printf '[core]\\nfsmonitor = evil\\n' >> new/config && echo /tmp/ws/new > \
     .git/worktrees/linked/commondir",
];

#[apply(test)]
#[skip(unless_git)]
fn git_hooks_and_settings_cannot_be_planted() {
    let template = Repository::new();
    for script in PLANTS {
        let repository = template.copy();
        let unprotected = Sandbox::new().root(Root::host().bind_rw(repository.path(), "/tmp/ws"));
        let script = format!("cd /tmp/ws && echo evil > evil && chmod +x evil && {{ {script}; }}");
        let output = repository.run(&unprotected, &script);
        assert!(output.outcome.success() || script.contains("git config"), "{script}: {}", text(&output.stderr));
        let repository = template.copy();
        let output = repository.run(&repository.sandbox(), &script);
        assert!(!output.outcome.success(), "{script}");
    }
    // Work goes on as before, and nothing stays.
    let repository = Repository::new();
    // A linked worktree knows its git directory by an absolute path, so that no copy of it is one.
    let evil = "cd /tmp/ws && echo 'gitdir: ../new' > within/.git";
    assert!(!repository.run(&repository.sandbox(), evil).outcome.success());
    let before = git_ok(&repository.path(), &["config", "--list", "--local"]);
    let output = repository.run(&repository.sandbox(), COMMIT);
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    for name in [".git/config.worktree", ".git/commondir", ".hooks"] {
        assert!(!exists(repository.path().join(name)), "{name}");
    }
    assert_eq!(git_ok(&repository.path(), &["config", "--list", "--local"]), before);
    assert_eq!(git_ok(&repository.path(), &["log", "--format=%s", "-1"]), "more");
    assert_eq!(git_ok(&repository.path(), &["status", "--short"]), "");
    // In a linked worktree whose common directory is bound beside it.
    let (linked, common) = (repository.dir.path().join("linked"), repository.path().join(".git"));
    let root = Root::host().git_workspace(&linked, &linked).git_workspace(&common, &common);
    let sandbox = Sandbox::new().root(root.tmpfs("/tmp/home", 1 << 20));
    let script = COMMIT.replace("/tmp/ws", linked.to_str().unwrap()).replace("other", "third");
    let output = repository.run(&sandbox, &script);
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    let evil = format!("cd {}; echo evil >> .git || git config a.b c || echo evil > {0}/hooks/x", common.display());
    assert!(!repository.run(&sandbox, &evil).outcome.success());
    // A directory that is none can't become one.
    let empty = shared_dir();
    let sandbox = Sandbox::new().root(Root::host().git_workspace(empty.path(), "/tmp/ws"));
    assert!(!sh(&sandbox, "cd /tmp/ws && git init").outcome.success());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[apply(test)]
#[skip(unless_git)]
fn hooks_are_protected_wherever_git_finds_their_place() {
    let template = Repository::new();
    for (file, settings) in [
        (".git/config", "[core] hooksPath = hk\n"),
        (".git/config", "[core]\n\thooksPath = hk ; those of the team\n"),
        (".git/config", "[core]\n\thooksPath = \"h\"k\n"),
        (".git/config", "[core]\n\thooksPath = h\\\nk\n"),
        (".git/config.worktree", "[core]\nhooksPath = hk\n"),
        (".one", "[include]\npath = .two\n"),
    ] {
        let repository = template.copy();
        let path = repository.path();
        fs::create_dir(path.join("hk")).unwrap();
        git_ok(&path, &["config", "--unset", "core.hooksPath"]);
        git_ok(&path, &["config", "extensions.worktreeConfig", "true"]);
        if file == ".one" {
            git_ok(&path, &["config", "include.path", "../.one"]);
            fs::write(path.join(".two"), "[core]\nhooksPath = hk\n").unwrap();
        }
        let before = fs::read_to_string(path.join(file)).unwrap_or_default();
        fs::write(path.join(file), before + settings).unwrap();
        assert_eq!(git_ok(&path, &["config", "core.hooksPath"]).trim(), "hk", "git reads {settings:?} so");
        let output = repository.run(&repository.sandbox(), "cd /tmp/ws && echo evil > hk/post-checkout");
        assert!(!output.outcome.success(), "{file}: {settings:?}");
    }
}

/// A caller whose home has a configuration of git, and whose sandbox plants a hook in a workspace. Tells what the
/// sandbox said; the workspace is looked at from outside.
fn plant_a_hook(args: &[String]) -> i32 {
    let [workspace, script] = args else { panic!("{args:?}") };
    let root = Root::host().git_workspace(workspace, "/tmp/ws");
    let output = sh(&Sandbox::new().root(root), &format!("cd /tmp/ws && {script}"));
    println!("{}", output.outcome.success());
    0
}

/// Attack 49: `core.hooksPath` of the caller's own configuration leads into each of its workspaces.
#[apply(test)]
#[skip(unless_git)]
fn hooks_that_the_callers_own_configuration_names_are_protected() {
    let template = Repository::new();
    let home = shared_dir();
    let plant = "mkdir -p hk; echo evil > hk/post-checkout";
    for (file, settings, script) in [
        (".gitconfig", "[core] hooksPath = hk\n", plant),
        (".config/git/config", "[core]\nhooksPath = hk\n", plant),
        (".gitconfig", "[include] path = ~/more\n", plant),
        (".gitconfig", "[includeIf \"gitdir:/nowhere/\"] path = more\n", plant),
        (".gitconfig", "[core] hooksPath = .\n", "echo evil > post-checkout"),
    ] {
        let repository = template.copy();
        git_ok(&repository.path(), &["config", "--unset", "core.hooksPath"]);
        for name in [".gitconfig", ".config/git/config", "more"] {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let planted = |expected: &str| {
            let workspace = repository.path();
            let args = [workspace.to_str().unwrap(), script];
            let mut caller = payload_on_host("plant_a_hook");
            caller.args(args).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").env_remove("GIT_CONFIG_GLOBAL");
            assert_eq!(host_output(&mut caller), expected, "{file}: {settings:?}");
            let hooks = ["hk/post-checkout", "post-checkout"].map(|hook| workspace.join(hook));
            hooks.iter().filter(|hook| exists(hook)).for_each(|hook| fs::remove_file(hook).unwrap());
        };
        planted("true");
        fs::write(home.path().join("more"), "[core]\nhooksPath = hk\n").unwrap();
        fs::write(home.path().join(file), settings).unwrap();
        planted("false");
    }
}

/// Attack 49: husky's hooks in `.husky/_` execute what has their name in `.husky`.
#[apply(test)]
#[skip(unless_git)]
fn what_hooks_execute_beside_them_is_protected() {
    let repository = Repository::new();
    let path = repository.path();
    git_ok(&path, &["config", "core.hooksPath", ".husky/_"]);
    fs::create_dir(path.join(".husky")).unwrap();
    fs::create_dir(path.join("sources")).unwrap();
    let plant = "cd /tmp/ws && echo evil > .husky/pre-commit";
    let unprotected = Sandbox::new().root(Root::host().bind_rw(&path, "/tmp/ws"));
    assert!(repository.run(&unprotected, plant).outcome.success(), "it can be planted without protection");
    fs::remove_file(path.join(".husky/pre-commit")).unwrap();
    assert!(!repository.run(&repository.sandbox(), plant).outcome.success());
    let output = repository.run(&repository.sandbox(), "echo work > /tmp/ws/sources/file");
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    // A path that is not hidden is protected alone.
    git_ok(&path, &["config", "core.hooksPath", "sources/hooks"]);
    let script = "cd /tmp/ws/sources && echo work > file && ! mkdir hooks/x";
    let output = repository.run(&repository.sandbox(), script);
    assert!(output.outcome.success(), "{}", text(&output.stderr));
}

/// Attack 49: git takes a directory with `HEAD`, `objects` and `refs` for a repository, with the settings in `config`.
#[apply(test)]
#[skip(unless_git)]
fn a_workspace_does_not_become_a_repository() {
    let script = "cd /tmp/ws && mkdir -p objects refs/heads && printf '[core]\nfsmonitor = evil\nbare = false\n' > \
                  config && echo 'ref: refs/heads/main' > HEAD";
    let is_repository = |directory: &TempDir| git(directory.path(), &["rev-parse", "--git-dir"]).0;
    let unprotected = shared_dir();
    let sandbox = |root: Root| Sandbox::new().root(root);
    assert!(sh(&sandbox(Root::host().bind_rw(unprotected.path(), "/tmp/ws")), script).outcome.success());
    assert!(is_repository(&unprotected), "the attack works on a directory that is not protected");
    let protected = shared_dir();
    let sandbox = sandbox(Root::host().git_workspace(protected.path(), "/tmp/ws"));
    assert!(!sh(&sandbox, script).outcome.success());
    assert!(!is_repository(&protected) && !exists(protected.path().join("HEAD")));
}

/// Attack 49: What is planted by a program that tries everything is not executed by the host's git.
#[apply(test)]
#[skip(unless_git)]
fn git_on_the_host_executes_nothing_planted() {
    let planted = |is_protected: bool| {
        let repository = Repository::new();
        let hit = repository.dir.path().join("hit");
        let evil = repository.path().join("evil");
        fs::write(&evil, format!("#!/bin/sh\ntouch {}\n", hit.display())).unwrap();
        fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
        let bind = Bind::new(repository.path(), "/tmp/ws").writable();
        let bind = if is_protected { bind.protect_git() } else { bind };
        let sandbox = Sandbox::new().root(Root::host().with(bind).tmpfs("/tmp/home", 1 << 20));
        let all =
            PLANTS.map(|script| format!("({script})\n")).concat().replace("= evil", &format!("= {}", evil.display()));
        let _ = repository.run(&sandbox, &format!("cd /tmp/ws\n{all}"));
        for directory in [repository.path(), repository.path().join("sub"), repository.dir.path().join("linked")] {
            for args in [&["status"][..], &["diff"], &["checkout", "-q", "-B", "new"], &["log"]] {
                git(&directory, args);
            }
        }
        assert_eq!(evil.metadata().unwrap().uid(), nix::unistd::geteuid().as_raw());
        exists(hit)
    };
    assert!(planted(false), "the attack must work here");
    assert!(!planted(true));
}
