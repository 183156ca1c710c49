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
    ("Root::bind", "--ro"),
    ("Root::protect", "--protect"),
    ("Root::read_only", "the key read_only"),
    ("Root::terminals", "--terminals"),
    ("Root::gpus", "the key gpus"),
    ("Root::dev(\"/dev\")", "--set 'mounts=[{ dev = \"/dev\" }]'"),
    ("Root::host()", "--root host"),
    ("Root::host", "--root host"),
    ("Root::empty", "--root empty"),
    ("Root::system", "--root system"),
    ("Root::inputs", "the operation inputs of the key mounts"),
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
    ("Seccomp::unconfined", "--seccomp unconfined"),
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::in_words_of_options;

    /// Types whose methods no option or key calls: an error about them cannot come from this command.
    const UNUSED: [&str; 5] = ["Collector", "Config", "Isolated", "Pool", "Session"];
    /// Methods that only code calls.
    const OF_CODE: [&str; 7] = [
        "Child::pty",
        "Child::wait",
        "Command::stderr",
        "Command::stdout",
        "Sandbox::spawn",
        "Sandbox::spawn_supervised",
        "Sandbox::start",
    ];

    /// The texts in the sources of the library, without comments and tests.
    fn texts(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("bin") {
                texts(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let source = fs::read_to_string(&path).expect("a source file");
                let code = source.split("\nmod tests {").next().unwrap_or_default();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let code = lines.map(|line| line.trim().trim_end_matches('\\')).collect::<Vec<_>>().join("");
                found.extend(
                    code.replace("\\\"", "\u{1}").split('"').skip(1).step_by(2).map(|text| text.replace('\u{1}', "\"")),
                );
            }
        }
    }

    /// The methods of builders that a text names: `Root::bind`.
    fn methods(text: &str) -> Vec<String> {
        let parts = text.match_indices("::").filter_map(|(at, _)| {
            let before = text[..at].rsplit(|letter: char| !letter.is_alphanumeric()).next()?;
            let after = text[at + 2..].split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
            let is_method = before.starts_with(char::is_uppercase) && after.starts_with(char::is_alphabetic);
            is_method.then(|| format!("{before}::{after}"))
        });
        parts.collect()
    }

    #[test]
    fn every_method_that_an_error_names_has_words_of_the_command_line() {
        let mut found = vec![];
        texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        // Code in which a quote is no text is found too; what it names is no prose.
        let prose: Vec<String> =
            found.into_iter().filter(|text| text.contains(' ') && !text.contains([';', '\n'])).collect();
        let named: Vec<&String> = prose.iter().filter(|text| !methods(text).is_empty()).collect();
        assert!(named.len() > 80, "errors were found: {}", named.len());
        for text in named {
            let words = in_words_of_options(text);
            let left: Vec<String> = methods(&words)
                .into_iter()
                .filter(|method| !OF_CODE.contains(&method.as_str()))
                .filter(|method| !UNUSED.iter().any(|kind| method.starts_with(&format!("{kind}::"))))
                .collect();
            assert!(left.is_empty(), "{left:?} of {text:?}: write what the command line says to the table");
            assert!(!words.contains(".bind("), "{words}");
        }
    }

    #[test]
    fn binds_are_options() {
        let words = in_words_of_options(r#"bind it: .bind("/a", "/b") and .bind("/c", "/c")"#);
        assert_eq!(words, "bind it: --ro /a:/b and --ro /c");
    }
}
