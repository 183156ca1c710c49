//! Errors of the library in the words of the command line: options and keys in place of methods of the builders.

use stockade::Error;

/// What the library says, and what the command line says instead. A text stands before its beginnings.
const WORDS: &[(&str, &str)] = &[
    ("add Layer::Landlock to Sandbox::best_effort", "add --best-effort landlock"),
    (
        "remove Layer::Cgroup from Sandbox::best_effort to get an error of spawn instead",
        "remove --best-effort cgroup to get an error instead",
    ),
    ("Sandbox::best_effort", "--best-effort"),
    ("Sandbox::setup_timeout", "--set setup_timeout=TIME"),
    ("Sandbox::cgroup", "--set cgroup=true"),
    ("Sandbox::nestable", "the key nestable"),
    ("Sandbox::landlock_fallback", "the key landlock_fallback"),
    ("Sandbox::landlock", "--landlock-ro, --landlock-rw and the key landlock"),
    ("Sandbox::allow_new_privs", "the key allow_new_privs"),
    ("Sandbox::keep_namespaces", "the key keep_namespaces"),
    ("Sandbox::join(…)", "--set join="),
    ("Sandbox::learn", "stockade learn"),
    ("add Namespaces::MOUNT and Namespaces::USER", "remove mount and user from --share"),
    ("add Namespaces::USER", "remove user from --share"),
    ("add Namespaces::MOUNT", "remove mount from --share"),
    ("add Namespaces::PID", "remove pid from --share"),
    ("add Namespaces::UTS", "remove uts from --share"),
    ("add Namespaces::TIME", "create a time namespace"),
    ("remove Namespaces::TIME", "remove --time-offset"),
    ("(Namespaces::MOUNT)", "(remove mount from --share)"),
    ("(Namespaces::PID)", "(--share pid)"),
    ("Namespaces::USER", "the user namespace"),
    ("Namespaces::NET", "the network namespace"),
    ("Root::bind_rw", "--rw"),
    ("Root::bind(…)", "--ro SRC:DST"),
    ("Root::protect", "--protect"),
    ("Root::read_only", "the key read_only"),
    ("Root::terminals", "--terminals"),
    ("Root::gpus", "the key gpus"),
    ("Root::dev(\"/dev\")", "--set 'mounts=[{ dev = \"/dev\" }]'"),
    ("Root::host()", "--root host"),
    ("Root::host", "--root host"),
    ("Root::empty", "--root empty"),
    ("Root::inherit()", "--root inherit"),
    ("Root::inherit", "--root inherit"),
    ("Root::from_dir_rw", "--set root.from_dir_rw="),
    ("Root::from_dir(\"/\")", "--root /"),
    ("Root::from_dir(…)", "--root PATH"),
    ("Root::from_dir", "--root PATH"),
    ("Root::from_overlay", "--set root.from_overlay="),
    ("use Overlay::new(\"/\"), or add it to another root with Root::with", "use --set root.from_overlay="),
    ("Overlay::lower", "the key lower"),
    ("Bind::unmapped", "the key unmapped of a bind"),
    ("HostPath::beneath", "the key beneath of a path"),
    ("HostPath::follow_symlinks", "the key follow_symlinks of a path"),
    ("Proc::hidepid", "the key hidepid of proc"),
    ("Proc::subset_pid", "the key subset_pid of proc"),
    ("Tmpfs::default_mode", "the key default_mode"),
    ("Identity::caller()", "--set identity=caller"),
    ("Identity::caller", "--set identity=caller"),
    ("Identity::sub_ids", "--set identity=sub_ids"),
    ("Identity::maps", "--set identity.maps="),
    ("Identity::host_ids(first, count)", "--set 'host_ids={ first = N, count = N }'"),
    ("Identity::host_ids", "--set host_ids="),
    ("Identity::new().uid(…).gid(…)", "--uid and --gid"),
    ("Identity::uid", "--uid"),
    ("Identity::gid", "--gid"),
    ("Cgroup::freezable", "--set freezable=true"),
    ("Cgroup::hidden", "--set cgroup_hidden=true"),
    ("Cgroup::memory_max", "--memory"),
    ("Cgroup::raw", "the key cgroup_raw"),
    ("CgroupParent::SystemdScope", "--cgroup-parent systemd"),
    ("CgroupParent::Path", "--cgroup-parent PATH"),
    ("CgroupParent::Auto", "--cgroup-parent auto"),
    ("(CgroupParent)", "(--cgroup-parent)"),
    ("Limits::cpu_time", "--cpu"),
    ("Limits::idle_timeout", "--idle"),
    ("Limits::rlimit(Resource::Core, 0, 0)", "--set rlimits.core=0"),
    ("Landlock::any_tcp", "in the key landlock: any_tcp"),
    ("Landlock::deny_write", "rules of the key landlock"),
    ("Landlock::deny", "rules of the key landlock"),
    ("FsAccess::READ_FILE", "read_file"),
    ("FsAccess::WRITE_FILE", "write_file"),
    ("Capabilities::drop_on_setuid", "the key drop_on_setuid"),
    ("remove Capability::SysAdmin", "remove sys_admin from --cap-add"),
    ("Seccomp::new", "--seccomp default"),
    ("Seccomp::record", "the key record"),
    ("Action::Notify", "the action notify"),
    ("Action::Kill", "the action kill"),
    ("Command::env", "--env"),
    ("Command::new(…)", "PROGRAM"),
    ("Command::new", "the command line"),
    ("Command::pty", "--pty"),
    ("Command::stdin", "standard input"),
    ("Child::freeze", "SIGTSTP"),
    ("see the table of keys in the documentation of stockade::config", "see `stockade keys`"),
    ("Learned::allow_paths", "its key paths"),
    (
        "use Sandbox::output, or Stdio::piped() and Child::wait_with_output",
        "remove the key of that stream from descriptors, and --pty",
    ),
];

/// Returns an error or a hint in the words of the command line.
pub fn in_words_of_options(text: &str) -> String {
    let words = WORDS.iter().fold(text.to_owned(), |text, (method, option)| text.replace(method, option));
    with_binds(&words)
}

/// Writes `.bind("/usr", "/usr")` as `--ro /usr`.
fn with_binds(text: &str) -> String {
    const CALL: &str = ".bind(\"";
    let mut parts = text.split(CALL);
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("\")") {
            Some((paths, rest)) => {
                let (source, target) = paths.split_once("\", \"").unwrap_or((paths, paths));
                written.push_str("--ro ");
                written.push_str(source);
                if source != target {
                    written.push(':');
                    written.push_str(target);
                }
                written.push_str(rest);
            }
            None => {
                written.push_str(CALL);
                written.push_str(part);
            }
        }
    }
    written
}

/// Returns an error of the library about the value of an option.
pub fn as_message(error: &Error) -> String {
    in_words_of_options(&error.to_string())
}

/// Returns an error about a setting, which is a text of one line.
pub fn of_setting(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to read the configuration: ").unwrap_or(&text);
    in_words_of_options(text.strip_prefix("line 1: ").unwrap_or(text))
}
