//! Landlock in place of a root, in a container that denies mounts and namespaces: the program still sees no more than
//! the root would have shown.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use stockade::outcome::GapKind;
use stockade::{Command, ErrorKind, Landlock, Layer, Namespaces, Root, Sandbox, profile};

use crate::support::filter::filter_calls;
use crate::support::{on_host, refused, shared_dir, text, unless_landlock_since};

payloads![
    ("fall_back", fall_back),
    ("fall_back_and_hide", fall_back_and_hide),
    ("fall_back_without_landlock", fall_back_without_landlock),
    ("fall_back_with_a_policy", fall_back_with_a_policy),
    ("fall_back_elsewhere", fall_back_elsewhere),
    ("fall_back_while_links_change", fall_back_while_links_change),
];

fn unless_truncation_is_restricted() -> Option<String> {
    unless_landlock_since((6, 2))
}

/// From here on this process may neither mount nor create namespaces.
fn deny_mounts() {
    let denied = [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_fsopen,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
    ];
    filter_calls(libc::EPERM, denied);
}

/// What a shell script in the sandbox can do: the numbers that it prints.
fn done(sandbox: &Sandbox, script: &str) -> Vec<u32> {
    let output = sandbox.output(Command::new("sh").args(["-c", script])).unwrap();
    text(&output.stdout).split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A directory that every user can write to.
fn open_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
}

fn in_workspace(sandbox: Sandbox, workspace: &Path) -> Sandbox {
    sandbox.map_root(|root| root.bind_rw(workspace, workspace)).best_effort([Layer::Namespaces]).landlock_fallback()
}

/// In a directory of the host: a workspace, and a secret beside it.
fn fall_back(args: &[String]) -> i32 {
    let (workspace, secret) = (PathBuf::from(&args[0]).join("workspace"), PathBuf::from(&args[0]).join("secret"));
    let (at, beside) = (workspace.display(), secret.display());
    let script = format!(
        "echo written >{at}/file && echo 1; mkdir {at}/dir && echo 2; read _ <{at}/file && echo 3
        read _ <{beside} && echo 10; ls {} && echo 11; echo changed >{beside} && echo 12
        echo >{}/open/file && echo 13; read _ </proc/1/environ && echo 14
        ls / && echo 15; echo >>/etc/hosts && echo 16",
        args[0], args[0]
    );
    deny_mounts();
    let open = Sandbox::new().best_effort([Layer::Namespaces, Layer::Root]);
    let mut seen = done(&open, &script);
    // The secret may belong to the user.
    seen.retain(|&number| number != 12);
    assert_eq!(seen, [1, 2, 3, 10, 11, 13, 15], "without a root all of it works, or the test proves nothing");
    fs::remove_dir(workspace.join("dir")).unwrap();
    fs::remove_file(workspace.join("file")).unwrap();
    for sandbox in
        [profile::agent(), profile::build_step(), Sandbox::new()].map(|sandbox| in_workspace(sandbox, &workspace))
    {
        let best_effort = sandbox.clone().best_effort([Layer::Root]);
        assert_eq!(done(&best_effort, &script), [1, 2, 3]);
        fs::remove_dir(workspace.join("dir")).unwrap();
        let outcome = sandbox.status(Command::new("true")).unwrap();
        let enforcement = outcome.enforcement;
        assert!(enforcement.is_active(Layer::Landlock) && !enforcement.is_active(Layer::Root), "{enforcement:?}");
        assert!(enforcement.unenforced.iter().any(|missing| missing.layer == Layer::Root), "{enforcement:?}");
        // A requested policy stays in force.
        let stricter = sandbox.landlock(Landlock::new().read_only("/").any_tcp().any_signal().any_abstract_socket());
        assert_eq!(done(&stricter, &script), [3]);
        fs::remove_file(workspace.join("file")).unwrap();
    }
    0
}

#[apply(test)]
#[skip(unless_truncation_is_restricted)]
fn the_program_sees_no_more_than_its_workspace() {
    let place = shared_dir();
    for name in ["workspace", "open"] {
        let directory = place.path().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    }
    fs::write(place.path().join("secret"), "secret\n").unwrap();
    on_host(&[], "fall_back", &[place.path().to_str().unwrap()]);
}

