//! Counting, verifying and collecting.

mod common;

use common::*;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use trainlock_store::{Checked, Freed, Link, Live, Usage, place_file};
use trainlock_types::Digest;

#[test]
fn everything_is_counted() {
    let place = Place::new();
    assert_eq!(place.store.size().unwrap(), Usage::default());
    place.put(b"12345");
    let tree = place.put_tree(&[("a", "123"), ("b/c", "4567")]);
    let session = place.session();
    session.put_result(&Digest::of(b"k"), b"r").unwrap();
    session.finish(true).unwrap();
    let listing = tree.listing.to_text().len() as u64;
    let usage = place.store.size().unwrap();
    let result = usage.result_bytes;
    assert_eq!(
        usage,
        Usage { objects: 2, object_bytes: 5 + listing, trees: 1, tree_bytes: 7, results: 1, result_bytes: result }
    );
    assert!(result > 1);
}

#[test]
fn verify_names_and_removes_what_is_damaged() {
    let place = Place::new();
    let good = place.put(b"good");
    let bad = place.put(b"bad");
    let program = place.put(b"program");
    place_file(&place.store, &program, true, &place.path("program"), Link::Copy).unwrap();
    let trees: Vec<_> = (0..5).map(|i| place.put_tree(&[("d/x", &format!("{i}")), ("y", "same")])).collect();
    let session = place.session();
    session.put_result(&good, b"r1").unwrap();
    session.put_result(&bad, b"r2").unwrap();
    session.finish(true).unwrap();
    let clean = place.store.verify(|_| {}).unwrap();
    assert_eq!((clean.objects, clean.trees, clean.results, clean.damaged.len()), (9, 5, 2, 0));

    let at = |i: usize| place.store.tree(&trees[i].digest).unwrap();
    let objects = place.store.root().join("objects");
    let object = |d: &Digest, x: &str| objects.join(&d.to_hex()[..2]).join(format!("{}{x}", &d.to_hex()[2..]));
    damage(&object(&bad, ""), true);
    damage(&object(&program, ".x"), true);
    damage(&at(0).join("d/x"), true);
    write(&at(1).join("d/extra"), "");
    fs::create_dir(at(2).join("empty")).unwrap();
    fs::remove_file(at(3).join("y")).unwrap();
    symlink("/etc", at(3).join("y")).unwrap();
    // Only touched: not damaged.
    set_mode(&at(4).join("y"), 0o600);
    fs::write(at(4).join("y"), "same").unwrap();
    set_mode(&object(&good, ""), 0o666);
    let result = place.store.root().join("results").join(&bad.to_hex()[..2]).join(&bad.to_hex()[2..]);
    fs::write(&result, "short").unwrap();

    let mut expected = vec![
        object(&bad, ""),
        object(&program, ".x"),
        at(0).join("d/x"),
        at(1).join("d/extra"),
        at(2).join("empty"),
        at(3).join("y"),
        result,
    ];
    expected.sort();
    let mut told = Vec::new();
    let mut bytes = 0;
    let report = place
        .store
        .verify(|checked| match checked {
            Checked::Damaged(path) => told.push(path),
            Checked::Bytes(n) => bytes += n,
        })
        .unwrap();
    told.sort();
    assert_eq!((&report.damaged, &told), (&expected, &expected));
    assert_eq!(report.bytes, bytes);
    assert!((0..4).all(|i| !place.store.has_tree(&trees[i].digest)) && place.store.has_tree(&trees[4].digest));
    assert_eq!((mode(&at(4).join("y")), mtime(&at(4).join("y"))), (0o444, FIXED));
    assert_eq!(mode(&object(&good, "")), 0o444);
    assert!(place.store.object(&program, None).unwrap().is_some());
    let again = place.store.verify(|_| {}).unwrap();
    assert!(again.damaged.is_empty() && place.sessions().is_empty());
    // A tree whose listing is lost gives it back.
    fs::remove_file(object(&trees[4].digest, "")).unwrap();
    assert!(place.is_clean());
    assert_eq!(place.store.listing(&trees[4].digest).unwrap().as_ref(), Some(&trees[4].listing));
}

