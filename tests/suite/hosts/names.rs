//! Names: that of the host, those of the network, and those of users.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::process::Command as Host;
use std::thread;

use stockade::{Command, Identity, Namespaces, Root, Sandbox, profile};

use super::simulated::SimulatedHost;
use crate::support::{is_root, refused, shared_dir, stdout, text};

payloads![
    ("host_names", host_names),
    ("hosts_files", hosts_files),
    ("network_names", network_names),
    ("user_names", user_names),
];

/// The sandboxes whose root is the host's or a profile's, and that may start a shell.
fn sandboxes() -> [(&'static str, Sandbox); 4] {
    [
        ("default", Sandbox::new()),
        ("build_step", profile::build_step()),
        ("test", profile::test()),
        ("agent", profile::agent()),
    ]
}

/// Replaces `/etc` by a copy that the script may change.
fn with_etc(script: &str) -> SimulatedHost {
    let copy = "mkdir /mnt/etc; cp -a /etc/. /mnt/etc 2>/dev/null || :; mount --bind /mnt/etc /etc; cd /etc";
    SimulatedHost::after(&format!("{copy}; {script}"))
}

fn has(program: &str) -> bool {
    Host::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Finding H9.
#[apply(test)]
fn the_host_name_resolves_to_loopback() {
    for (name, sandbox) in sandboxes() {
        let resolved = |sandbox: &Sandbox, name: &str| stdout(sandbox, &format!("getent ahostsv4 {name} | head -1"));
        assert!(resolved(&sandbox, "sandbox").starts_with("127.0.0.1 "), "{name}");
        assert!(resolved(&sandbox, "localhost").starts_with("127.0.0.1 "), "{name}");
        let named = sandbox.hostname("builder.example");
        assert!(resolved(&named, "builder.example").starts_with("127.0.0.1 "), "{name}");
        if has("/usr/bin/python3") {
            let script = "import socket; print(socket.gethostbyname(socket.gethostname()))";
            let output = named.output(Command::new("/usr/bin/python3").args(["-c", script]));
            let output = output.expect("an output");
            assert_eq!(text(&output.stdout), "127.0.0.1", "{name}: {}", text(&output.stderr));
        }
    }
    let judged = profile::judge().output(Command::new("cat").arg("/etc/hosts")).expect("an output");
    assert_eq!(text(&judged.stdout), "127.0.0.1\tsandbox\n127.0.0.1\tlocalhost\n::1\tlocalhost");
}

/// Finding H9: what the caller puts at /etc/hosts stays, and no host name that is not the sandbox's own gets a line.
#[apply(test)]
fn the_callers_own_hosts_file_stays() {
    let of_caller = |root: Root| stdout(&Sandbox::new().root(root), "cat /etc/hosts");
    assert_eq!(of_caller(Root::host().file("/etc/hosts", "own\n")), "own");
    assert_eq!(of_caller(Root::host().tmpfs("/etc", 1 << 20).file("/etc/hosts", "own\n")), "own");
    let directory = shared_dir();
    fs::write(directory.path().join("hosts"), "bound\n").expect("a file");
    assert_eq!(of_caller(Root::host().bind(directory.path(), "/etc")), "bound");
    for sandbox in [Sandbox::new().map_namespaces(|all| all - Namespaces::UTS), Sandbox::new().hostname("a #b")] {
        let of_host = fs::read_to_string("/etc/hosts").expect("the host's file");
        assert_eq!(stdout(&sandbox, "cat /etc/hosts"), of_host.trim_end());
    }
    let judge = profile::judge().map_root(|root| root.symlink("/tmp/hosts", "/etc/hosts"));
    assert!(judge.status(Command::new("true")).expect("an outcome").success());
}

/// The program can't change what is mounted over the host's file, nor does the host's file change.
#[apply(test)]
fn the_hosts_file_is_read_only() {
    for (name, sandbox) in sandboxes() {
        for script in ["echo x >>/etc/hosts", "rm /etc/hosts", "chmod 666 /etc/hosts", "mv /etc/hosts /etc/x"] {
            let output = sandbox.output(Command::new("sh").args(["-c", script])).expect("an output");
            assert!(!output.outcome.success(), "{name}: {script}");
        }
    }
}

fn host_names(_: &[String]) -> i32 {
    for (name, sandbox) in sandboxes() {
        println!("{name}: {}", stdout(&sandbox, "getent ahostsv4 sandbox | head -1 | cut -d' ' -f1"));
    }
    0
}

fn hosts_files(_: &[String]) -> i32 {
    for (_, sandbox) in sandboxes() {
        println!("{}", stdout(&sandbox, "cat /etc/hosts"));
    }
    0
}

/// Root reads every file, and its programs are another user.
#[apply(test)]
#[only(Root)]
fn a_hosts_file_that_not_every_user_may_read_is_not_copied() {
    let said = |mode| with_etc(&format!("echo 127.0.0.1 secret >hosts; chmod {mode} hosts")).output("hosts_files");
    assert_eq!(said("644").matches("secret").count(), sandboxes().len(), "a readable one is copied");
    let said = said("640");
    assert!(!said.contains("secret") && said.contains("localhost"), "{said}");
}

/// Finding H9: whatever the host has at /etc/hosts.
#[apply(test)]
fn the_host_name_resolves_whatever_the_hosts_file_is() {
    let layouts = [
        "printf 127.0.0.1\\tlocalhost >hosts",
        ": >hosts",
        "chmod 0 hosts",
        "mkdir static; mv hosts static; ln -s static/hosts hosts",
        "mount -t tmpfs tmpfs /run; mv hosts /run; ln -s ../run/hosts hosts",
        "rm hosts; mkfifo hosts",
        "head -c 1M /dev/zero >hosts",
        "ln -sf /nowhere/hosts hosts",
        "rm hosts; ln -s hosts hosts",
    ];
    for layout in layouts {
        let said = with_etc(layout).output("host_names");
        assert_eq!(said.matches(": 127.0.0.1").count(), sandboxes().len(), "{layout}: {said}");
    }
    // Nothing is created on a file system of the host.
    for layout in ["rm hosts", "rm hosts; mkdir hosts"] {
        with_etc(layout).assert_works();
    }
}

/// Answers queries of A records with 192.0.2.7 (RFC 1035).
fn serve_names(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((len, client)) = socket.recv_from(&mut query) {
        let question = &query[12..len];
        let name_len = question.iter().position(|&byte| byte == 0).expect("a name");
        let is_a = question[name_len + 1..][..2] == [0, 1];
        let header = [&query[..2], &[0x81, 0x80, 0, 1, 0, is_a.into(), 0, 0, 0, 0]].concat();
        let answer: &[u8] = if is_a { &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7] } else { &[] };
        let response = [&header, &question[..name_len + 5], answer].concat();
        socket.send_to(&response, client).expect("a response");
    }
}

fn network_names(_: &[String]) -> i32 {
    let socket = UdpSocket::bind("127.0.0.53:53").expect("the port of name servers");
    thread::spawn(move || serve_names(&socket));
    for (name, sandbox) in sandboxes() {
        let sandbox = sandbox.map_namespaces(|all| all - Namespaces::NET);
        println!("{name}: {}", stdout(&sandbox, "getent ahostsv4 name.example | head -1 | cut -d' ' -f1"));
    }
    0
}

/// Finding H11.
#[apply(test)]
#[skip(unless_ip)]
fn names_of_a_shared_network_resolve() {
    let settings = "nameserver 127.0.0.53";
    let linked = |dir: &str, file: &str, link: &str| {
        format!(
            "mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p {dir}; echo {settings} >{dir}/{file}; rm -f resolv.conf; \
             {link}"
        )
    };
    let layouts = [
        ("a file", format!("rm -f resolv.conf; echo {settings} >resolv.conf")),
        (
            "systemd-resolved",
            linked(
                "/run/systemd/resolve",
                "stub-resolv.conf",
                "ln -s ../run/systemd/resolve/stub-resolv.conf resolv.conf",
            ),
        ),
        (
            "NetworkManager",
            linked("/run/NetworkManager", "resolv.conf", "ln -s /run/NetworkManager/resolv.conf resolv.conf"),
        ),
        ("resolvconf", linked("/run/resolvconf", "resolv.conf", "ln -s ../run/resolvconf/resolv.conf resolv.conf")),
        (
            "resolvconf of Debian",
            linked(
                "/run/resolvconf",
                "resolv.conf",
                "mkdir -p resolvconf; ln -s /run/resolvconf resolvconf/run; ln -s /etc/resolvconf/run/resolv.conf \
                 resolv.conf",
            ),
        ),
        ("two links", linked("/run/a", "b", "ln -s a/b /run/c; ln -s /run/c resolv.conf")),
    ];
    for (name, layout) in layouts {
        let hosts = "echo 'hosts: files dns' >nsswitch.conf";
        let said = with_etc(&format!("{layout}; {hosts}")).with_network().output("network_names");
        assert_eq!(said.matches(": 192.0.2.7").count(), sandboxes().len(), "{name}: {said}");
    }
}

/// Finding H11: a file can be bound over a symlink that leads nowhere inside.
#[apply(test)]
fn a_bind_covers_a_dangling_symlink() {
    let directory = shared_dir();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "bound").expect("a file");
    symlink("/run/nowhere", &link).expect("a link");
    let root = Root::host().bind(directory.path(), "/data").bind(&file, "/data/link");
    assert_eq!(stdout(&Sandbox::new().root(root), "cat /data/link"), "bound");
    assert!(link.is_symlink(), "the host's link stays");
    // No directory can be mounted over a symlink.
    let root = Root::host().bind(directory.path(), "/data").tmpfs("/data/link", 1 << 20);
    let error = refused(&Sandbox::new().root(root)).to_string();
    assert!(error.contains("use the path that the symlink leads to"), "{error}");
}

