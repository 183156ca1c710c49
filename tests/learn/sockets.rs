//! Ports of TCP, and Unix sockets.

use stockade::{FsAccess, Landlock, Learned};

use crate::deeds::deeds;
use crate::support::Test;
use crate::{at, fails, learn, sandbox, succeeds, unless_landlock};

pub const TESTS: &[Test] = crate::tests![
    tcp_ports_are_noted_and_those_of_udp_are_not,
    ports_that_were_learned_are_the_only_ones if unless_landlock,
    unix_sockets_are_noted_by_their_paths,
    abstract_sockets_of_others_are_noted,
];

fn ports(learned: &Learned) -> (Vec<u16>, Vec<u16>) {
    (learned.bind.iter().copied().collect(), learned.connect.iter().copied().collect())
}

fn tcp_ports_are_noted_and_those_of_udp_are_not() {
    let learned = learn(&sandbox(), &deeds(&["listen 4000", "listen6 4001", "connect 4002", "listen 0", "udp 4003"]));
    assert_eq!(ports(&learned), (vec![0, 4000, 4001, 4002], vec![4002]));
}

fn ports_that_were_learned_are_the_only_ones() {
    let learned = learn(&sandbox(), &deeds(&["connect 4000"]));
    succeeds(&learned, &sandbox(), &deeds(&["connect 4000", "listen 4000"]));
    fails(&learned, &sandbox(), &deeds(&["listen 4001"]));
    fails(&learned.clone().allow_bind([4001]), &sandbox(), &deeds(&["connect 4001"]));
    succeeds(&learned.allow_bind([4001]).allow_connect([4001]), &sandbox(), &deeds(&["connect 4001"]));
}

fn unix_sockets_are_noted_by_their_paths() {
    let learned = learn(&sandbox(), &deeds(&["unix-listen /tmp/a", "unix-send /tmp/b"]));
    assert_eq!(at(&learned, "/tmp"), FsAccess::MAKE_SOCK | FsAccess::RESOLVE_UNIX);
    assert_eq!(ports(&learned), (vec![], vec![]));
    // One that is there already has a rule of its own.
    let dir = crate::support::shared_dir();
    let path = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("its permissions");
    let sockets = stockade::Bind::new(dir.path(), "/sockets").sockets();
    let root = crate::support::with_payload(stockade::Root::host()).mount(sockets);
    let sandbox = crate::bounded(stockade::Sandbox::new().root(root));
    let connect = deeds(&["unix-connect /sockets/socket"]);
    let learned = learn(&sandbox, &connect);
    assert_eq!(at(&learned, "/sockets/socket"), FsAccess::RESOLVE_UNIX);
    if unless_landlock().is_none() {
        // Also on kernels that don't restrict it.
        succeeds(&learned, &sandbox, &connect);
    }
}

fn abstract_sockets_of_others_are_noted() {
    let own = learn(&sandbox(), &deeds(&["abstract name"]));
    assert!(!own.abstract_sockets && own.landlock() != own.landlock().any_abstract_socket());
    let script = |program: &str| format!("{program} --payload do 'abstract-connect other' || true");
    let others = learn(&sandbox(), &crate::shell(&script(crate::support::PAYLOAD)));
    assert!(others.abstract_sockets);
    assert_eq!(others.landlock(), others.landlock().any_abstract_socket());
    assert_ne!(others.landlock(), Landlock::new());
}
