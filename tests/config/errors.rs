//! What is wrong in a text is named with its line, its key, and what to do.

use std::fs;

use proptest::prelude::*;
use stockade::config::{Config, ConfigFormat, examples};
use stockade::{ErrorKind, Sandbox};

use crate::{BASE, json, toml};

/// Returns the message without its beginning.
#[track_caller]
fn message(result: stockade::Result<Config>, text: &str) -> String {
    let error = result.err().unwrap_or_else(|| panic!("it is accepted: {text}"));
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    let message = error.to_string();
    message.strip_prefix("failed to read the configuration: ").unwrap_or_else(|| panic!("{message}")).to_owned()
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    for (text, expected) in [
        ("memmory = 1", "line 1: unknown key `memmory`: use `memory`"),
        ("\n\n  wall-time = '1s'", "line 3: unknown key `wall-time`: use `wall_time`"),
        ("rw = ['a']\nporfile = 'test'", "line 2: unknown key `porfile`: use `profile`"),
        ("xyzzy = 1", "line 1: unknown key `xyzzy`: see the table of keys in the documentation of stockade::config"),
        (
            "rw = [\n  'a:/a',\n  { source = 'b', target = '/b', writeable = true },\n]",
            "line 3: `rw[1]`: unknown key `writeable`: use `writable`",
        ),
        (
            "[[mounts]]\n[mounts.bind]\nsource = 'a'\ntraget = 'b'",
            "line 4: `mounts[0].bind`: unknown key `traget`: use `target`",
        ),
        ("[seccomp]\n\n[[seccomp.rules]]\ncal = 'read'", "line 4: `seccomp.rules[0]`: unknown key `cal`: use `call`"),
        ("[time_offsets]\nboot_time = 1", "line 2: `time_offsets`: unknown key `boot_time`: use `boottime`"),
        (
            "[time_offsets]\nboottime = 1\nmemory = 1",
            "line 3: `time_offsets`: unknown key `memory`: move `memory` to the top of the file, above the first table",
        ),
        (
            "calls = ['read']",
            "line 1: unknown key `calls`: name the file in the key `learned`: it is a policy that \
             learn wrote, and no configuration",
        ),
        ("rlimits.nofiles = 1", "line 1: `rlimits`: unknown name \"nofiles\": use `nofile`"),
    ] {
        assert_eq!(message(toml(text), text), expected, "{text}");
    }
}

#[test]
fn json_is_refused_in_the_same_words() {
    for (text, expected) in [
        ("{\n\"memmory\": 1}", "line 2: unknown key `memmory`: use `memory`"),
        (
            "{ \"rw\": [\n\"a:/a\",\n{ \"source\": \"b\",\n\"target\": \"/b\", \"writeable\": true }]}",
            "line 4: `rw[1]`: unknown key `writeable`: use `writable`",
        ),
        ("{\n\"pids\": 1,\n\"pids\": 2 }", "line 3: the key `pids` is given twice: remove one"),
        ("{ \"env\": {\n\"A\": \"1\",\n\"A\": \"2\" } }", "line 3: `env`: the key `A` is given twice: remove one"),
        (
            "{\n\"memory\": null }",
            "line 2: `memory`: expected a value, found null: write it as `\"memory\":\"256MiB\"`",
        ),
        (
            "{\n\n\"pids\": [1] }",
            "line 3: `pids`: expected a number, or text such as \"0x1f\", found a list: write it as `\"pids\":64`",
        ),
        ("{\n\"pids\": 1,\n}", "line 3: it is not JSON: key must be a string: change the text there"),
        ("", "line 1: it is not JSON: EOF while parsing a value: change the text there"),
        ("[]", "line 1: expected a table, found a list: change the text there"),
        ("{} {}", "line 1: it is not JSON: trailing characters: change the text there"),
    ] {
        assert_eq!(message(json(text), text), expected, "{text}");
    }
}

