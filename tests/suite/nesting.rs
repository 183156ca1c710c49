//! Sandboxes in a sandbox: programs of [`Sandbox::nestable`] that use this crate, and what such a program still cannot
//! do.

use stockade::capabilities::Capability;
use stockade::outcome::GapKind;
use stockade::{Capabilities, Command, Landlock, Namespaces, Outcome, Root, Sandbox, Seccomp};

use crate::support::{
    PAYLOAD, fails, invalid, payload, sh, stdout, text, unless_mount_setattr, unless_pivot_root, with_payload,
};

payloads![("nest", nest)];

/// What a caller needs that is not root and whose sandboxes have users of their own.
const RIGHTS: [Capability; 8] = [
    Capability::SysAdmin,
    Capability::Setuid,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Kill,
    Capability::Chown,
    Capability::DacOverride,
    Capability::NetAdmin,
];

/// A sandbox by the words of its description. `source`: where this binary is.
fn described(words: &str, source: &str) -> Sandbox {
    let has = |word| words.split('+').any(|known| known == word);
    let programs = Root::empty().bind("/usr", "/usr").symlink("usr/bin", "/bin").symlink("usr/sbin", "/sbin");
    let libraries = programs.symlink("usr/lib", "/lib").symlink("usr/lib64", "/lib64");
    let root = if has("empty") { libraries.proc("/proc").dev("/dev").tmpfs("/tmp", 1 << 20) } else { Root::host() };
    let capabilities = Capabilities::none().keep(RIGHTS.into_iter().filter(|_| has("rights")));
    let dropped = if has("dropping") { capabilities.clone().drop_on_setuid() } else { capabilities };
    let namespaces = Namespaces::all() - Namespaces::TIME;
    let sandbox = Sandbox::new()
        .root(root.with(stockade::mount::Bind::new(source, PAYLOAD).unmapped()))
        .namespaces(if has("rights") { namespaces - Namespaces::USER } else { namespaces })
        .capabilities(dropped);
    if has("nestable") { sandbox.nestable() } else { sandbox }
}

/// Runs a sandbox, in it the next one, and so on.
fn nest(descriptions: &[String]) -> i32 {
    let Some((first, others)) = descriptions.split_first() else {
        println!("innermost of {}", std::process::id());
        return 0;
    };
    let mut command = payload("nest");
    command.args(others);
    match described(first, PAYLOAD).output(command) {
        Ok(output) => {
            print!("{}{}", text(&output.stdout), text(&output.stderr));
            i32::from(!output.outcome.success())
        }
        Err(error) => {
            print!("{error}");
            1
        }
    }
}

/// What the innermost of several sandboxes prints, or the error of one of them.
fn nested(descriptions: &[&str]) -> (Outcome, String) {
    let mut command = payload("nest");
    command.args(&descriptions[1..]);
    let output = described(descriptions[0], crate::support::own_path().to_str().unwrap()).output(command).unwrap();
    (output.outcome, text(&output.stdout))
}

fn assert_nests(descriptions: &[&str]) {
    let (outcome, said) = nested(descriptions);
    assert!(outcome.success() && said == "innermost of 2", "{descriptions:?}: {outcome}: {said}");
}

#[apply(test)]
#[skip(unless_pivot_root)]
fn sandboxes_nest() {
    assert_nests(&["nestable", "plain"]);
    assert_nests(&["nestable", "empty"]);
    assert_nests(&["nestable+empty", "empty"]);
    assert_nests(&["nestable", "nestable", "nestable", "plain"]);
}

#[apply(test)]
fn a_sandbox_that_is_not_nestable_denies_another() {
    let (outcome, said) = nested(&["plain", "plain"]);
    assert!(!outcome.success(), "{said}");
    assert!(said.starts_with("failed to create the namespaces: unshare: Operation not permitted (EPERM)"), "{said}");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_pivot_root)]
fn sandboxes_with_capabilities_of_the_host_nest() {
    assert_nests(&["nestable+rights", "plain"]);
    assert_nests(&["nestable+rights", "nestable+rights", "rights"]);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_pivot_root)]