fn unless_ip() -> Option<String> {
    Host::new("ip").arg("-V").output().is_err().then(|| "no ip(8) is installed".into())
}

fn user_names(_: &[String]) -> i32 {
    let profiles = [("build_step", profile::build_step()), ("test", profile::test()), ("agent", profile::agent())];
    let script = "echo $(id -un) $(id -gn) $LANG $(getent passwd $(id -u) | cut -d: -f6) $HOME; \
        cd && echo written >.file && cat .file";
    for (name, sandbox) in profiles {
        assert_eq!(stdout(&sandbox, script), "sandbox sandbox C.UTF-8 /home/sandbox /home/sandbox\nwritten", "{name}");
    }
    let judged = profile::judge().output(Command::new("cat").args(["/etc/passwd", "/etc/group"])).expect("an output");
    let judged = text(&judged.stdout);
    assert!(judged.starts_with("sandbox:x:") && judged.contains("\nnobody:x:65534:"), "{judged}");
    assert!(!judged.contains("other"), "names of the host: {judged}");
    if has("/usr/bin/python3") {
        let script = "import getpass, os.path; print(getpass.getuser(), os.path.expanduser('~'))";
        let output = profile::agent().output(Command::new("/usr/bin/python3").args(["-c", script])).expect("an output");
        assert_eq!(text(&output.stdout), "sandbox /home/sandbox", "{}", text(&output.stderr));
    }
    if has("/usr/bin/node") {
        let script = "const user = require('os').userInfo(); console.log(user.username, user.homedir)";
        let output = profile::agent().output(Command::new("/usr/bin/node").args(["-e", script])).expect("an output");
        assert_eq!(text(&output.stdout), "sandbox /home/sandbox", "{}", text(&output.stderr));
    }
    0
}