#[test]
fn a_value_that_a_key_does_not_take_is_refused_with_what_it_takes() {
    for (text, parts) in [
        (
            "memory = '256m'",
            ["line 1: `memory`: invalid value: \"256m\", expected a size", "write it as `memory = \"256MiB\"`"],
        ),
        ("memory = -1", ["`memory`: invalid value: -1, expected a size", "`memory = \"256MiB\"`"]),
        ("memory = '1e3'", ["`memory`: invalid value: \"1e3\"", "`memory = \"256MiB\"`"]),
        ("wall_time = '10'", ["`wall_time`: invalid value: \"10\", expected a duration", "`wall_time = \"1m30s\"`"]),
        ("\nprofile = 'agnt'", ["line 2: `profile`: unknown name \"agnt\"", "use `agent`"]),
        (
            "profile = 'server'",
            [
                "`profile`: unknown name \"server\"",
                "use one of `build_step`, `test`, `compile_untrusted`, `judge`, `agent`",
            ],
        ),
        ("share = ['net', 'nett']", ["`share[1]`: unknown namespace \"nett\"", "use \"net\""]),
        ("pty = 'yes'", ["`pty`: expected true or false, found the text \"yes\"", "write it as `pty = true`"]),
        (
            "uid = 4294967296",
            ["`uid`: expected a whole number from 0 to 4294967295, found the number 4294967296", "`uid = 1000`"],
        ),
        ("connect = [70000]", ["`connect[0]`: expected a whole number from 0 to 65535", "`connect = [443]`"]),
        ("rw = 'a:/a'", ["`rw`: expected a list, found the text \"a:/a\"", "`rw = [\"work:/work\""]),
        (
            "rw = ['a:b:/c']",
            ["`rw[0]`: \"a:b:/c\" is not a bind", "it has more than one colon, so a table must name the parts"],
        ),
        ("rw = [':/c']", ["`rw[0]`: \":/c\" is not a bind", "the part before or after the colon is empty"]),
        ("rw = [{ source = 'a' }]", ["`rw[0]`: the key `target` is missing", "add `target`"]),
        ("tmpfs = ['/a:64m']", ["`tmpfs[0]`: \"/a:64m\" is not a tmpfs", "such as \"256MiB\""]),
        ("overlay = ['/a']", ["`overlay[0]`: \"/a\" is not an overlay", "it has no colon"]),
        ("env = ['A=b']", ["`env`: expected a table, found a list", "`env = { LANG = \"C.UTF-8\" }`"]),
        ("env = { A = 1 }", ["`env.A`: expected text in quotes, found the number 1", "write it as `env"]),
        ("capabilities = ['net_row']", ["`capabilities[0]`: unknown capability \"net_row\": use \"CAP_NET_RAW\"", ""]),
        (
            "seccomp = 'contaner'",
            ["`seccomp`: \"contaner\" is not a seccomp policy", "use \"container\", or \"./contaner\" for a file"],
        ),
        ("root = 'hots'", ["`root`: unknown root \"hots\": use \"host\", or \"./hots\" for a directory", ""]),
        ("learned = 'learned.rs'", ["`learned`: \"learned.rs\" is not the path of a file", "it is Rust code"]),
        ("rlimits = { core = 'none' }", ["`rlimits.core`: invalid value: \"none\"", "`rlimits = { nofile = 256"]),
        ("descriptors = { 03 = 'null' }", ["`descriptors`: \"03\" is not the number of a descriptor", "write it as"]),
        (
            "descriptors = { 3 = { read = 'a', write = 'b' } }",
            ["`descriptors.3`: expected a table with one key, found 2 keys", ""],
        ),
        ("hostname = 2020-01-01", ["`hostname`: expected text in quotes, found a date", "`hostname = \"box\"`"]),
        ("cpus = nan", ["`cpus`: expected a finite number", "`cpus = 1.5`"]),
        ("best_effort = ['seccom']", ["`best_effort[0]`: unknown name \"seccom\"", "use `seccomp`"]),
        ("umask = 22", ["`umask`: invalid value: 22, expected a file mode as octal text", "`umask = \"0077\"`"]),
        ("root = ''", ["`root`: unknown root \"\": use \"host\"", ""]),
        ("root = {}", ["`root`: expected a name or a table, found a table", ""]),
        ("connect = []", ["`connect`: an empty list would be no restriction", "remove the key"]),
        ("bind_port = []", ["`bind_port`: an empty list would be no restriction", "remove the key"]),
        ("landlock_ro = []", ["`landlock_ro`: an empty list would be no restriction", "remove the key"]),
        ("landlock_rw = []", ["`landlock_rw`: an empty list would be no restriction", "remove the key"]),
        ("nice = 1.0", ["`nice`: expected a whole number, found the number 1.0", ""]),
        ("version = 2", ["`version`: this version of the crate reads version 1", "use 1, or remove it"]),
    ] {
        let said = message(toml(text), text);
        assert!(parts.iter().all(|part| said.contains(part)), "{text}: {said}");
    }
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    for (text, line) in [
        ("a = 1\nmemory = 256MiB", 2),
        ("[env", 1),
        ("x = 'a\n", 1),
        ("pids = 1\npids = 2", 2),
        ("env.A = 'b'\n\n[env]\n", 3),
    ] {
        let said = message(toml(text), text);
        assert!(said.starts_with(&format!("line {line}: it is not TOML: ")), "{text:?}: {said}");
    }
}

