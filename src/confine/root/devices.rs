//! A minimal `/dev`: a tmpfs with the device nodes that every program may expect, bound from the host, and file systems
//! of the sandbox's own.

use std::path::Path;

use super::lower::Builder;
use super::target::Target;
use crate::confine::namespaces::Namespaces;
use crate::plan::{Attributes, Slot, Step};

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

impl Builder<'_> {
    pub(super) fn devices(&mut self, target: &Target) {
        let safe = Attributes::NOSUID | Attributes::NOEXEC;
        target.step(self.l.helper, "making a tmpfs for");
        let dev = self.l.helper.file_system("tmpfs", &[("mode", Some("0755".into()))], safe);
        self.attach_own(dev, target);
        let mut systems: Vec<System> = vec![
            System {
                name: "pts",
                kind: "devpts",
                options: &[("ptmxmode", "0666"), ("mode", "0620")],
                attributes: safe,
            },
            System { name: "shm", kind: "tmpfs", options: &[("mode", "1777")], attributes: Attributes::SAFE },
        ];
        if self.l.chosen.created.contains(Namespaces::IPC) {
            let attributes = safe | Attributes::NODEV;
            systems.push(System { name: "mqueue", kind: "mqueue", options: &[], attributes });
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
        helper.step(
            Step::new(what).remedies(&[(libc::EPERM, "this host forbids mounts in user namespaces, or to this user")]),
        );
        let options: Vec<_> = system.options.iter().map(|&(key, value)| (key, Some(value.to_owned()))).collect();
        let mount = helper.file_system(system.kind, &options, system.attributes);
        helper.move_mount_to(mount, dev, system.name);
        helper.close(mount);
    }
}

/// A file system in a directory of `/dev`.
struct System {
    name: &'static str,
    kind: &'static str,
    options: &'static [(&'static str, &'static str)],
    attributes: Attributes,
}
