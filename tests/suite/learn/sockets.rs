//! TCP ports and UNIX sockets.

use stockade::Landlock;
use stockade::landlock::FsAccess;
use stockade::learn::Learned;

use crate::learn::deeds::deeds;
use crate::learn::{at, fails, learn, sandbox, succeeds, unless_landlock};

fn ports(learned: &Learned) -> (Vec<u16>, Vec<u16>) {
    (learned.bind.iter().copied().collect(), learned.connect.iter().copied().collect())
}

#[apply(test)]
fn tcp_ports_are_recorded_and_udp_ports_are_not() {
    let learned = learn(&sandbox(), &deeds(&["listen 4000", "listen6 4001", "connect 4002", "listen 0", "udp 4003"]));
    assert_eq!(ports(&learned), (vec![0, 4000, 4001, 4002], vec![4002]));
}

#[apply(test)]
#[skip(unless_landlock)]
fn only_learned_ports_are_allowed() {
    let learned = learn(&sandbox(), &deeds(&["connect 4000"]));
    succeeds(&learned, &sandbox(), &deeds(&["connect 4000", "listen 4000"]));
    fails(&learned, &sandbox(), &deeds(&["listen 4001"]));
    fails(&learned.clone().allow_bind([4001]), &sandbox(), &deeds(&["connect 4001"]));
    succeeds(&learned.allow_bind([4001]).allow_connect([4001]), &sandbox(), &deeds(&["connect 4001"]));
}

#[apply(test)]
fn unix_sockets_are_recorded_by_their_paths() {
    let learned = learn(&sandbox(), &deeds(&["unix-listen /tmp/a", "unix-send /tmp/b"]));
    assert_eq!(at(&learned, "/tmp"), FsAccess::MAKE_SOCK | FsAccess::RESOLVE_UNIX);
    assert_eq!(ports(&learned), (vec![], vec![]));
    // One that is there already has a rule of its own.
    let dir = crate::support::shared_dir();
    let path = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("its permissions");
    let sockets = stockade::mount::Bind::new(dir.path(), "/sockets").sockets();
    let root = crate::support::with_payload(stockade::Root::host()).with(sockets);
    let sandbox = crate::learn::bounded(stockade::Sandbox::new().root(root));
    let connect = deeds(&["unix-connect /sockets/socket"]);
    let learned = learn(&sandbox, &connect);
    assert_eq!(at(&learned, "/sockets/socket"), FsAccess::RESOLVE_UNIX);
    if unless_landlock().is_none() {
        // Also on kernels that don't restrict it.
        succeeds(&learned, &sandbox, &connect);
    }
}

#[apply(test)]
fn abstract_sockets_outside_are_recorded() {
    let own = learn(&sandbox(), &deeds(&["abstract name"]));
    assert!(!own.abstract_sockets && own.landlock() != own.landlock().any_abstract_socket());
    let script = |program: &str| format!("{program} --payload do 'abstract-connect other' || true");
    let others = learn(&sandbox(), &crate::learn::shell(&script(crate::support::PAYLOAD)));
    assert!(others.abstract_sockets);
    assert_eq!(others.landlock(), others.landlock().any_abstract_socket());
    assert_ne!(others.landlock(), Landlock::new());
}
