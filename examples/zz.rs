use stockade::*;
use std::time::Instant;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let root = Root::empty().mount(Bind::new("/usr","/usr").unmapped()).mount(Bind::new(&dir,"/bin").unmapped()).proc("/proc");
    let all = Sandbox::new().namespaces(Namespaces::all()-Namespaces::TIME).root(root);
    let nonet = all.clone().namespaces(Namespaces::all()-Namespaces::TIME-Namespaces::NET);
    let def = Sandbox::new().root(Root::host().mount(Bind::new(&dir,"/mnt").unmapped()));
    let n = 600;
    let path = format!("{dir}/true");
    let mut t = vec![vec![]; 9];
    for _ in 0..n {
        let s = Instant::now(); std::process::Command::new(&path).env_clear().status().unwrap(); t[0].push(s.elapsed());
        for (i,(sb,p)) in [(&nonet,"/bin/true"),(&all,"/bin/true"),(&def,"/mnt/true")].into_iter().enumerate() {
            let c = Command::new(p);
            let s = Instant::now(); let pl = sb.plan(&c).unwrap(); t[1+i].push(s.elapsed());
            let s = Instant::now(); let mut ch = pl.spawn().unwrap(); ch.wait().unwrap(); drop(ch); drop(pl); t[4+i].push(s.elapsed());
        }
    }
    for v in &mut t { v.sort(); }
    let m = |i: usize| t[i].get(n/2).map_or(0.0,|d| d.as_secs_f64()*1e6);
    println!("std {:.0}", m(0));
    for i in 0..3 { println!("plan {:.0} launch {:.0} ratio {:.2} (launch alone {:.2})", m(1+i), m(4+i), (m(1+i)+m(4+i))/m(0), m(4+i)/m(0)); }
}
