//! Trees: taken, unpacked, made from objects, and what is refused.

mod common;

use common::*;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use trainlock_store::{HashError, Link, PutError, StoreError, place_tree};
use trainlock_types::{Digest, Entry, EntryKind, Listing};

#[test]
fn a_folder_is_taken_and_normalised() {
    let place = Place::new();
    let session = place.session();
    let work = session.work_dir("step").unwrap();
    write(&work.join("out/model.bin"), "weights");
    write(&work.join("out/bin/run"), "#!/bin/sh");
    write(&work.join("out/odd name ä"), "");
    fs::create_dir_all(work.join("out/empty/empty/empty")).unwrap();
    fs::hard_link(work.join("out/model.bin"), work.join("elsewhere")).unwrap();
    symlink("../model.bin", work.join("out/bin/model")).unwrap();
    symlink("nowhere", work.join("out/dangling")).unwrap();
    set_mode(&work.join("out/bin/run"), 0o4711);
    set_mode(&work.join("out/model.bin"), 0o200);
    set_mode(&work.join("out/bin"), 0o500);
    set_mode(&work.join("out/empty"), 0o100);
    let tree = session.take_tree(&work.join("out")).unwrap();
    let lines: Vec<_> = tree.listing.entries().iter().map(|e| (e.path.to_string(), e.kind, e.size)).collect();
    assert_eq!(
        lines,
        [
            ("bin/model".to_owned(), EntryKind::Symlink, 12),
            ("bin/run".to_owned(), EntryKind::Executable, 9),
            ("dangling".to_owned(), EntryKind::Symlink, 7),
            ("model.bin".to_owned(), EntryKind::File, 7),
            ("odd name ä".to_owned(), EntryKind::File, 0),
        ]
    );
    assert_eq!((tree.digest, tree.size, tree.count), (tree.listing.digest(), 35, 5));
    assert!(!work.join("out").exists());
    let at = place.store.tree(&tree.digest).unwrap();
    assert_eq!(names(&at), ["bin", "dangling", "model.bin", "odd name ä"]);
    assert_eq!((mode(&at.join("bin/run")), mode(&at.join("model.bin"))), (0o555, 0o444));
    for path in ["", "bin", "bin/run", "bin/model", "model.bin"] {
        assert_eq!(mtime(&at.join(path)), FIXED, "{path}");
    }
    // What has another name is not shared with it.
    fs::write(work.join("elsewhere"), "overwritten").unwrap();
    assert_eq!(fs::read_to_string(at.join("model.bin")).unwrap(), "weights");
    assert_eq!(place.store.listing(&tree.digest).unwrap(), Some(tree.listing));
    session.finish(true).unwrap();
    assert!(place.is_clean());
}

