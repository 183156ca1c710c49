//! BuildStream, whose input roots are whole root file systems.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::engine::{Engine, Worker, copy, engines, text};

#[test]
fn buildstream_builds_an_element() {
    let Some(engine) = Engine::start("buildstream_builds_an_element") else { return };
    let server = engine.server;
    let worker = Worker::start(server, "buildstream", &["--input-root", "as-root"]);
    let project = server.state.join("project");
    copy(&engines().join("buildstream"), &project);
    let bin = project.join("files/base/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/usr/bin/busybox", bin.join("busybox")).unwrap();
    for name in ["cat", "cp", "echo", "ln", "ls", "mkdir", "sh", "tr"] {
        symlink("busybox", bin.join(name)).unwrap();
    }
    let settings = fs::read_to_string(project.join("bst.conf")).unwrap();
    let state = server.state.join("bst");
    let settings = settings.replace("STATE", state.to_str().unwrap()).replace("PORT", &server.port.to_string());
    fs::write(project.join("bst.conf"), settings).unwrap();
    let bst = |arguments: &[&str]| {
        let mut command = Command::new(server.programs.join("buildstream/bin/bst"));
        command.current_dir(&project).args(["--config", "bst.conf", "--no-interactive", "--no-colors"]);
        let (code, output) = text(command.args(arguments).output().unwrap());
        assert_eq!(code, Some(0), "{output}\n{}", worker.log());
    };
    bst(&["build", "hello.bst"]);
    bst(&["artifact", "checkout", "--directory", "checkout", "hello.bst"]);
    let share = project.join("checkout/usr/share");
    let read = |name: &str| fs::read_to_string(share.join(name)).unwrap();
    assert_eq!((read("upper.txt"), read("hello.txt")), ("HELLO\n".into(), "hello\nmore\n".into()));
    assert_eq!(fs::read_link(share.join("link")).unwrap().to_str(), Some("upper.txt"));
    // Its root has nothing of the host.
    assert_eq!(read("root.txt"), "bin\nbuildstream\nbuildstream-install\ndev\nproc\ntmp\n");
    assert!(worker.log().contains("an action has finished"));
}
