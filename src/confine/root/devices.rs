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
        target.step(self.l.init, "making a tmpfs for");
        let dev = self.l.init.file_system("tmpfs", &[("mode", Some("0755".into()))], safe);
        self.attach_own(dev, target);
        for name in NODES {
            let path = Path::new("/dev").join(name);
            let node = self.source(&path, |program| {
                let source = program.open_source(&path);
                program.open_tree(source, "")
            });
            let init = &mut *self.l.init;
            init.step(Step::new("binding a device node").path(&path));
            init.create(dev, name, 0o666);
            init.move_mount_to(node, dev, name);
        }
        let init = &mut *self.l.init;
        init.step(Step::new("restricting the device nodes"));
        self.keep_private(dev, safe);
        let init = &mut *self.l.init;
        for (text, link) in LINKS {
            init.symlinkat(text, dev, link);
        }
        self.device_system(dev, "pts", "devpts", &[("ptmxmode", "0666"), ("mode", "0620")], safe);
        self.device_system(dev, "shm", "tmpfs", &[("mode", "1777")], Attributes::SAFE);
        if self.l.chosen.created.contains(Namespaces::IPC) {
            self.device_system(dev, "mqueue", "mqueue", &[], safe | Attributes::NODEV);
        }
        self.l.init.step(Step::new("making the devices' directory read-only"));
        self.set_top(dev, safe | Attributes::RDONLY);
    }

    /// A file system in a directory of `/dev`.
    fn device_system(&mut self, dev: Slot, name: &str, kind: &str, options: &[(&str, &str)], attributes: Attributes) {
        let init = &mut *self.l.init;
        init.step(
            Step::new(format!("mounting a {kind} file system in the sandbox's /dev"))
                .remedies(&[(libc::EPERM, "this host forbids mounts in user namespaces, or to this user")]),
        );
        let options: Vec<_> = options.iter().map(|&(key, value)| (key, Some(value.to_owned()))).collect();
        let mount = init.file_system(kind, &options, attributes);
        init.mkdirat(dev, name, 0o755);
        init.move_mount_to(mount, dev, name);
        init.close(mount);
    }
}
