//! Another target than those that the crate is written for fails here, with one sentence and before anything else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") != "linux" || !["x86_64", "aarch64"].contains(&target("ARCH").as_str()) {
        println!(
            "cargo::error=stockade runs on Linux on x86_64 and aarch64 alone: it is made of that kernel's own system calls"
        );
    }
}
