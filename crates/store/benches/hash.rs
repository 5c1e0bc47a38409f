//! How near hashing, the index and materialising come to their limits: `cargo bench -p trainlock-store`.
//!
//! Each figure is the median of a few runs, beside as many runs of the limit, on generated data that lies in the page
//! cache. `-- W2 W6` picks workloads; `-- --small` is a tenth of the size; `-- /folder` is where the data is made.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use fs_err as fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use trainlock_store::{Index, Link, Store, hash_file, place_file, place_tree};
use trainlock_types::{Hasher, RelPath};

const RUNS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let small = args.iter().any(|a| a == "--small");
    let chosen = |id: &str| !args.iter().any(|a| a.starts_with('W')) || args.iter().any(|a| a == id);
    let scale = if small { 10 } else { 1 };
    let root = args.iter().find(|a| a.starts_with('/'));
    let root = root.map_or(env!("CARGO_TARGET_TMPDIR"), String::as_str);
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in(root)?;
    if chosen("W1") {
        one_big_file(dir.path(), 4096 / scale)?;
    }
    if chosen("W2") {
        many_files(dir.path(), 100_000 / scale)?;
    }
    if chosen("W9") {
        unpack(dir.path(), 20_000 / scale)?;
    }
    if chosen("W6") {
        restore(dir.path(), 20_000 / scale, 2048 / scale)?;
    }
    Ok(())
}

/// Median seconds of the limit and of ours, run by turns; prints both and the ratio.
fn compare(what: &str, mut limit: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) {
    let (mut limits, mut times) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        limits.push(limit());
        times.push(ours());
    }
    limits.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    let (limit, ours) = (limits[RUNS / 2], times[RUNS / 2]);
    println!("{what}: {ours:.4} s, limit {limit:.4} s, {:.2}x", ours / limit);
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed().as_secs_f64()
}

fn one_big_file(dir: &Path, mebibytes: usize) -> std::io::Result<()> {
    let path = dir.join("big");
    let data: Vec<u8> = (0..16 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = fs::File::create(&path)?;
    for _ in 0..mebibytes / 16 {
        file.write_all(&data)?;
    }
    let memory = || {
        let mut hasher = Hasher::new();
        for _ in 0..mebibytes / 16 {
            hasher.update(&data);
        }
        hasher.finish()
    };
    compare(
        &format!("W1 hash a file of {mebibytes} MiB (SHA-256 from memory)"),
        || timed(memory),
        || timed(|| hash_file(&path).expect("it is there")),
    );
    fs::remove_file(&path)
}

fn make_files(dir: &Path, count: usize) -> std::io::Result<()> {
    for i in 0..count {
        let folder = dir.join(format!("{}", i / 100));
        if i % 100 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let line = format!("{i:08}");
        fs::write(folder.join(format!("file-{i}.bin")), line.repeat(512))?;
    }
    Ok(())
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("it is there") {
        let entry = entry.expect("it is there");
        let path = entry.path();
        if entry.file_type().expect("it is known").is_dir() {
            walk(&path, found);
        } else {
            fs::symlink_metadata(&path).expect("it is there");
            found.push(path);
        }
    }
}

fn many_files(dir: &Path, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let root = dir.join("many");
    make_files(&root, count)?;
    let read_all = || {
        let mut paths = Vec::new();
        walk(&root, &mut paths);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut buffer = vec![0; 1 << 20];
                    while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut file = fs::File::open(path).expect("it is there");
                        while file.read(&mut buffer).expect("it can be read") > 0 {}
                    }
                });
            }
        });
    };
    let index = dir.join("index");
    let ours = |fresh: bool| {
        if fresh {
            let _ = fs::remove_file(&index);
        }
        timed(|| {
            let mut index = Index::load(&index, &root, None);
            let listing = index.folder(Path::new(""), |_: &RelPath| true).expect("it can be hashed");
            assert_eq!(listing.count(), count as u64);
            index.save().expect("it can be saved");
            listing.digest()
        })
    };
    compare(&format!("W2a hash {count} files (walk and read)"), || timed(read_all), || ours(true));
    // What was hashed so soon after it was made is hashed once more.
    std::thread::sleep(std::time::Duration::from_millis(50));
    ours(true);
    let look = || {
        let mut paths = Vec::new();
        walk(&root, &mut paths);
        paths.len()
    };
    compare(&format!("W2b {count} files, unchanged (walk and lstat)"), || timed(look), || ours(false));
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// The store's part of unpacking an archive: folders, files and hashes of contents that are in memory.
fn unpack(dir: &Path, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(&dir.join("store"))?;
    let session = store.session()?;
    let paths: Vec<RelPath> =
        (0..count).map(|i| RelPath::parse(&format!("{}/file-{i}.bin", i / 100))).collect::<Result<_, _>>()?;
    let content = |i: usize| format!("{i:08}").repeat(512);
    let mut n = 0;
    let mut limits = 0;
    compare(
        &format!("W9 unpack {count} files (create and write)"),
        || {
            limits += 1;
            let root = dir.join(format!("limit-{limits}"));
            timed(|| make_files(&root, count).expect("it can be written"))
        },
        || {
            n += 1;
            timed(|| {
                let mut tree = session.tree().expect("it can be made");
                for (i, path) in paths.iter().enumerate() {
                    tree.add_file(path, false, &mut content(i + n).as_bytes()).expect("it can be written");
                }
                tree.finish(None).expect("it can be put")
            })
        },
    );
    Ok(())
}

fn restore(dir: &Path, count: usize, mebibytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(&dir.join("store"))?;
    let session = store.session()?;
    let work = session.work_dir("bench")?;
    make_files(&work, count)?;
    let mut tree = None;
    println!("take a tree of {count} files: {:.4} s", timed(|| tree = session.take_tree(&work).ok()));
    let tree = tree.ok_or("the tree was not taken")?;
    let mut writer = session.writer()?;
    for i in 0..mebibytes {
        writer.write_all(&vec![i as u8; 1 << 20])?;
    }
    let (big, _) = writer.finish(None)?;
    session.finish(true)?;
    let source = store.tree(&tree.digest).ok_or("the tree is missing")?;
    let out = dir.join("out");
    fs::create_dir(&out)?;
    let mut n = 0;
    let mut fresh = || {
        n += 1;
        out.join(format!("{n}"))
    };
    for (link, flags) in [(Link::Hardlink, "-al"), (Link::Auto, "-al"), (Link::Copy, "-r")] {
        let (cp, ours) = (fresh(), fresh());
        let mut flip = (0, 0);
        compare(
            &format!("W6 restore {count} files, {link:?} (cp {flags})"),
            || {
                flip.0 += 1;
                let to = cp.with_extension(flip.0.to_string());
                timed(|| {
                    assert!(
                        Command::new("cp")
                            .args([flags, "--reflink=never"])
                            .arg(&source)
                            .arg(to)
                            .status()
                            .is_ok_and(|s| s.success())
                    )
                })
            },
            || {
                flip.1 += 1;
                let to = ours.with_extension(flip.1.to_string());
                timed(|| place_tree(&store, &tree.digest, &to, link).expect("it can be placed"))
            },
        );
    }
    let times: Vec<f64> = (0..RUNS)
        .map(|_| fresh())
        .map(|to| timed(|| place_file(&store, &big, false, &to, Link::Auto).expect("it can be placed")))
        .collect();
    println!("W6 place a file of {mebibytes} MiB: at most {:.6} s", times.iter().copied().fold(0.0, f64::max));
    Ok(())
}