#[test]
fn parts_of_trees_are_put_together() {
    let place = Place::new();
    let session = place.session();
    let take = |files: &[(&str, &str)]| {
        let work = session.work_dir("part").unwrap();
        files.iter().for_each(|(path, text)| write(&work.join(path), text));
        session.take_tree(&work).unwrap()
    };
    let one = take(&[("lib/a/x.py", "x"), ("lib/a/y.py", "y"), ("bin/a", "#!")]);
    let two = take(&[("lib/b/z.py", "z")]);
    let part = Listing::new(one.listing.entries()[1..].to_vec()).unwrap();
    let both = session.tree_from_trees(&[(one.digest, part.clone()), (two.digest, two.listing.clone())]).unwrap();
    let at = place.store.tree(&both.digest).unwrap();
    assert_eq!((names(&at), names(&at.join("lib"))), (vec!["lib".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(both.digest, take(&[("lib/a/x.py", "x"), ("lib/a/y.py", "y"), ("lib/b/z.py", "z")]).digest);
    let from = place.store.tree(&one.digest).unwrap();
    assert_eq!(inode(&at.join("lib/a/x.py")), inode(&from.join("lib/a/x.py")));
    for path in ["", "lib", "lib/a", "lib/b/z.py"] {
        assert_eq!(mtime(&at.join(path)), FIXED, "{path}");
    }
    let twice = session.tree_from_trees(&[(one.digest, part.clone()), (one.digest, part)]);
    assert!(matches!(twice, Err(PutError::Twice(_))), "{twice:?}");
    // A file and a folder of one name, and a tree that is not there.
    let file = take(&[("lib/b", "no folder")]);
    let clash = session.tree_from_trees(&[(two.digest, two.listing.clone()), (file.digest, file.listing)]);
    assert!(matches!(clash, Err(PutError::Twice(_) | PutError::Collision(..))), "{clash:?}");
    let only = Listing::new(one.listing.entries()[..1].to_vec()).unwrap();
    let missing = session.tree_from_trees(&[(Digest::of(b"none"), only)]);
    assert!(matches!(missing, Err(PutError::Store(StoreError::Missing(_)))), "{missing:?}");
    session.finish(true).unwrap();
    assert!(place.is_clean());
}

#[test]
fn what_no_tree_can_hold_is_refused() {
    let place = Place::new();
    let session = place.session();
    let case = |name: &str, make: &dyn Fn(&Path)| {
        let work = session.work_dir("step").unwrap();
        write(&work.join("sub/file"), "x");
        make(&work);
        let error = session.take_tree(&work).unwrap_err();
        assert!(work.join("sub/file").exists(), "{name}");
        match error {
            PutError::Hash(error) => error,
            other => panic!("{name}: {other:?}"),
        }
    };
    let link = |target: &'static str| move |dir: &Path| symlink(target, dir.join("sub/link")).unwrap();
    for target in ["/etc/passwd", "../../x", "../..", "a/../b", "./../sub/../../x"] {
        let error = case(target, &link(target));
        assert!(
            matches!(&error, HashError::Link { path, target: t } if path.ends_with("sub/link") && t == target),
            "{error:?}"
        );
    }
    let socket = case("socket", &|dir| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("s"), rustix::fs::FileType::Socket, mode, 0).unwrap();
    });
    assert!(matches!(socket, HashError::Kind { found: "a socket", .. }), "{socket:?}");
    let control = case("control", &|dir| fs::write(dir.join("a\nb"), "").unwrap());
    assert!(matches!(control, HashError::Name { source: Some(_), .. }), "{control:?}");
    let latin = case("latin", &|dir| {
        fs::write(dir.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9")), "").unwrap();
    });
    assert!(matches!(latin, HashError::Name { source: None, .. }), "{latin:?}");
    assert_eq!(place.store.size().unwrap().trees, 0);
}

#[test]
fn unpacked_files_stay_in_the_tree() {
    let place = Place::new();
    let session = place.session();
    let mut tree = session.tree().unwrap();
    tree.add_file(&rel("a/b/file"), false, &mut &b"one"[..]).unwrap();
    tree.add_file(&rel("a/tool"), true, &mut &b"two"[..]).unwrap();
    tree.add_symlink(&rel("a/b/up"), "../tool").unwrap();
    for target in ["/etc", "../../../x", "b/../../../x", ""] {
        assert!(
            matches!(tree.add_symlink(&rel("a/b/bad"), target), Err(PutError::Hash(HashError::Link { .. }))),
            "{target}"
        );
    }
    let twice =
        |result: Result<(Digest, u64), PutError>| assert!(matches!(result, Err(PutError::Twice(_))), "{result:?}");
    twice(tree.add_file(&rel("a/b/file"), false, &mut &b"again"[..]));
    twice(tree.add_file(&rel("a/b"), false, &mut &b"a folder"[..]));
    // Neither through a file nor through a link.
    twice(tree.add_file(&rel("a/tool/x"), false, &mut &b""[..]));
    tree.add_symlink(&rel("way"), "a").unwrap();
    twice(tree.add_file(&rel("way/x"), false, &mut &b""[..]));
    twice(tree.add_file(&rel("way"), false, &mut &b""[..]));
    let tree = tree.finish(None).unwrap();
    assert_eq!(
        tree.listing.entries().iter().map(|e| e.path.as_str()).collect::<Vec<_>>(),
        ["a/b/file", "a/b/up", "a/tool", "way"]
    );
    let at = place.store.tree(&tree.digest).unwrap();
    assert_eq!(names(&at.join("a")), ["b", "tool"]);
    assert_eq!((mode(&at.join("a/tool")), mode(&at.join("a/b/file")), mtime(&at.join("a/b"))), (0o555, 0o444, FIXED));
    session.finish(true).unwrap();
    assert!(place.is_clean() && place.sessions().is_empty());
}

#[test]
fn another_tree_than_expected_is_not_kept() {
    let place = Place::new();
    let session = place.session();
    let build = || {
        let mut tree = session.tree().unwrap();
        tree.add_file(&rel("x"), false, &mut &b"x"[..]).unwrap();
        tree
    };
    assert!(matches!(build().finish(Some(Digest::of(b"other"))), Err(PutError::Tree { .. })));
    assert_eq!(place.store.size().unwrap().trees, 0);
    let digest = build().finish(None).unwrap().digest;
    let before = inode(&place.store.tree(&digest).unwrap());
    build().finish(Some(digest)).unwrap();
    assert_eq!(inode(&place.store.tree(&digest).unwrap()), before);
    // A reader that fails: its error, and nothing in place.
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("cut off"))
        }
    }
    let mut tree = session.tree().unwrap();
    assert!(matches!(tree.add_file(&rel("x"), false, &mut Broken), Err(PutError::Read(_))));
}

