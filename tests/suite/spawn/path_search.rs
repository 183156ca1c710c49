//! Where a program is searched for by its name.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::output;
use crate::support;
use stockade::{Command, ErrorKind, Root, Sandbox};

/// A directory with executables in it that say where they lie.
fn directory_of_programs() -> tempfile::TempDir {
    let top = support::shared_dir();
    for (directory, mode) in [("first", 0o644), ("second", 0o755), ("third", 0o755)] {
        let path = top.path().join(directory);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(path.join("program"), format!("#!/bin/sh\necho {directory}\n")).unwrap();
        fs::set_permissions(path.join("program"), PermissionsExt::from_mode(mode)).unwrap();
    }
    top
}

#[apply(test)]
fn programs_are_searched_in_the_path_inside() {
    let programs = directory_of_programs();
    let sandbox = Sandbox::new().root(Root::host().bind(programs.path(), "/programs"));
    let along = |path: &str| output(&sandbox, Command::new("program").env("PATH", path));
    assert_eq!(along("/programs/second:/programs/third"), "second", "the first match wins");
    assert_eq!(along("/programs/third:/programs/second"), "third");
    assert_eq!(
        along("/nowhere:/etc/passwd:/programs/first:/programs/third"),
        "third",
        "what can't be run is passed over"
    );
    assert_eq!(
        output(&sandbox, Command::new("sh").args(["-c", "program"]).env("PATH", "/programs/second:/bin")),
        "second"
    );

    // Where it can't be found or run at all.
    let refused = |path: &str| sandbox.spawn(Command::new("program").env("PATH", path)).expect_err("not to be run");
    let error = refused("/nowhere:/usr/bin");
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(Path::new("program"))));
    assert_eq!(error.searched(), [Path::new("/nowhere/program"), Path::new("/usr/bin/program")]);
    let error = refused("/nowhere:/programs/first:/usr/bin");
    assert_eq!(error.io_kind(), io::ErrorKind::PermissionDenied, "as execvp has it: {error}");
    assert_eq!(error.path(), Some(Path::new("/programs/first/program")));

    // The search is that of the inside: what the host has there does not count.
    let on_host = programs.path().join("second");
    assert!(on_host.join("program").exists());
    let error = refused(on_host.to_str().unwrap());
    assert_eq!(error.io_kind(), io::ErrorKind::NotFound);
}

#[apply(test)]
fn a_name_with_a_slash_is_not_searched_in_path() {
    let programs = directory_of_programs();
    let sandbox = Sandbox::new().root(Root::host().bind(programs.path(), "/programs"));
    let mut command = Command::new("second/program");
    command.env("PATH", "/programs");
    let error = sandbox.spawn(&command).expect_err("it is below the working directory alone");
    assert_eq!(error.io_kind(), io::ErrorKind::NotFound);
    assert_eq!(output(&sandbox, command.current_dir("/programs")), "second");
    assert_eq!(output(&sandbox, Command::new("/programs/third/program").env_clear()), "third");
}

#[apply(test)]
fn a_name_without_a_path_to_search_is_refused() {
    for command in [Command::new("true").env_clear(), Command::new("true").env("PATH", "")] {
        let error = Sandbox::new().spawn(command).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"true\" cannot be found: PATH is empty: set PATH, or give the path of the program"
        );
    }
}

#[apply(test)]
fn an_empty_entry_of_the_path_is_the_working_directory() {
    let programs = directory_of_programs();
    let sandbox = Sandbox::new().root(Root::host().bind(programs.path(), "/programs"));
    let mut command = Command::new("program");
    command.env("PATH", "/nowhere::/programs/third").current_dir("/programs/second");
    assert_eq!(output(&sandbox, &mut command), "second");
}
