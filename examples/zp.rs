use stockade::*;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let def = Sandbox::new().root(Root::host().mount(Bind::new(&dir,"/mnt").unmapped()));
    for _ in 0..50 { std::hint::black_box(def.plan(&Command::new("/mnt/true")).unwrap()); }
}