fn locked_securebits_that_a_sandbox_cannot_have_are_named() {
    for descriptions in [["nestable+rights", "rights+dropping"], ["nestable+rights+dropping", "rights"]] {
        let (_, said) = nested(&descriptions);
        assert!(said.starts_with("the securebits of the caller are locked (0x"), "{descriptions:?}: {said}");
    }
}

#[apply(test)]
#[skip(unless_pivot_root)]
fn nested_namespaces_reveal_and_change_nothing() {
    let secret = tempfile::tempdir().unwrap();
    let place = std::fs::canonicalize(secret.path()).unwrap();
    std::fs::write(place.join("file"), "secret").unwrap();
    let file = place.join("file");
    let root = with_payload(Root::host()).bind(&place, "/srv").mask("/srv/file");
    let shown = Sandbox::new().root(Root::host().bind(&place, "/srv"));
    assert_eq!(stdout(&shown, "cat /srv/file"), "secret", "without the mask it is read");
    let sandbox = Sandbox::new().root(root).nestable();
    let script = "unshare --user --map-root-user --mount sh -c '
        umount /srv/file && echo unmounted; umount -l /srv && echo detached; grep secret /srv/file
        mount -o remount,bind,rw /srv && echo writable; touch /srv/new && echo written
        mount -t tmpfs none /mnt && echo mounted'";
    assert_eq!(stdout(&sandbox, script), "mounted", "mounts are allowed, and those of the sandbox stay");
    assert!(file.exists() && !place.join("new").exists());
}

#[apply(test)]
#[only(User)]
#[skip(unless_pivot_root)]
fn keys_of_the_caller_are_visible_only_where_sandboxes_nest() {
    let lists_keys = |sandbox: &Sandbox| {
        let outcome = sh(sandbox, "cat /proc/keys").outcome;
        let is_said = outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Keys);
        (outcome.success(), is_said)
    };
    assert_eq!(lists_keys(&Sandbox::new().nestable()), (true, true));
    assert_eq!(lists_keys(&Sandbox::new()), (false, false));
    assert!(fails(&Sandbox::new(), "cat /proc/keys").contains("Permission denied"));
}

#[apply(test)]
#[skip(unless_pivot_root)]
fn what_prevents_nesting_is_refused() {
    let nestable = Sandbox::new().nestable();
    let (what, remedy) = invalid(&nestable.clone().landlock(Landlock::new().read_only("/")));
    assert_eq!(what, "Landlock rules deny mounts, which a sandbox in the sandbox needs");
    assert_eq!(remedy, "remove Sandbox::landlock, or remove Sandbox::nestable");
    let (_, remedy) = invalid(&nestable.clone().namespaces(Namespaces::USER | Namespaces::MOUNT));
    assert_eq!(remedy, "add Namespaces::PID, or remove Sandbox::nestable");
    let writable = Root::host().bind_rw("/srv", "/srv");
    let git = Root::host().git_workspace("/srv", "/srv");
    for root in [writable.clone().protect("/srv/file"), writable.read_only("/srv/file"), git] {
        let (what, _) = invalid(&nestable.clone().root(root));
        assert!(what.contains("can replace a path"), "{what}");
    }
    assert!(nestable.status(Command::new("true")).unwrap().success());
}

fn unless_pivot_root_and_protection() -> Option<String> {
    unless_pivot_root().or_else(unless_mount_setattr)
}

#[apply(test)]
#[skip(unless_pivot_root_and_protection)]
fn paths_that_a_program_can_replace_are_reported() {
    let place = crate::support::shared_dir();
    let path = place.path().canonicalize().unwrap();
    std::fs::create_dir(path.join("kept")).unwrap();
    let root = Root::host().bind_rw(&path, "/srv").protect("/srv/kept");
    let reports = |sandbox: Sandbox| {
        let outcome = sandbox.root(root.clone()).status(Command::new("true")).unwrap();
        outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::ProtectedPaths)
    };
    assert!(reports(Sandbox::new().seccomp(Seccomp::unconfined())));
    assert!(!reports(Sandbox::new()));
}
