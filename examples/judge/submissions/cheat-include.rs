// Expected: Compile error
// Has the compiler include the answer.
fn main() {
    print!("{}", include_str!("/proc/self/cwd/examples/judge/tests/1.out"));
}
