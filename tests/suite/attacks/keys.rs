//! Keys (keyrings(7)), which belong to users and sessions, independent of namespaces.

use std::fs;
use std::io::Read;

use nix::errno::Errno;
use stockade::{Identity, Root};

use crate::attacks::common::{Attempts, attack, attack_by, attack_on_host, attempt, sandbox, unfiltered};
use crate::attacks::ipc::stay;
use crate::attacks::sys::{Word, call};
use crate::support::{is_root, payload_on_host, with_payload};

payloads![("caller_with_key", caller_with_key), ("read_key", read_key), ("leave_key", leave_key)];

const SESSION: i64 = libc::KEY_SPEC_SESSION_KEYRING as i64;
const USER: i64 = libc::KEY_SPEC_USER_KEYRING as i64;

fn add_key(description: &str, keyring: i64) -> nix::Result<i64> {
    let (kind, name) = (Word::Bytes(b"user\0"), format!("{description}\0"));
    let (secret, len) = (Word::Bytes(b"secret"), Word::Number(6));
    call(libc::SYS_add_key, &mut [kind, Word::Bytes(name.as_bytes()), secret, len, Word::Number(keyring)])
}

fn keyctl<const N: usize>(operation: u32, words: [Word; N]) -> nix::Result<i64> {
    let mut all = vec![Word::Number(operation.into())];
    all.extend(words);
    call(libc::SYS_keyctl, &mut all)
}

fn read(key: i64) -> nix::Result<()> {
    let mut room = [0; 6];
    keyctl(libc::KEYCTL_READ, [Word::Number(key), Word::Room(&mut room), Word::Number(6)])?;
    if room == *b"secret" { Ok(()) } else { Err(Errno::ENODATA) }
}

/// The ways to a key.
const WAYS: [&str; 4] = ["session", "user", "number", "listed"];

/// Looks for a key by its description in the keyrings that every process has, and in the list of all, and reads it by
/// its number.
fn read_key(args: &[String]) -> i32 {
    let name = format!("{}\0", args[0]);
    for (way, keyring) in [("session", SESSION), ("user", USER)] {
        let words = [Word::Number(keyring), Word::Bytes(b"user\0"), Word::Bytes(name.as_bytes()), Word::Number(0)];
        attempt(way, keyctl(libc::KEYCTL_SEARCH, words).and_then(read));
    }
    attempt("number", read(args[1].parse().unwrap()));
    let listed = fs::read_to_string("/proc/keys").map_err(|error| error.to_string());
    attempt("listed", listed.and_then(|list| list.contains(&args[0]).then_some(()).ok_or("absent".into())));
    0
}

/// Puts a key where another sandbox of the same caller might have it too.
fn leave_key(args: &[String]) -> i32 {
    attempt("left", add_key(&args[0], SESSION));
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
    0
}

/// A caller with a key in the keyring of its session, and one in that of its user which that user may read anywhere. It
/// makes sandboxes.
fn caller_with_key(_: &[String]) -> i32 {
    keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, [Word::Number(0)]).unwrap();
    let name = format!("stockade-test-{}", std::process::id());
    // Who possesses a key says who may do what: view, read and search, for its user too.
    let of_user = add_key(&name, SESSION).unwrap();
    keyctl(libc::KEYCTL_SETPERM, [Word::Number(of_user), Word::Number(0x3f0b_0000)]).unwrap();
    keyctl(libc::KEYCTL_LINK, [Word::Number(of_user), Word::Number(USER)]).unwrap();
    keyctl(libc::KEYCTL_UNLINK, [Word::Number(of_user), Word::Number(SESSION)]).unwrap();
    add_key(&name, SESSION).unwrap();
    let say = |who: &str, attempts: &Attempts| {
        WAYS.iter().for_each(|way| println!("{who} {way}: {}", attempts.get(way)));
    };
    let args = [name.as_str(), &of_user.to_string()];
    say("host", &attack_on_host("read_key", &args));
    let caller = sandbox().identity(Identity::caller());
    // A later operation covers an earlier one, the mask of /proc/keys too.
    let listing = caller.clone().root(with_payload(Root::host().proc("/proc")));
    let open = unfiltered(&caller);
    for (who, sandbox) in [("default", sandbox()), ("caller", caller), ("list", listing), ("open", open)] {
        say(who, &attack(&sandbox, "read_key", &args));
    }
    say("unfiltered", &attack(&unfiltered(&sandbox()), "read_key", &args));
    for (who, sandbox) in [("between", sandbox()), ("between unfiltered", unfiltered(&sandbox()))] {
        let theirs = format!("{name}-{who}").replace(' ', "-");
        let (child, left) = stay(&sandbox, "leave_key", &[&theirs], "ready");
        println!("{who} left: {}", left.get("left"));
        say(who, &attack(&sandbox, "read_key", &[&theirs, "0"]));
        drop(child);
    }
    // The session's go with this process.
    keyctl(libc::KEYCTL_UNLINK, [Word::Number(of_user), Word::Number(USER)]).unwrap();
    0
}

/// Attacks 19 and 20: Keys of the caller's session and user, those of another sandbox, and `/proc/keys`.
#[apply(test)]
fn keys_are_not_readable_from_other_sandboxes() {
    let attempts = attack_by(&mut payload_on_host("caller_with_key"));
    attempts.assert_done(&["host session", "host user", "host number", "host listed"]);
    for who in ["default", "caller", "between"] {
        WAYS.iter().for_each(|way| attempts.assert_refused(&[&format!("{who} {way}")]));
    }
    attempts.assert_refused(&["between left"]);
    // What the filter stops alone: the keyring of the session is inherited, by whatever user; and a key is its user's.
    attempts.assert_done(&["open session", "open number", "unfiltered session"]);
    attempts.assert_done(&["between unfiltered left", "between unfiltered session"]);
    // What others stop as well: the keyring of a user is another one in each user namespace, and so is the user of a
    // root caller's sandbox.
    attempts.assert_refused(&["open user", "unfiltered user", "between unfiltered user"]);
    assert_eq!(attempts.get("unfiltered number") == "done", !is_root());
    // And the mask alone the list.
    attempts.assert_done(&["list listed"]);
    attempts.assert_refused(&["open listed", "unfiltered listed"]);
}
