//! A minimal `/dev`: a tmpfs with the device nodes that every program expects, bound from the host, and new file
//! systems for shared memory, message queues and terminals.

use std::path::Path;

use super::builder::{Builder, PendingReadOnly};
use super::synthetic::tmpfs_options;
use super::target::Target;
use crate::advice::Need;
use crate::confine::namespaces::Namespaces;
use crate::plan::{Attributes, Slot, Step};

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Symlinks: their texts and names.
pub(super) const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// The size in bytes and the number of inodes of the tmpfs, which no program writes to.
const SIZE: u64 = 1 << 20;
const INODES: u64 = 1 << 10;
/// The size of `/dev/shm`, in bytes.
const SHARED_MEMORY: u64 = 512 << 20;

/// Returns the nodes that the host has: a container may lack some, as `tty`.
pub(super) fn present_nodes() -> Vec<&'static str> {
    NODES.into_iter().filter(|name| Path::new("/dev").join(name).exists()).collect()
}

impl Builder<'_> {
    /// Carries out [`Operation::Dev`](super::Operation::Dev). `has_more`: whether later operations create entries in
    /// it.
    pub(super) fn devices(&mut self, target: &Target, has_more: bool) {
        let safe = Attributes::NOSUID | Attributes::NOEXEC;
        target.step(self.context.helper, "mount a tmpfs on");
        let dev = self.context.helper.file_system("tmpfs", &tmpfs_options(0o755, SIZE, INODES), safe);
        self.attach_own(dev, target);
        let shm = tmpfs_options(0o1777, SHARED_MEMORY, SHARED_MEMORY / 4096).to_vec();
        let mut systems =
            vec![DevFileSystem { name: "shm", kind: "tmpfs", options: shm, attributes: Attributes::SAFE }];
        // Only on request: the kernel threads that serve terminals use CPU time that no cgroup counts.
        if self.context.terminals > 0 {
            let options =
                [("ptmxmode", "0666".into()), ("mode", "0620".into()), ("max", self.context.terminals.to_string())];
            let options = options.map(|(key, value)| (key, Some(value))).to_vec();
            systems.push(DevFileSystem { name: "pts", kind: "devpts", options, attributes: safe });
            self.context.helper.symlinkat("pts/ptmx", dev, "ptmx");
        }
        if self.context.namespaces.created.contains(Namespaces::IPC) {
            let attributes = safe | Attributes::NODEV;
            systems.push(DevFileSystem { name: "mqueue", kind: "mqueue", options: vec![], attributes });
        }
        for system in &systems {
            self.context.helper.mkdirat(dev, system.name, 0o755);
        }
        for (text, link) in LINKS {
            self.context.helper.symlinkat(text, dev, link);
        }
        let nodes = present_nodes();
        for name in &nodes {
            self.node(dev, name);
        }
        self.context.helper.step(Step::new("make the device nodes read-only").needs(Need::Mounts));
        self.restrict_mounts(dev, &nodes, safe | Attributes::RDONLY);
        if has_more {
            self.set_top(dev, safe);
            self.read_only_later.push(PendingReadOnly {
                mount: dev,
                step: "make /dev read-only",
                attributes: Attributes::NOSUID | Attributes::NOEXEC | Attributes::RDONLY,
            });
        }
        for system in systems {
            self.system(dev, &system);
        }
    }

    /// Binds a device node of the host. A read-only mount does not prevent writes to the device.
    fn node(&mut self, dev: Slot, name: &str) {
        let path = Path::new("/dev").join(name);
        let node = self.source(&path, |script| {
            let source = script.open_source(&path);
            let node = script.open_tree(source, "");
            script.close_and_free(source);
            node
        });
        let helper = &mut *self.context.helper;
        helper.step(Step::new("bind the device node").path(&path).needs(Need::Mounts));
        helper.create(dev, name, 0o666);
        helper.move_mount_to(node, dev, name);
        helper.close(node);
    }

    /// Mounts a file system on its directory.
    fn system(&mut self, dev: Slot, system: &DevFileSystem) {
        let helper = &mut *self.context.helper;
        let what = format!("mount a {} file system in /dev", system.kind);
        helper.step(
            Step::new(what)
                .needs(Need::Mounts)
                .remedies(&[(libc::EINVAL, "the kernel allows at most 1,048,576 terminals: request fewer")]),
        );
        let mount = helper.file_system(system.kind, &system.options, system.attributes);
        helper.move_mount_to(mount, dev, system.name);
        helper.close(mount);
    }
}

/// A file system to be mounted in a directory of `/dev`.
struct DevFileSystem {
    name: &'static str,
    kind: &'static str,
    options: Vec<(&'static str, Option<String>)>,
    attributes: Attributes,
}
