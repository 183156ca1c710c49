//! Callers whose capabilities do not match their user ID: root without the capabilities to change to another user, and
//! another user with them. The program must never run as the host's root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use stockade::capabilities::Capability;
use stockade::probe::{Feature, Support};
use stockade::{Capabilities, Command, ErrorKind, Identity, Layer, Namespaces, Root, Sandbox};

use crate::attacks::common::bare;
use crate::support::{
    USER, exists, fails, field, on_host, refused, shared_dir, stdout, unless_idmapped_mounts, unless_root, unless_user,
};

payloads![
    ("root-with-less", root_with_less),
    ("root-with-enough", root_with_enough),
    ("user-with-rights", user_with_rights),
    ("user-with-others", user_with_others),
    ("root-by-another-id", root_by_another_id),
    ("nested", nested),
];

/// What Docker leaves to root by default.
const DOCKER: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,\
                      +net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";
/// What the crate uses of root's capabilities.
const USED: [&str; 6] = ["sys_admin", "setuid", "setgid", "setpcap", "kill", "chown"];

fn unless_root_with_idmapped_mounts() -> Option<String> {
    unless_root().or_else(unless_idmapped_mounts)
}

fn unless_user_namespaces() -> Option<String> {
    unless_user().or_else(crate::support::unless_mounts)
}

/// A file that root alone can read, in a directory that everybody can enter.
struct Secret(tempfile::TempDir);

impl Secret {
    fn new() -> Self {
        let dir = shared_dir();
        fs::write(dir.path().join("secret"), "root's").unwrap();
        fs::set_permissions(dir.path().join("secret"), Permissions::from_mode(0o600)).unwrap();
        Self(dir)
    }

    fn path(&self) -> String {
        self.0.path().join("secret").to_string_lossy().into_owned()
    }
}

#[apply(test)]
#[only(Root)]
fn a_root_caller_without_its_capabilities_starts_no_program_as_the_hosts_root() {
    let secret = Secret::new();
    let sets = USED.map(|used| (format!("-{used}"), used.to_uppercase()));
    let others = [(DOCKER.to_owned(), "SYS_ADMIN".to_owned()), ("-all".to_owned(), USED.join(" ").to_uppercase())];
    for (set, lacks) in sets.into_iter().chain(others) {
        let way = ["setpriv", "--bounding-set", &set];
        on_host(&way, "root-with-less", &[&secret.path(), &lacks]);
    }
}

fn root_with_less(args: &[String]) -> i32 {
    let (secret, lacks) = (&args[0], &args[1]);
    let cat = format!("cat {secret}");
    let support = Support::probe();
    let finding = support.finding(Feature::Sandbox).expect("the default sandbox");
    assert!(finding.hint().is_some_and(|remedy| remedy.contains("--cap-add")), "the doctor says so: {finding:?}");
    // The harm: a program with the caller's IDs reads what belongs to the host's root.
    assert_eq!(stdout(&bare(), &cat), "root's");
    let namespaces = [Namespaces::all() - Namespaces::TIME, Namespaces::all() - Namespaces::USER, Namespaces::empty()];
    let identities = [Identity::new(), Identity::new().uid(5).gid(5), Identity::new().sub_ids()];
    for namespaces in namespaces {
        for identity in &identities {
            let sandbox = Sandbox::new().namespaces(namespaces).root(Root::inherit()).identity(identity.clone());
            let error = refused(&sandbox);
            assert_eq!((error.kind(), error.layer()), (ErrorKind::Unsupported, Some(Layer::Identity)), "{error:?}");
            let (said, remedy) = (error.to_string(), error.hint().unwrap_or_default());
            for name in lacks.split(' ') {
                assert!(said.contains(&format!("CAP_{name}")), "{name} is named: {said}");
                assert!(remedy.contains(&format!("--cap-add {name}")), "{name} is in the remedy: {remedy}");
            }
        }
    }
    0
}

#[apply(test)]
#[only(Root)]
fn capabilities_that_the_set_up_does_not_use_are_not_needed() {
    let secret = Secret::new();
    let others = ["dac_override", "dac_read_search", "fowner", "net_admin", "sys_chroot", "mknod", "sys_ptrace"];
    let without: String = others.map(|other| format!(",-{other}")).concat();
    let way = ["setpriv", "--bounding-set", without.trim_start_matches(',')];
    on_host(&way, "root-with-enough", &[&secret.path()]);
}

