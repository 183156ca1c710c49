//! The JSON Schema of `docs/config.schema.json`: it is that of the code, and accepts the examples.

use std::fs;
use std::path::PathBuf;

use regex::Regex;
use serde_json::{Map, Value};
use stockade::config::{Config, examples, schema};

use crate::{json, toml};

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// With `STOCKADE_WRITE_SCHEMA` set, this writes the file.
#[test]
fn the_file_has_the_schema_of_the_code() {
    let path = root().join("docs/config.schema.json");
    let generated = format!("{:#}\n", schema());
    if std::env::var_os("STOCKADE_WRITE_SCHEMA").is_some() {
        fs::write(&path, &generated).expect("the file is written");
    }
    let written = fs::read_to_string(&path).expect("docs/config.schema.json");
    assert!(written == generated, "docs/config.schema.json is out of date: run this test with STOCKADE_WRITE_SCHEMA=1");
}

/// Returns what a schema finds wrong in a value. It knows the keywords that the schema of the crate uses, and fails at any
/// other, so that none is ignored.
fn faults(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let object = match schema {
        Value::Bool(true) => return vec![],
        Value::Bool(false) => return vec![format!("{place}: nothing is accepted")],
        Value::Object(object) => object,
        other => panic!("{other} is no schema"),
    };
    object.iter().flat_map(|(keyword, of)| keyword_faults(root, object, (keyword, of), value, place)).collect()
}

fn keyword_faults(
    root: &Value,
    schema: &Map<String, Value>,
    (keyword, of): (&str, &Value),
    value: &Value,
    place: &str,
) -> Vec<String> {
    let when = |is_wrong: bool, what: String| if is_wrong { vec![format!("{place}: {what}")] } else { vec![] };
    match keyword {
        "$schema" | "$defs" | "title" | "description" | "examples" | "default" | "format" => vec![],
        "$ref" => {
            let pointer = of.as_str().and_then(|path| path.strip_prefix('#')).expect("a reference in the same file");
            faults(root, root.pointer(pointer).expect("a definition"), value, place)
        }
        "type" => {
            let names: Vec<&Value> = of.as_array().map_or_else(|| vec![of], |names| names.iter().collect());
            let is = |name: &Value| match name.as_str().expect("the name of a type") {
                "string" => value.is_string(),
                "integer" => value.is_u64() || value.is_i64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                other => panic!("unknown type {other}"),
            };
            when(!names.into_iter().any(is), format!("{value} is no {of}"))
        }
        "const" => when(of != value, format!("{value} is not {of}")),
        "enum" => when(!of.as_array().expect("a list").contains(value), format!("{value} is none of {of}")),
        "minimum" => when(value.as_f64() < of.as_f64() && value.is_number(), format!("{value} is less than {of}")),
        "maximum" => when(value.as_f64() > of.as_f64() && value.is_number(), format!("{value} is more than {of}")),
        "pattern" => {
            let pattern = Regex::new(of.as_str().expect("a regular expression")).expect("a regular expression");
            let text = value.as_str();
            when(text.is_some_and(|text| !pattern.is_match(text)), format!("{value} does not match {of}"))
        }
        "anyOf" | "oneOf" => {
            let found: Vec<Vec<String>> =
                of.as_array().expect("a list").iter().map(|one| faults(root, one, value, place)).collect();
            let matching = found.iter().filter(|faults| faults.is_empty()).count();
            when(
                matching == 0 || keyword == "oneOf" && matching > 1,
                format!("{matching} alternatives match: {found:?}"),
            )
        }
        "minItems" => {
            let least = of.as_u64().expect("a number") as usize;
            when(value.as_array().is_some_and(|items| items.len() < least), format!("{place} has too few items"))
        }
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            items.flat_map(|(index, item)| faults(root, of, item, &format!("{place}[{index}]"))).collect()
        }
        "required" => {
            let missing = |name: &&Value| value.is_object() && value.get(name.as_str().expect("a name")).is_none();
            let missing: Vec<&Value> = of.as_array().expect("a list").iter().filter(missing).collect();
            when(!missing.is_empty(), format!("{missing:?} are missing"))
        }
        "properties" => {
            let known = of.as_object().expect("properties").iter();
            known
                .flat_map(|(name, of)| match value.get(name) {
                    Some(value) => faults(root, of, value, &format!("{place}.{name}")),
                    None => vec![],
                })
                .collect()
        }
        "additionalProperties" => {
            let is_known = |name: &String| schema.get("properties").is_some_and(|known| known.get(name).is_some());
            let others = value.as_object().into_iter().flatten().filter(|(name, _)| !is_known(name));
            others.flat_map(|(name, value)| faults(root, of, value, &format!("{place}.{name}"))).collect()
        }
        other => panic!("the keyword {other} is unknown to this test: teach it"),
    }
}

fn schema_faults(value: &Value) -> Vec<String> {
    let schema = schema();
    faults(&schema, &schema, value, "")
}

