//! The name of the test that runs: what the harness is asked to run once more.

use std::thread;

/// Returns the names that the test may have, the likeliest first. The process that runs one of them reports whether it
/// was a test at all, so a wrong one is harmless.
///
/// - libtest gives the thread of a test its name, cargo-nextest passes it as an argument: `--exact NAME`.
/// - The type of a closure has the path of the function in which it was written: `krate::module::name::{{closure}}`. It
///   is that of the test, unless a function that the test calls has the closure.
pub(super) fn candidates<F>() -> Vec<String> {
    let thread = thread::current().name().filter(|name| *name != "main").map(str::to_owned);
    let mut names: Vec<String> = [exact(std::env::args()), thread].into_iter().flatten().collect();
    names.extend(function(std::any::type_name::<F>()).map(str::to_owned));
    let mut seen = vec![];
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    names
}

/// Returns the one test that the arguments of a harness name.
fn exact(args: impl Iterator<Item = String>) -> Option<String> {
    let args: Vec<String> = args.skip(1).collect();
    let mut named = args.iter().filter(|arg| !arg.starts_with('-'));
    let only = named.next().filter(|_| named.next().is_none());
    only.filter(|_| args.iter().any(|arg| arg == "--exact")).cloned()
}

/// Returns the path of the function in which a closure was written, without the crate.
fn function(closure: &str) -> Option<&str> {
    let (_, path) = closure.split_once("::")?;
    let path = path.split("::{{closure}}").next()?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_name_one_test_or_none() {
        let named = |line: &str| exact(line.split(' ').map(str::to_owned));
        assert_eq!(named("binary --exact a::b --nocapture").as_deref(), Some("a::b"));
        assert_eq!(named("binary a::b --nocapture"), None);
        assert_eq!(named("binary --exact a::b a::c"), None);
        assert_eq!(named("binary --exact"), None);
    }

    #[test]
    fn a_closure_tells_its_function() {
        fn path<F>(_: F) -> Option<&'static str> {
            function(std::any::type_name::<F>())
        }
        let own = "test::test_name::tests::a_closure_tells_its_function";
        assert_eq!(path(|| ()), Some(own));
        let within = || path(|| ());
        assert_eq!(within(), Some(own));
        assert_eq!(function("u32"), None);
    }

    #[test]
    fn the_thread_of_a_test_has_its_name() {
        let own = "test::test_name::tests::the_thread_of_a_test_has_its_name";
        assert_eq!(candidates::<()>(), [own]);
        let unnamed = thread::spawn(candidates::<fn()>).join().expect("a thread");
        assert!(unnamed.iter().all(|name| name == own), "{unnamed:?}");
    }
}
