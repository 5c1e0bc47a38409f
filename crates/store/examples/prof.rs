//! x
use std::path::Path;
use std::time::Instant;
use trainlock_store::Index;
fn main() {
    let root = std::env::args().nth(1).unwrap();
    let f = Path::new("/tmp/store-prof-index");
    for r in 0..6 {
        if r < 3 {
            let _ = std::fs::remove_file(f);
        }
        let t = Instant::now();
        let mut i = Index::load(f, Path::new(&root), None);
        i.lookup(Path::new(&root).join("x").as_path());
        let a = t.elapsed();
        let l = i.folder(Path::new(""), |_| true).unwrap();
        let b = t.elapsed();
        i.save().unwrap();
        let c = t.elapsed();
        let d = l.digest();
        let e = t.elapsed();
        drop(i);
        drop(l);
        let g = t.elapsed();
        println!("load {a:?} folder {:?} save {:?} digest {:?} drop {:?} {d}", b - a, c - b, e - c, g - e);
    }
}