#[test]
fn names_that_collide_elsewhere_are_refused() {
    let place = Place::new();
    let session = place.session();
    for (a, b) in [("README", "readme"), ("Dir/x", "dir/y"), ("caf\u{e9}", "cafe\u{301}"), ("a/ß", "a/SS")] {
        let mut tree = session.tree().unwrap();
        for path in [a, b] {
            tree.add_file(&rel(path), false, &mut path.as_bytes()).unwrap();
        }
        assert!(matches!(tree.finish(None), Err(PutError::Collision(..))), "{a} {b}");
    }
    let mut tree = session.tree().unwrap();
    for path in ["Dir/x", "Dir/y", "dirs", "a", "ä"] {
        tree.add_file(&rel(path), false, &mut path.as_bytes()).unwrap();
    }
    tree.finish(None).unwrap();
}

#[test]
fn a_tree_of_objects() {
    let place = Place::new();
    let session = place.session();
    let mut entries = Vec::new();
    for i in 0..700 {
        let content = format!("content {}", i % 650);
        let kind = if i % 3 == 0 { EntryKind::Executable } else { EntryKind::File };
        let sha256 = session.put_bytes(content.as_bytes()).unwrap();
        entries.push(Entry { path: rel(&format!("d{}/f{i}", i % 7)), sha256, size: content.len() as u64, kind });
    }
    entries.push(Entry {
        path: rel("link"),
        sha256: session.put_bytes(b"d0/f0").unwrap(),
        size: 5,
        kind: EntryKind::Symlink,
    });
    let listing = Listing::new(entries.clone()).unwrap();
    let tree = session.tree_from_objects(&listing).unwrap();
    assert_eq!(tree.digest, listing.digest());
    let at = place.store.tree(&tree.digest).unwrap();
    assert_eq!(fs::read_to_string(at.join("link")).unwrap(), "content 0");
    let object = place.store.object(&Digest::of(b"content 1"), None).unwrap().unwrap();
    assert_eq!(inode(&at.join("d1/f1")), inode(&object));
    let missing = Digest::of(b"missing");
    entries.push(Entry { path: rel("more"), sha256: missing, size: 7, kind: EntryKind::File });
    match session.tree_from_objects(&Listing::new(entries).unwrap()) {
        Err(PutError::Store(StoreError::Missing(digest))) => assert_eq!(digest, missing),
        other => panic!("{other:?}"),
    }
    session.finish(true).unwrap();
    assert!(place.is_clean());
}