/// A directory that is masked in a tree that is shown.
fn fall_back_and_hide(args: &[String]) -> i32 {
    let tree = PathBuf::from(&args[0]);
    let root = Root::empty().bind("/usr", "/usr").bind(&tree, &tree).mask(tree.join("a/hidden")).mask("/usr/src");
    let root = root.bind_rw(tree.join("w"), tree.join("w")).bind_rw(tree.join("w/r"), tree.join("w/r"));
    let root = root.read_only(tree.join("w")).file(tree.join("covered"), "other contents");
    let root = ["/bin", "/lib", "/lib64"].into_iter().fold(root, |root, path| root.symlink(format!("usr{path}"), path));
    let sandbox = Sandbox::new().root(root).best_effort([Layer::Namespaces]).landlock_fallback();
    let at = tree.display();
    let script = format!(
        "read _ <{at}/a/shown && echo 1; read _ <{at}/b && echo 2
        read _ <{at}/a/hidden/file && echo 10; read _ <{at}/a/link/file && echo 11; ls /usr/src && echo 12
        echo >{at}/w/new && echo 13; echo >{at}/w/r/new && echo 14; read _ <{at}/covered && echo 15"
    );
    deny_mounts();
    assert_eq!(done(&sandbox, &script), [1, 2]);
    0
}

#[apply(test)]
#[skip(unless_truncation_is_restricted)]
fn what_is_masked_is_hidden() {
    let place = shared_dir();
    let at = |path: &str| place.path().join(path);
    fs::create_dir_all(at("a/hidden")).unwrap();
    symlink(at("a/hidden"), at("a/link")).unwrap();
    fs::create_dir_all(at("w/r")).unwrap();
    for path in ["w", "w/r"] {
        fs::set_permissions(at(path), Permissions::from_mode(0o777)).unwrap();
    }
    for path in ["a/shown", "a/hidden/file", "b", "covered"] {
        fs::write(at(path), "contents\n").unwrap();
    }
    on_host(&[], "fall_back_and_hide", &[place.path().to_str().unwrap()]);
}