#[test]
fn gc_keeps_what_is_live() {
    let place = Place::new();
    let (kept, gone) = (place.put(b"kept"), place.put(b"gone!"));
    let linked = place.put(b"linked");
    place_file(&place.store, &linked, false, &place.path("linked"), Link::Hardlink).unwrap();
    let live_tree = place.put_tree(&[("a", "live")]);
    let dead_tree = place.put_tree(&[("a", "dead"), ("b/c", "dead too")]);
    // As a plain user finds it after someone was careful.
    set_mode(&place.store.tree(&dead_tree.digest).unwrap().join("b"), 0o555);
    set_mode(&place.store.tree(&dead_tree.digest).unwrap(), 0o555);
    let session = place.session();
    session.put_result(&kept, b"kept").unwrap();
    session.put_result(&gone, b"gone").unwrap();
    session.finish(false).unwrap();
    let live = Live { objects: BTreeSet::from([kept, live_tree.digest]), results: BTreeSet::from([kept]) };
    let before = place.store.size().unwrap();
    let dry = place.store.gc(&live, true, || panic!("a dry run waits for nobody")).unwrap();
    assert_eq!(place.store.size().unwrap(), before);
    let freed = place.store.gc(&live, false, || panic!("nobody is there")).unwrap();
    assert_eq!(freed, dry);
    let listing = dead_tree.listing.to_text().len() as u64;
    let result = freed.bytes - 5 - listing - 12;
    assert!((84..100).contains(&result), "{freed:?}");
    assert_eq!(freed, Freed { objects: 3, trees: 1, results: 1, failed: 0, bytes: freed.bytes });
    assert!(place.store.object(&kept, None).unwrap().is_some() && place.store.object(&gone, None).unwrap().is_none());
    assert!(place.store.has_tree(&live_tree.digest) && !place.store.has_tree(&dead_tree.digest));
    assert_eq!(place.store.listing(&live_tree.digest).unwrap(), Some(live_tree.listing));
    assert!(place.store.result(&kept).unwrap().is_some() && place.store.result(&gone).unwrap().is_none());
    assert_eq!(fs::read(place.path("linked")).unwrap(), b"linked");
    assert!(place.is_clean() && place.sessions().is_empty());
    assert_eq!(place.store.gc(&live, false, || {}).unwrap(), Freed::default());
}

#[test]
fn gc_waits_for_sessions_and_sessions_for_gc() {
    let place = Place::new();
    let session = place.session();
    let digest = session.put_bytes(b"being used").unwrap();
    let (waits, waiting) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| place.store.gc(&Live::default(), false, || waits.send(()).unwrap()).unwrap());
        waiting.recv().unwrap();
        // Whatever it is waiting for is still there.
        assert!(place.store.object(&digest, None).unwrap().is_some());
        session.finish(true).unwrap();
        assert_eq!(collector.join().unwrap().objects, 1);
    });
    assert!(place.store.object(&digest, None).unwrap().is_none());
}

#[test]
fn projects_are_remembered() {
    let place = Place::new();
    assert!(place.store.projects().unwrap().is_empty());
    let odd = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/home/caf\xe9"));
    for path in [Path::new("/b"), Path::new("/a"), &odd, Path::new("/a")] {
        place.store.remember_project(path).unwrap();
    }
    write(&place.store.root().join("projects/half-written.tmp"), "/c");
    assert_eq!(place.store.projects().unwrap(), [Path::new("/a"), Path::new("/b"), &odd]);
    place.store.forget_project(Path::new("/b")).unwrap();
    place.store.forget_project(Path::new("/none")).unwrap();
    assert_eq!(place.store.projects().unwrap(), [Path::new("/a"), &odd]);
}