/// It would be an absent value: no limit, for example. Tables of the stored form have it.
#[test]
fn null_is_refused_at_any_depth() {
    for (text, place) in [
        ("{ \"io_max\": { \"/dev/sda\": {\n\"read_bytes\": null } } }", "line 2: `io_max./dev/sda.read_bytes`"),
        ("{ \"tmpfs\": [{ \"target\": \"/x\",\n\n\"size\": null }] }", "line 3: `tmpfs[0].size`"),
        ("{ \"landlock\": null }", "line 1: `landlock`"),
    ] {
        let said = message(json(text), text);
        assert!(said.starts_with(&format!("{place}: expected a value, found null")), "{text}: {said}");
    }
    let stored = "{ \"mounts\": [{ \"tmpfs\": { \"target\": \"/x\", \"size\": null } }] }";
    assert_eq!(json(stored).expect("the stored form"), toml("mounts = [{ tmpfs = { target = '/x' } }]").expect("TOML"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    for (text, format) in [("hostname = 'a'", ConfigFormat::Toml), ("{ \"hostname\": \"a\" }", ConfigFormat::Json)] {
        let marked = Config::parse(&format!("\u{feff}{text}"), format, BASE).expect("a text with a byte order mark");
        assert_eq!(marked, toml("hostname = 'a'").expect("TOML"));
    }
}

/// In TOML it would be a variable, and the limit would be lost.
#[test]
fn a_key_below_the_header_of_env_is_refused() {
    let text = "profile = 'test'\n[env]\nLANG = 'C'\nmemory = '1GiB'";
    let expected = "line 4: `env`: `memory` is a key of the configuration: move it above the table `env`";
    assert_eq!(message(toml(text), text), expected);
    assert!(toml("[env]\nMEMORY = '1GiB'").is_ok());
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (text, expected) in [
        ("ro = ['a:/x']\n\nrw = ['b:/x']", "line 3: \"/x\" is the target of both `ro` and `rw`"),
        ("ro = ['a:/x', 'b:/x/']", "line 1: \"/x/\" is the target of both `ro` and `ro`"),
        ("mask = ['/x']\ntmpfs = ['/x']", "line 2: \"/x\" is the target of both `tmpfs` and `mask`"),
        (
            "ro = [{ source = 'a', target = '/x', writable = true }]",
            "line 1: the bind of \"/x\" in `ro` is to be writable",
        ),
        ("share = ['uts']\nhostname = 'a'", "line 2: `hostname` needs a namespace that is shared with the caller"),
        ("join = [{ namespaces = [], pid = 1 }]", "line 1: an entry of `join` has no namespaces"),
        ("pty = true\nstdout_max = '1K'", "line 2: `stdout_max` limits output that is collected, and `pty` sends it"),
        (
            "stderr_max = '1K'\ndescriptors = { 2 = { write = 'a' } }",
            "line 2: `stderr_max` limits output that is collected, and `descriptors` sends it elsewhere",
        ),
        ("share = ['net']\njoin = [{ namespaces = ['net'], pid = 1 }]", "line 2: a namespace is both shared"),
        (
            "join = [{ namespaces = ['net'], pid = 1 }, { namespaces = ['net'], pid = 2 }]",
            "line 1: a namespace is joined twice",
        ),
        ("share = ['time']\ntime_offsets = { boottime = 1 }", "line 2: `time_offsets` needs a namespace"),
        ("landlock = {}\nconnect = [1]", "line 2: `landlock` is a whole policy, and `connect` a rule of another"),
        ("drop_on_setuid = true", "line 1: `drop_on_setuid` is about capabilities, of which the program keeps none"),
        ("env = { A = 'b' }\nenv_remove = ['A']", "line 2: the variable \"A\" is both set and removed"),
        ("memory = 1\ncgroup = false", "line 2: `memory` needs a cgroup, and `cgroup` is false"),
        ("cpu_period = '1s'", "line 1: `cpu_period` is about `cpus`, which is missing"),
        ("pty = true\nnew_session = false", "line 2: a program on a pseudo-terminal has a session of its own"),
        (
            "pty = true\ndescriptors = { 1 = 'null' }",
            "line 2: the descriptor 1 is both the pseudo-terminal and another",
        ),
    ] {
        let said = message(toml(text), text);
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

/// Settings that only the crate knows to contradict each other are refused when the sandbox is compiled.
#[test]
fn layers_that_contradict_each_other_are_refused() {
    for text in [
        "share = ['mount']\nrw = ['/tmp:/x']",
        "nestable = true\nlandlock_ro = ['/']",
        "best_effort = ['identity']",
        "tmpfs = ['x']",
    ] {
        let sandbox = toml(text).and_then(|config| config.sandbox()).unwrap_or_else(|error| panic!("{error}: {text}"));
        let error =
            sandbox.plan(stockade::Command::new("true")).err().unwrap_or_else(|| panic!("it is accepted: {text}"));
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{text}: {error}");
    }
}

#[test]
fn the_error_of_a_file_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sandbox.json");
    fs::write(&file, "{\n  \"memmory\": 1\n}").expect("a file");
    let error = Config::read(&file).expect_err("an unknown key");
    assert_eq!((error.kind(), error.path()), (ErrorKind::InvalidConfiguration, Some(&*file)));
    let expected =
        format!("failed to read the configuration {}: line 2: unknown key `memmory`: use `memory`", file.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(Sandbox::from_config_file(&file).expect_err("an unknown key").to_string(), expected);
    fs::write(&file, b"{ \"hostname\": \"\xff\" }").expect("a file");
    assert!(Config::read(&file).expect_err("no UTF-8").to_string().contains("it is not UTF-8"));
    let missing = Config::read(dir.path().join("missing.toml")).expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::Io);
    fs::write(&file, " ".repeat((4 << 20) + 1)).expect("a file");
    assert!(Config::read(&file).expect_err("a long file").to_string().contains("longer than 4 MiB"));
}

#[test]
fn what_is_nested_deeply_is_refused() {
    for depth in [1000, 100_000] {
        let lists = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let tables = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for text in [format!("{{\"env\": {lists}}}"), lists.clone(), tables] {
            message(json(&text), "a deep text");
        }
        message(toml(&format!("env = {lists}")), "a deep text");
        message(toml(&format!("{} = 1", vec!["a"; depth].join("."))), "a deep key");
    }
}

/// Pieces of texts, so that many are almost right.
fn almost() -> impl Strategy<Value = String> {
    let keys: Vec<String> =
        examples().iter().flat_map(|(key, example)| [(*key).to_owned(), (*example).to_owned()]).collect();
    let marks = [
        "=",
        "\n",
        " ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "'",
        "\\",
        "#",
        "1",
        "-1",
        "1.5",
        "nan",
        "true",
        "null",
        "''",
        "é",
        "\0",
        "[env]",
        "[[mounts]]",
    ];
    let piece =
        prop_oneof![prop::sample::select(keys), prop::sample::select(marks.map(str::to_owned).to_vec()), "\\PC{0,6}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in almost()) {
        for format in [ConfigFormat::Toml, ConfigFormat::Json] {
            match Config::parse(&text, format, BASE) {
                Ok(config) => drop((config.sandbox(), config.clone().overridden_by(config))),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidConfiguration),
            }
        }
    }

    /// A change of one example is an error with a line, or another configuration: never the same.
    #[test]
    fn a_changed_example_is_not_taken_for_the_example(
        (_, example) in prop::sample::select(examples()),
        at in any::<prop::sample::Index>(),
        letter in prop::sample::select(&['x', '0', '"', '=', '{', ']', '.', '/']),
    ) {
        let mut changed: Vec<char> = example.chars().collect();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != letter && !changed[at].is_whitespace());
        changed[at] = letter;
        let changed: String = changed.into_iter().collect();
        match toml(&changed) {
            Ok(config) => prop_assert_ne!(config, toml(example).expect("the example"), "{}", changed),
            Err(error) => prop_assert!(error.to_string().contains("line 1: "), "{}", error),
        }
    }
}