/// What no rule can express is an error on every host, not only where it is needed.
#[apply(test)]
fn what_rules_cannot_express_is_an_error() {
    let place = shared_dir();
    fs::create_dir(place.path().join("inside")).unwrap();
    fs::write(place.path().join("file"), "of the host").unwrap();
    let (inside, beside) = (place.path().join("inside"), shared_dir());
    symlink(&inside, place.path().join("link")).unwrap();
    symlink(&inside, beside.path().join("link")).unwrap();
    let workspace = || Root::host().bind_rw(place.path(), place.path());
    let roots = [
        workspace().protect(&inside),
        workspace().read_only(&inside),
        workspace().mask(&inside),
        workspace().bind(&inside, &inside),
        workspace().protect(place.path().join("link")),
        workspace().protect(beside.path().join("link/new")),
        workspace().file(place.path().join("file"), "covers that of the host"),
        Root::host().git_workspace(place.path(), place.path()),
        Root::from_dir(place.path()),
    ];
    for root in roots {
        let error = Sandbox::new().root(root).landlock_fallback().status(Command::new("true")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        assert!(error.to_string().contains("Landlock cannot "), "{error}");
    }
}

fn unless_scopes() -> Option<String> {
    unless_landlock_since((6, 12))
}

/// A secret of the host, on kernels without Landlock, and with one that does not restrict truncation.
fn fall_back_without_landlock(args: &[String]) -> i32 {
    let secret = PathBuf::from(&args[0]).join("secret");
    let script = format!("read _ <{} && echo 1", secret.display());
    deny_mounts();
    let policy = Landlock::new().read_only("/").any_tcp().any_signal().any_abstract_socket();
    for kernel in [(5, 12), (5, 15), (6, 1)] {
        let old = Sandbox::new().as_on_kernel(kernel.0, kernel.1).landlock_fallback();
        let old = old.best_effort([Layer::Namespaces, Layer::Landlock]);
        for sandbox in [old.clone(), old.clone().landlock(policy.clone())] {
            let open = sandbox.clone().best_effort([Layer::Root]);
            if kernel == (5, 12) {
                assert_eq!(done(&open, &script), [1], "without a root the secret is read, or the test proves nothing");
            }
            let enforcement = open.status(Command::new("true")).unwrap().enforcement;
            for layer in [Layer::Root, Layer::Landlock] {
                assert!(enforcement.unenforced.iter().any(|missing| missing.layer == layer), "{enforcement:?}");
            }
            let error = refused(&sandbox);
            assert_eq!((error.kind(), error.layer()), (ErrorKind::Unsupported, Some(Layer::Landlock)), "{error}");
        }
    }
    0
}

#[apply(test)]
fn rules_in_place_of_a_root_are_never_best_effort() {
    let place = shared_dir();
    fs::write(place.path().join("secret"), "secret\n").unwrap();
    on_host(&[], "fall_back_without_landlock", &[place.path().to_str().unwrap()]);
}

/// A policy in addition to the rules in place of the root: in a workspace a program has replaced a directory of the
/// policy by a link to one beside the workspace.
fn fall_back_with_a_policy(args: &[String]) -> i32 {
    let place = PathBuf::from(&args[0]);
    let (at, workspace) = (place.display(), place.join("workspace"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port();
    deny_mounts();
    let policy = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/dev"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .fold(Landlock::new(), |policy, path| policy.read_only(path));
    let policy = policy.read_write("/dev/null").read_write(workspace.join("out")).read_write(workspace.join("kept"));
    let script = format!(
        "echo >{at}/workspace/kept/file && echo 1; echo >{at}/workspace/file && echo 10
        echo >{at}/beside/file && echo 11; echo >{at}/workspace/out/file && echo 12
        read _ <{at}/workspace/kept/denied && echo 13; kill -0 {} && echo 14
        bash -c ': <>/dev/tcp/127.0.0.1/{number}' && echo 15",
        std::process::id()
    );
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    let bare = bare.identity(stockade::Identity::caller());
    let mut seen = done(&bare.clone().landlock(Landlock::new().any_path().any_tcp().any_signal()), &script);
    // There may be no bash.
    seen.retain(|&number| number != 15);
    assert_eq!(seen, [1, 10, 11, 12, 13, 14], "without the rules all of it works, or the test proves nothing");
    fs::remove_file(workspace.join("kept/file")).unwrap();
    assert_eq!(done(&bare.landlock(policy.clone()), &script), [1, 11, 12, 13], "a policy alone follows the link");
    fs::remove_file(workspace.join("kept/file")).unwrap();
    let sandbox = in_workspace(Sandbox::new(), &workspace);
    let sandbox = sandbox.landlock(policy.read_only("/no/such/path").deny(workspace.join("kept/denied")));
    // What is denied inside a writable bind cannot be expressed.
    assert_eq!(refused(&sandbox).kind(), ErrorKind::InvalidConfiguration);
    let sandbox = sandbox.root(Root::host().bind_rw(workspace.join("kept"), workspace.join("kept")));
    assert_eq!(refused(&sandbox).kind(), ErrorKind::InvalidConfiguration);
    let read_only = Root::host().bind(&workspace, &workspace);
    let seen = done(&sandbox.clone().root(read_only), &script);
    assert!(seen.is_empty(), "what the policy denies is hidden: {seen:?}");
    let sandbox = in_workspace(Sandbox::new(), &workspace);
    let policy = [&workspace.join("out"), &workspace.join("kept"), &"/no/such/path".into()]
        .into_iter()
        .fold(Landlock::new().read_only("/"), |policy, path| policy.read_write(path));
    assert_eq!(done(&sandbox.landlock(policy), &script), [1, 13]);
    // Without a policy signals are denied too.
    let plain = in_workspace(Sandbox::new(), &workspace);
    let numbers = done(&plain, &script);
    assert!(!numbers.contains(&14), "{numbers:?}");
    let gaps = plain.status(Command::new("true")).unwrap().enforcement.gaps;
    assert!(gaps.iter().all(|gap| gap.kind != GapKind::Signals), "{gaps:?}");
    0
}

#[apply(test)]
#[skip(unless_scopes)]
fn a_policy_is_in_force_beside_the_rules_in_place_of_a_root() {
    let place = shared_dir();
    for name in ["workspace", "workspace/kept", "beside"] {
        open_directory(&place.path().join(name));
    }
    fs::write(place.path().join("workspace/kept/denied"), "secret\n").unwrap();
    symlink(place.path().join("beside"), place.path().join("workspace/out")).unwrap();
    on_host(&[], "fall_back_with_a_policy", &[place.path().to_str().unwrap()]);
}

/// Operations in binds to another path: at `tree` are sources, which are bound below `/elsewhere`.
fn fall_back_elsewhere(args: &[String]) -> i32 {
    let tree = PathBuf::from(&args[0]);
    let (at, source) = (tree.display(), tree.join("source"));
    let script = format!(
        "read _ <{at}/source/shown && echo 1; read _ <{at}/source/secret && echo 2
        read _ <{at}/source/dir/file && echo 3; echo >{at}/source/dir/new && echo 4"
    );
    deny_mounts();
    let read = |change: &dyn Fn(Root) -> Root| {
        let sandbox = Sandbox::new().root(change(Root::host().bind(&source, "/elsewhere/d")));
        let sandbox = sandbox.best_effort([Layer::Namespaces]).landlock_fallback();
        sandbox.status(Command::new("true")).map(|_| done(&sandbox, &script))
    };
    assert_eq!(read(&|root| root).unwrap(), [1, 2, 3]);
    let hide = |path: &'static str| {
        [
            read(&move |root| root.mask(path)),
            read(&move |root| root.tmpfs(path, 1 << 20)),
            read(&move |root| root.bind("/usr/share", path)),
            read(&move |root| root.overlay("/usr/share", path)),
            read(&move |root| root.proc(path)),
            read(&move |root| root.dev(path)),
        ]
        .map(Result::unwrap)
    };
    for numbers in hide("/elsewhere/d/dir") {
        assert_eq!(numbers, [1, 2]);
    }
    for numbers in hide("/elsewhere/d").into_iter().chain(hide("/elsewhere")) {
        assert!(numbers.is_empty(), "all of it is covered: {numbers:?}");
    }
    let secret = "/elsewhere/d/secret";
    assert_eq!(read(&|root| root.mask(secret)).unwrap(), [1, 3]);
    assert_eq!(read(&|root| root.file(secret, "covers it")).unwrap(), [1, 3]);
    assert_eq!(read(&|root| root.bind("/etc/hostname", secret)).unwrap(), [1, 3]);
    assert_eq!(read(&|root| root.bind(source.join("secret"), secret)).unwrap(), [1, 2, 3], "it is shown again");
    // Directories that are written to, below one that is made read-only.
    let write = |change: &dyn Fn(Root) -> Root| {
        let root = change(Root::host().bind_rw(source.join("dir"), "/elsewhere/d"));
        done(&Sandbox::new().root(root).best_effort([Layer::Namespaces]).landlock_fallback(), &script)
    };
    assert_eq!(write(&|root| root), [3, 4]);
    assert_eq!(write(&|root| root.read_only("/elsewhere/d")), [3]);
    assert_eq!(write(&|root| root.read_only("/elsewhere")), [3]);
    assert_eq!(write(&|root| root.bind(source.join("dir"), "/elsewhere")), [3]);
    0
}

#[apply(test)]
#[skip(unless_truncation_is_restricted)]
fn operations_in_a_bind_to_another_path_apply_to_its_source() {
    let place = shared_dir();
    let at = |path: &str| place.path().join("source").join(path);
    open_directory(&at("dir"));
    for path in ["shown", "secret", "dir/file"] {
        fs::write(at(path), "contents\n").unwrap();
    }
    on_host(&[], "fall_back_elsewhere", &[place.path().to_str().unwrap()]);
}

/// What no rule can express is an error also where the bind is to another path.
#[apply(test)]
fn what_rules_cannot_express_in_a_bind_to_another_path_is_an_error() {
    let place = shared_dir();
    let inside = place.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(place.path().join("file"), "of the host").unwrap();
    symlink("inside", place.path().join("link")).unwrap();
    let empty = || Root::empty().bind("/usr", "/usr").bind_rw(place.path(), "/work");
    let host = || Root::host().bind_rw(place.path(), "/run/work");
    let roots = [
        empty().protect("/work/inside"),
        empty().protect("/work/new"),
        empty().read_only("/work/inside"),
        empty().mask("/work/inside"),
        empty().bind("/usr/share", "/work/inside"),
        empty().bind(&inside, "/work/inside"),
        empty().bind_rw("/usr/share", "/work/inside"),
        empty().file("/work/file", "covers that of the host"),
        empty().tmpfs("/work/inside", 1 << 20),
        empty().overlay("/usr/share", "/work/inside"),
        empty().proc("/work/inside"),
        empty().dev("/work/inside"),
        // Through symlinks: in the source, of the root, and of the host.
        empty().mask("/work/link/file"),
        empty().symlink("work", "/also").mask("/also/inside"),
        host().mask("/run/work/inside"),
    ];
    let by_link = Path::new("/var/run").is_symlink().then(|| host().mask("/var/run/work/inside"));
    for root in roots.into_iter().chain(by_link) {
        let error = Sandbox::new().root(root.clone()).landlock_fallback().status(Command::new("true"));
        let error = error.expect_err(&format!("{root:?}"));
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        assert!(error.to_string().contains("Landlock cannot "), "{error}");
    }
    for plain in [empty(), host(), empty().bind_rw(&inside, "/work/inside")] {
        // The host may have no idmapped mounts.
        if let Err(error) = Sandbox::new().root(plain).landlock_fallback().plan(Command::new("true")) {
            assert!(!error.to_string().contains("Landlock cannot "), "{error}");
        }
    }
    let inherited = Sandbox::new().root(Root::inherit()).landlock_fallback();
    assert_eq!(refused(&inherited).kind(), ErrorKind::InvalidConfiguration);
}

/// A plan whose source is replaced by a link before it is spawned.
fn fall_back_while_links_change(args: &[String]) -> i32 {
    let place = PathBuf::from(&args[0]);
    let (source, secret) = (place.join("source"), place.join("secret"));
    deny_mounts();
    let sandbox = in_workspace(Sandbox::new(), &source);
    assert!(sandbox.status(Command::new("true")).unwrap().success());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let script = format!("read _ <{}/file && echo 1; read _ <{}/file && echo 2", secret.display(), source.display());
    std::thread::scope(|scope| {
        // Another program of the workspace's owner exchanges it and a link.
        scope.spawn(|| {
            while !is_over() {
                fs::rename(&source, place.join("away")).unwrap();
                symlink(&secret, &source).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(300));
                fs::remove_file(&source).unwrap();
                fs::rename(place.join("away"), &source).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut refused = 0;
        while std::time::Instant::now() < deadline && refused < 5 {
            match sandbox.output(Command::new("sh").args(["-c", &script])) {
                Ok(output) => assert!(!output.stdout.contains(&b'1'), "{}", text(&output.stdout)),
                // Not where the source is resolved, but where its rule is added.
                Err(error) => refused += u32::from(error.to_string().contains("add a Landlock rule")),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(refused > 0, "no spawn met a link");
    });
    0
}

#[apply(test)]
#[skip(unless_truncation_is_restricted)]
fn a_source_that_becomes_a_link_gives_nothing() {
    let place = shared_dir();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    for name in ["source", "secret"] {
        open_directory(&place.path().join(name));
        fs::write(place.path().join(name).join("file"), "contents\n").unwrap();
    }
    on_host(&[], "fall_back_while_links_change", &[place.path().to_str().unwrap()]);
}