#[test]
fn a_system_keeps_its_empty_folders() {
    let place = Place::new();
    let session = place.session();
    let file =
        Entry { path: rel("var/log/x"), sha256: session.put_bytes(b"x").unwrap(), size: 1, kind: EntryKind::File };
    let plain = Listing::new(vec![file]).unwrap();
    let listing = plain.clone().with_empty_folders(["run/lock", "var/tmp", "mnt"].map(rel).to_vec()).unwrap();
    let (without, tree) =
        (session.system_from_objects(&plain).unwrap(), session.system_from_objects(&listing).unwrap());
    assert_eq!(tree.digest, listing.digest());
    assert_ne!(tree.digest, without.digest);
    let at = place.store.tree(&tree.digest).unwrap();
    assert_eq!(
        (names(&at), names(&at.join("var"))),
        (vec!["mnt".to_owned(), "run".to_owned(), "var".to_owned()], vec!["log".to_owned(), "tmp".to_owned()])
    );
    for path in ["", "mnt", "run", "run/lock", "var/tmp"] {
        assert_eq!(mtime(&at.join(path)), FIXED, "{path}");
    }
    session.finish(true).unwrap();
    assert_eq!(place.store.listing(&tree.digest).unwrap(), Some(listing.clone()));
    // Placed elsewhere they are there too.
    let dest = place.dir.path().join("placed");
    place_tree(&place.store, &tree.digest, &dest, Link::Auto).unwrap();
    assert!(dest.join("run/lock").is_dir() && dest.join("var/log/x").is_file());
    // The listing comes back of the tree alone; a folder more or less is another tree.
    let verify = || place.store.verify(|_| {}).unwrap().damaged;
    assert!(verify().is_empty());
    let object = place.store.object(&tree.digest, None).unwrap().unwrap();
    fs::remove_file(object).unwrap();
    assert!(verify().is_empty());
    assert_eq!(place.store.listing(&tree.digest).unwrap(), Some(listing.clone()));
    fs::remove_dir(at.join("run/lock")).unwrap();
    assert_eq!(verify(), [at.join("run"), at.join("run/lock")]);
    let session = place.session();
    session.system_from_objects(&listing).unwrap();
    session.finish(true).unwrap();
    fs::create_dir(at.join("mnt/more")).unwrap();
    assert_eq!(verify().len(), 2);
    // To one without any, too.
    let other = place.store.tree(&without.digest).unwrap();
    fs::create_dir(other.join("empty")).unwrap();
    assert_eq!(verify(), [other.join("empty")]);
    assert!(!place.store.has_tree(&tree.digest) && !place.store.has_tree(&without.digest));
    assert!(place.is_clean());
}

#[test]
fn big_files_and_crowded_folders() {
    let place = Place::new();
    let session = place.session();
    let work = session.work_dir("w").unwrap();
    let big = vec![7; (9 << 20) + 13];
    fs::write(work.join("big"), &big).unwrap();
    for i in 0..1500 {
        write(&work.join(format!("crowd/{i}")), &i.to_string());
    }
    let tree = session.take_tree(&work).unwrap();
    assert_eq!(tree.count, 1501);
    assert_eq!(tree.listing.entries()[0].sha256, Digest::of(&big));
    for entry in &tree.listing.entries()[1..] {
        assert_eq!(entry.sha256, Digest::of(entry.path.file_name().as_bytes()));
    }
    session.finish(true).unwrap();
    assert!(place.is_clean());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// However a tree comes into the store, it has the same digest and the same files.
    #[test]
    fn taking_and_unpacking_agree(files in prop::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}", (any::<bool>(), "[ -~]{0,20}"), 0..8)) {
        // A file that is also a folder can't be made.
        let files: BTreeMap<_, _> = files.iter().filter(|(a, _)| !files.keys().any(|b| b.starts_with(&format!("{a}/")))).collect();
        let place = Place::new();
        let session = place.session();
        let work = session.work_dir("w").unwrap();
        let mut builder = session.tree().unwrap();
        let mut entries = Vec::new();
        for (path, (exec, content)) in files.iter().rev() {
            write(&work.join(path), content);
            set_mode(&work.join(path), if *exec { 0o700 } else { 0o600 });
            builder.add_file(&rel(path), *exec, &mut content.as_bytes()).unwrap();
            let kind = if *exec { EntryKind::Executable } else { EntryKind::File };
            entries.push(Entry { path: rel(path), sha256: session.put_bytes(content.as_bytes()).unwrap(), size: content.len() as u64, kind });
        }
        let unpacked = builder.finish(None).unwrap();
        let taken = session.take_tree(&work).unwrap();
        let made = session.tree_from_objects(&Listing::new(entries).unwrap()).unwrap();
        prop_assert_eq!(&taken, &unpacked);
        prop_assert_eq!(&taken, &made);
        session.finish(true).unwrap();
        prop_assert!(place.is_clean());
    }
}