fn of_toml(text: &str) -> Value {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_schema_accepts_every_example_of_a_key() {
    for (key, example) in examples() {
        assert_eq!(schema_faults(&of_toml(example)), [""; 0], "{key}");
    }
}

/// Texts that differ from an accepted one in one thing.
const REFUSED: &[&str] = &[
    "memmory = 1",
    "memory = true",
    "memory = -1",
    "memory = '64m'",
    "memory = '64Mi'",
    "memory = '-1'",
    "memory = ''",
    "swap = 'none'",
    "pids = '1K'",
    "wall_time = '10'",
    "wall_time = '1M'",
    "kill_grace = 'soon'",
    "rlimits = { stack = '8 mib' }",
    "profile = 'agnt'",
    "rw = 'work:/work'",
    "rw = [1]",
    "rw = [{ source = 'a' }]",
    "rw = [{ source = 'a', target = '/a', writeable = true }]",
    "rw = [{ source = { path = 'a', beneth = '/' }, target = '/a' }]",
    "share = ['nett']",
    "env = { A = 1 }",
    "env = ['A']",
    "pty = 'yes'",
    "umask = 22",
    "uid = -1",
    "connect = [65536]",
    "best_effort = ['cgroups']",
    "rlimits = { nofile = true }",
    "rlimits = { nofile = { soft = 1 } }",
    "seccomp = 1",
    "seccomp = { rules = [{ call = 'read' }] }",
    "seccomp = { rules = [{ call = 'read', action = 'alow' }] }",
    "landlock = { rules = [{ path = '/', access = ['reed_only'] }] }",
    "learned = { cals = [] }",
    "mounts = ['network_namen']",
    "mounts = [{ bind = { source = '/a', target = '/a', writeable = true } }]",
    "io_max = { '/dev/sda' = { read_byte = 1 } }",
    "identity = 'me'",
    "host_ids = { first = 1 }",
    "descriptors = { 3 = { red = 'a' } }",
    "root = { from_dirr = '/a' }",
    "version = 2",
    "time_offsets = [1, 2]",
    "host_ids = [1, 2]",
    "mounts = [{ bind = [] }]",
    "mounts = [{ symlink = ['a', '/b'] }]",
    "identity = { maps = [[], []] }",
    "seccomp = []",
    "connect = []",
    "bind_port = []",
    "landlock_ro = []",
    "landlock_rw = []",
    "learned = []",
];

/// What the schema refuses, the crate refuses, so that an editor shows no error that is none.
#[test]
fn the_schema_and_the_crate_refuse_the_same() {
    for text in REFUSED {
        assert_ne!(schema_faults(&of_toml(text)), [""; 0], "the schema accepts {text}");
        assert!(toml(text).is_err(), "the crate accepts {text}");
    }
}

/// Forms of sizes, durations and names that differ in spelling alone.
const ACCEPTED: &[&str] = &[
    "memory = '64M'",
    "memory = '64 KiB'",
    "memory = '1.5G'",
    "memory = '4096'",
    "memory = '1.0'",
    "swap = 'unlimited'",
    "pids = '0x1f'",
    "pids = '31'",
    "wall_time = '1h30min'",
    "wall_time = '1d2h3m4s5ms6us7ns'",
    "wall_time = '5µs'",
    "wall_time = 1.5",
    "rlimits = { stack = { soft = '8M', hard = 'unlimited' } }",
    "umask = '0o77'",
    "profile = 'compile_untrusted'",
];

/// So that an editor shows no error that is none.
#[test]
fn the_schema_and_the_crate_accept_the_same() {
    for text in ACCEPTED {
        assert_eq!(schema_faults(&of_toml(text)), [""; 0], "the schema refuses {text}");
        toml(text).unwrap_or_else(|error| panic!("the crate refuses {text}: {error}"));
    }
}

fn files() -> Vec<PathBuf> {
    let directory = fs::read_dir(root().join("examples/config")).expect("examples/config").flatten();
    let is_config = |path: &PathBuf| path.extension().is_some_and(|it| it == "toml" || it == "json");
    directory.map(|entry| entry.path()).filter(is_config).collect()
}

#[test]
fn the_schema_accepts_every_file_of_the_examples() {
    let files = files();
    assert!(files.len() >= 9, "{files:?}");
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let value = if is_json { serde_json::from_str(&text).expect("JSON") } else { of_toml(&text) };
        assert_eq!(schema_faults(&value), [""; 0], "{}", path.display());
        let config = Config::read(&path).unwrap_or_else(|error| panic!("{error}"));
        config.sandbox().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(config.command.is_some(), "{} has a command", path.display());
    }
}

/// In JSON as in TOML. Two keys need others.
#[test]
fn every_example_of_a_key_is_read_from_json_too() {
    for (key, example) in examples() {
        let text = match *key {
            "drop_on_setuid" => format!("{example}\ncapabilities = ['kill']"),
            "cpu_period" => format!("{example}\ncpus = 1"),
            _ => (*example).to_owned(),
        };
        let read = json(&of_toml(&text).to_string()).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(read, toml(&text).unwrap_or_else(|error| panic!("{key}: {error}")), "{key}");
        assert_ne!(read, Config::default(), "{key}");
    }
}

/// Each key has one row, in the order of the code, with the example of the code.
#[test]
fn the_documentation_has_every_key() {
    let text = fs::read_to_string(root().join("docs/config.md")).expect("docs/config.md");
    let schema = schema();
    let properties = schema["properties"].as_object().expect("keys");
    for key in properties.keys() {
        let rows = text.lines().filter(|line| line.starts_with(&format!("| `{key}` |"))).count();
        assert_eq!(rows, 1, "rows of the key {key} in docs/config.md");
    }
    let known = |line: &str| {
        let key = line.strip_prefix("| `")?.split('`').next()?.to_owned();
        Some(key).filter(|key| !properties.contains_key(key))
    };
    let unknown: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 4)
        .filter_map(known)
        .collect();
    assert_eq!(unknown, [""; 0], "rows that are no keys");
    for (key, example) in examples() {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{key}` |"))).expect("a row");
        assert!(row.contains(&format!("`{example}`")), "the row of {key} has the example `{example}`: {row}");
    }
}
