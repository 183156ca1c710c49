use stockade::*;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let mut s = Sandbox::new(); if std::env::var("F").is_ok() { s = s.root(Root::host().file("/file","x\n").mask("/etc").overlay("/usr","/ov")); }
    let mut c = Command::new(&a[0]);
    c.args(&a[1..]);
    if std::env::var("PLAN").is_ok() { println!("{}", s.plan(&c).unwrap()); return; }
    match s.status(&c) { Ok(o) => println!("{o}"), Err(e) => println!("ERR {e}") }
}
