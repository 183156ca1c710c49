//! A minimal `/dev`: a tmpfs with the device nodes that every program may expect, bound from the host, and file systems
//! of the sandbox's own.

use std::path::Path;

use super::lower::Builder;
use super::own::tmpfs_options;
use super::target::Target;
use crate::confine::namespaces::Namespaces;
use crate::plan::{Attributes, Slot, Step};

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// What the tmpfs with the nodes holds, which nobody writes to.
const SIZE: u64 = 1 << 20;
const INODES: u64 = 1 << 10;
/// What shared memory may take.
const SHARED_MEMORY: u64 = 512 << 20;

impl Builder<'_> {
    pub(super) fn devices(&mut self, target: &Target) {
        let safe = Attributes::NOSUID | Attributes::NOEXEC;
        target.step(self.l.helper, "making a tmpfs for");
        let dev = self.l.helper.file_system("tmpfs", &tmpfs_options(0o755, SIZE, INODES), safe);
        self.attach_own(dev, target);
        let shm = tmpfs_options(0o1777, SHARED_MEMORY, SHARED_MEMORY / 4096).to_vec();
        let mut systems = vec![System { name: "shm", kind: "tmpfs", options: shm, attributes: Attributes::SAFE }];
        // Kernel threads work for terminals, whose CPU time counts to no cgroup.
        if self.l.terminals > 0 {
            let options = [("ptmxmode", "0666".into()), ("mode", "0620".into()), ("max", self.l.terminals.to_string())];
            let options = options.map(|(key, value)| (key, Some(value))).to_vec();
            systems.push(System { name: "pts", kind: "devpts", options, attributes: safe });
            self.l.helper.symlinkat("pts/ptmx", dev, "ptmx");
        }
        if self.l.chosen.created.contains(Namespaces::IPC) {
            let attributes = safe | Attributes::NODEV;
            systems.push(System { name: "mqueue", kind: "mqueue", options: vec![], attributes });
        }
        for system in &systems {
            self.l.helper.mkdirat(dev, system.name, 0o755);
        }
        for (text, link) in LINKS {
            self.l.helper.symlinkat(text, dev, link);
        }
        for name in NODES {
            self.node(dev, name);
        }
        self.l.helper.step(Step::new("making the devices' directory and the nodes in it read-only"));
        self.restrict_places(dev, &NODES, safe | Attributes::RDONLY);
        for system in systems {
            self.system(dev, &system);
        }
    }

    /// A device node of the host's. What is written to it goes to the device, read-only mount or not.
    fn node(&mut self, dev: Slot, name: &str) {
        let path = Path::new("/dev").join(name);
        let privileged = self.l.host.privileged;
        let node = self.source(&path, |program| {
            let source = program.open_source(&path);
            let node = program.open_tree(source, "");
            if !privileged {
                program.close(source);
            }
            node
        });
        let helper = &mut *self.l.helper;
        helper.step(Step::new("binding a device node").path(&path));
        helper.create(dev, name, 0o666);
        helper.move_mount_to(node, dev, name);
    }

    fn system(&mut self, dev: Slot, system: &System) {
        let helper = &mut *self.l.helper;
        let what = format!("mounting a {} file system in the sandbox's /dev", system.kind);
        helper.step(Step::new(what).remedies(&[
            (libc::EPERM, "this host forbids mounts in user namespaces, or to this user"),
            (libc::EINVAL, "the kernel allows at most 1,048,576 terminals: request fewer"),
        ]));
        let mount = helper.file_system(system.kind, &system.options, system.attributes);
        helper.move_mount_to(mount, dev, system.name);
        helper.close(mount);
    }
}

/// A file system in a directory of `/dev`.
struct System {
    name: &'static str,
    kind: &'static str,
    options: Vec<(&'static str, Option<String>)>,
    attributes: Attributes,
}