fn root_with_enough(args: &[String]) -> i32 {
    let sandbox = Sandbox::new().root(Root::inherit());
    assert!(fails(&sandbox, &format!("cat {}", args[0])).contains("Permission denied"));
    // What is to be kept must be there, unless it is one over a namespace of the sandbox's own.
    let sandbox = sandbox.capabilities(Capabilities::none().keep([Capability::SysPtrace]));
    let error = refused(&sandbox.clone().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::USER));
    assert!(error.to_string().contains("CAP_SYS_PTRACE cannot be kept: the caller does not have it"), "{error}");
    assert!(sandbox.status(Command::new("true")).unwrap().success());
    0
}

/// A way to a caller that is an ordinary user with capabilities.
fn user_with(capabilities: &[&str], name: &str, args: &[&str]) {
    let set: Vec<String> = capabilities.iter().map(|capability| format!("+{capability}")).collect();
    let (set, user) = (set.join(","), USER.to_string());
    let mut way = vec!["setpriv", "--securebits", "+no_setuid_fixup", "--inh-caps", &set];
    way.extend(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--ambient-caps", &set]);
    on_host(&way, name, args);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_idmapped_mounts)]
fn a_user_with_capabilities_gets_host_ids_like_root() {
    user_with(&[USED.as_slice(), &["dac_override"]].concat(), "user-with-rights", &[]);
}

fn user_with_rights(_: &[String]) -> i32 {
    let map = stdout(&Sandbox::new(), "cat /proc/self/uid_map");
    let outside: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((0x7000_0000..0x7f00_0000).contains(&outside), "{map}");
    let dir = shared_dir();
    let out = Sandbox::new().root(Root::host().bind_rw(dir.path(), "/out"));
    assert_eq!(stdout(&out, "echo text >/out/file; stat -c %u /out/file"), USER.to_string());
    assert!(exists(dir.path().join("file")), "a file that belongs to the caller");
    0
}

#[apply(test)]
#[only(Root)]
fn a_user_with_other_capabilities_is_an_ordinary_user() {
    let secret = Secret::new();
    user_with(&["sys_admin", "setpcap", "dac_override"], "user-with-others", &[&secret.path()]);
}

fn user_with_others(args: &[String]) -> i32 {
    assert!(fs::read(&args[0]).is_ok(), "the caller may read it");
    for sandbox in [Sandbox::new(), bare()] {
        let sandbox = sandbox.root(Root::inherit());
        let ids = stdout(&sandbox, "grep -E '^(Uid|CapPrm)' /proc/self/status");
        assert!(field(&ids, "Uid").starts_with(&USER.to_string()), "{ids}");
        assert_eq!(field(&ids, "CapPrm"), "0000000000000000");
        assert!(fails(&sandbox, &format!("cat {}", args[0])).contains("Permission denied"));
    }
    0
}

#[apply(test)]
#[only(Root)]
fn the_hosts_root_under_another_id_starts_no_program_as_itself() {
    let secret = Secret::new();
    let way = ["unshare", "--user", "--map-user=1000", "--map-group=1000"];
    on_host(&way, "root-by-another-id", &[&secret.path()]);
}

fn root_by_another_id(args: &[String]) -> i32 {
    let cat = format!("cat {}", args[0]);
    assert_eq!(stdout(&bare(), &cat), "root's", "the harm");
    let error = refused(&Sandbox::new().root(Root::inherit()));
    assert!(error.to_string().starts_with("the caller is the host's root without CAP_SYS_ADMIN"), "{error}");
    0
}

#[apply(test)]
#[only(User)]
#[skip(unless_user_namespaces)]
fn root_of_a_users_nested_namespace_is_that_user() {
    on_host(&["unshare", "-Ur", "unshare", "-Ur"], "nested", &[]);
}

fn nested(_: &[String]) -> i32 {
    assert_eq!(stdout(&Sandbox::new(), "id -u"), "1000");
    0
}
