use stockade::*;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let s = Sandbox::new();
    let mut c = Command::new(&a[0]);
    c.args(&a[1..]);
    if std::env::var("PLAN").is_ok() {
        println!("{}", s.plan(&c).unwrap());
        return;
    }
    match s.status(&c) {
        Ok(o) => println!("{o}\n{:?}", o),
        Err(e) => println!("ERR {e}"),
    }
}