/// Finding H10: on a host whose user database does not have the program's user.
#[apply(test)]
fn the_programs_user_has_a_name_and_a_home_in_the_profiles() {
    let layouts = [
        "echo root:x:0:0:root:/root:/bin/sh >passwd; echo root:x:0: >group; echo other:x:77:77::/:/bin/sh >>passwd",
        ": >passwd; : >group",
    ];
    for layout in layouts {
        with_etc(layout).output("user_names");
    }
    with_etc("rm passwd group").assert_works();
}

/// Finding H10: a name that the host has stays, and its home is the sandbox's.
#[apply(test)]
fn a_name_of_the_host_stays() {
    let sandbox = profile::agent().identity(if is_root() { Identity::new().uid(65534) } else { Identity::new() });
    let name = Host::new("id").args(["-un"]).args(is_root().then_some("65534")).output().expect("id");
    assert_eq!(stdout(&sandbox, "id -un; eval echo ~$(id -un)"), format!("{}\n/home/sandbox", text(&name.stdout)));
}

/// Finding H10: the variables of a command replace those of a sandbox.
#[apply(test)]
fn variables_of_the_command_win() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $HOME $LANG $(getent passwd $(id -u) | cut -d: -f6)"]).env("HOME", "/tmp");
    let output = profile::test().output(&command).expect("an output");
    assert_eq!(text(&output.stdout), "/tmp C.UTF-8 /tmp");
    let output = profile::test().env("LANG", "C").env_remove("HOME").output(Command::new("env")).expect("an output");
    assert_eq!(text(&output.stdout), "LANG=C\nPATH=/usr/local/bin:/usr/bin:/bin");
}

/// Finding H10.
#[apply(test)]
fn a_terminal_has_a_type() {
    let has = |command: &mut Command, line: &str| {
        let script = format!("env | grep ^TERM= | grep -qx '{line}'");
        let mut child = profile::agent().spawn(command.args(["-c", &script])).expect("a child");
        child.wait().expect("an outcome").success()
    };
    assert!(has(Command::new("sh").pty(24, 80), "TERM=xterm-256color"));
    assert!(has(Command::new("sh").env("TERM", "vt100").pty(24, 80), "TERM=vt100"));
    assert!(!has(Command::new("sh").pty(24, 80).env_remove("TERM"), ".*"));
    assert!(!has(&mut Command::new("sh"), ".*"));
}
