//! Bringing objects and trees out of the store, and finding what was done to them there.

mod common;

use common::*;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use std::io::Write as _;
use trainlock_store::{Link, Placed, Store, StoreError, place_file, place_fresh, place_tree};
use trainlock_types::{Digest, Hasher};

const LINKS: [Link; 4] = [Link::Auto, Link::Hardlink, Link::Copy, Link::Reflink];

/// Whether this file system has reflinks (then `auto` uses them).
fn reflinks(place: &Place) -> bool {
    let digest = place.put(b"probe");
    match place_file(&place.store, &digest, false, &place.path("probe"), Link::Reflink) {
        Ok(placed) => placed == Placed::Reflink,
        Err(StoreError::Link { link: "reflink", .. }) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_placed_in_every_way() {
    let place = Place::new();
    let reflinks = reflinks(&place);
    assert_eq!(names(place.dir.path()), if reflinks { vec!["probe", "store"] } else { vec!["store"] });
    // Large enough to be worth a reflink, and to be copied by the kernel.
    let content = vec![b'x'; (1 << 20) + 5];
    let digest = place.put(&content);
    let object = place.store.object(&digest, None).unwrap().unwrap();
    for (i, link) in LINKS.into_iter().enumerate() {
        let dest = place.path(&format!("out/{i}/file"));
        let placed = match place_file(&place.store, &digest, false, &dest, link) {
            Err(StoreError::Link { link: "reflink", source, .. }) if link == Link::Reflink && !reflinks => {
                assert!(source.raw_os_error().is_some());
                continue;
            }
            other => other.unwrap(),
        };
        let expected = match link {
            Link::Auto | Link::Reflink if reflinks => Placed::Reflink,
            Link::Copy => Placed::Copy,
            _ => Placed::Hardlink,
        };
        assert_eq!(placed, expected);
        assert_eq!(fs::read(&dest).unwrap(), content);
        assert_eq!((mode(&dest), mtime(&dest)), (0o444, FIXED));
        assert_eq!(inode(&dest) == inode(&object), placed == Placed::Hardlink);
        assert_eq!(names(dest.parent().unwrap()), ["file"]);
        if placed != Placed::Hardlink {
            // It may share blocks with the store's file, but nothing that is written to it.
            fs::set_permissions(&dest, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            fs::write(&dest, "other").unwrap();
            assert_eq!(fs::read(&object).unwrap(), content);
        }
    }
    // A small one is the project's own as well, by whichever of the two is quicker.
    let small = place.put(b"small");
    let placed = place_file(&place.store, &small, false, &place.path("small"), Link::Auto).unwrap();
    assert_eq!(placed == Placed::Hardlink, !reflinks, "{placed:?}");
}

/// Another process does not know that it is there, and where there are no reflinks both are the store's file.
#[test]
fn what_is_in_its_place_is_placed_again() {
    let place = Place::new();
    let digest = place.put(b"content");
    let tree = place.put_tree(&[("a", "content"), ("b", "other")]);
    for link in [Link::Auto, Link::Hardlink] {
        for _ in 0..2 {
            let store = Store::open(place.store.root()).unwrap();
            place_file(&store, &digest, false, &place.path("out/file"), link).unwrap();
            place_tree(&store, &tree.digest, &place.path("out/tree"), link).unwrap();
            assert_eq!(names(&place.path("out")), ["file", "tree"], "{link:?}");
            assert_eq!(names(&place.path("out/tree")), ["a", "b"], "{link:?}");
        }
    }
}

#[test]
fn a_program_is_a_file_of_its_own() {
    let place = Place::new();
    let digest = place.put(b"#!/bin/sh");
    let (plain, program) = (place.path("plain"), place.path("program"));
    for link in [Link::Hardlink, Link::Copy, Link::Auto] {
        place_file(&place.store, &digest, true, &program, link).unwrap();
        place_file(&place.store, &digest, false, &plain, link).unwrap();
        assert_eq!((mode(&plain), mode(&program)), (0o444, 0o555));
        assert_eq!(fs::read(&program).unwrap(), b"#!/bin/sh");
    }
    assert!(place.sessions().is_empty() && place.is_clean());
    let missing = Digest::of(b"missing");
    assert!(
        matches!(place_file(&place.store, &missing, true, &program, Link::Auto), Err(StoreError::Missing(d)) if d == missing)
    );
    assert_eq!(fs::read(&program).unwrap(), b"#!/bin/sh");
}

#[test]
fn what_is_in_the_way_is_replaced() {
    for link in [Link::Hardlink, Link::Copy] {
        let place = Place::new();
        let digest = place.put(b"new");
        let tree = place.put_tree(&[("a/b", "new"), ("c", "")]);
        let dest = place.path("dest");
        let obstacles: [&dyn Fn(); 4] = [
            &|| write(&dest, "old"),
            &|| write(&dest.join("folder/with"), "files"),
            &|| symlink("nowhere", &dest).unwrap(),
            &|| {
                place_tree(&place.store, &tree.digest, &dest, link).unwrap();
            },
        ];
        for obstacle in obstacles {
            obstacle();
            place_file(&place.store, &digest, false, &dest, link).unwrap();
            // Once more, over itself.
            place_file(&place.store, &digest, false, &dest, link).unwrap();
            assert_eq!(fs::read(&dest).unwrap(), b"new");
            fs::remove_file(&dest).unwrap();
            obstacle();
            place_tree(&place.store, &tree.digest, &dest, link).unwrap();
            place_tree(&place.store, &tree.digest, &dest, link).unwrap();
            assert_eq!(fs::read(dest.join("a/b")).unwrap(), b"new");
            assert_eq!(names(&dest), ["a", "c"]);
            fs::remove_dir_all(&dest).unwrap();
        }
        assert_eq!(names(place.dir.path()), ["store"]);
        assert!(place.is_clean());
    }
}

#[test]
fn a_tree_is_placed_in_every_way() {
    let place = Place::new();
    let reflinks = reflinks(&place);
    let session = place.session();
    let mut builder = session.tree().unwrap();
    for i in 0..900 {
        builder.add_file(&rel(&format!("d{}/e/f{i}", i % 3)), i % 2 == 0, &mut format!("{i}").as_bytes()).unwrap();
    }
    builder.add_symlink(&rel("d0/link"), "../d1/e/f1").unwrap();
    let tree = builder.finish(None).unwrap();
    session.finish(true).unwrap();
    for (i, link) in LINKS.into_iter().enumerate() {
        let dest = place.path(&format!("deep/down/{i}"));
        if let Err(error) = place_tree(&place.store, &tree.digest, &dest, link) {
            assert!(link == Link::Reflink && !reflinks, "{error:?}");
            assert!(!dest.exists());
            continue;
        }
        for entry in tree.listing.entries() {
            let path = entry.path.on(&dest);
            if entry.path.as_str() == "d0/link" {
                assert_eq!(fs::read_link(&path).unwrap().to_str(), Some("../d1/e/f1"));
            } else {
                assert_eq!(Digest::of(&fs::read(&path).unwrap()), entry.sha256);
                assert_eq!(
                    (mode(&path) == 0o555, mtime(&path)),
                    (entry.kind == trainlock_types::EntryKind::Executable, FIXED)
                );
            }
        }
        assert_eq!((mode(&dest.join("d2/e")), mtime(&dest.join("d2/e")), mtime(&dest)), (0o755, FIXED, FIXED));
    }
    assert!(names(&place.path("deep/down")).iter().all(|n| !n.starts_with('.')));
    let empty = place.put_tree(&[]);
    place_tree(&place.store, &empty.digest, &place.path("empty"), Link::Auto).unwrap();
    assert!(names(&place.path("empty")).is_empty() && place.path("empty").is_dir());
}

#[test]
fn a_write_through_a_hard_link_is_found() {
    let place = Place::new();
    let digest = place.put(b"input");
    let tree = place.put_tree(&[("x", "one"), ("d/y", "two")]);
    let (file, folder) = (place.path("file"), place.path("folder"));
    place_file(&place.store, &digest, false, &file, Link::Hardlink).unwrap();
    place_tree(&place.store, &tree.digest, &folder, Link::Hardlink).unwrap();
    assert!(place.store.touched(&digest).unwrap().is_empty());
    assert!(place.store.touched(&tree.digest).unwrap().is_empty());
    // Only the mode: no write, and set right again.
    set_mode(&file, 0o644);
    set_mode(&folder.join("x"), 0o644);
    assert!(place.store.touched(&digest).unwrap().is_empty());
    assert!(place.store.touched(&tree.digest).unwrap().is_empty());
    assert_eq!((mode(&file), mode(&folder.join("x"))), (0o444, 0o444));
    // The content: found, and removed.
    damage(&file, false);
    damage(&folder.join("d/y"), false);
    assert_eq!(place.store.touched(&digest).unwrap().len(), 1);
    assert_eq!(place.store.touched(&tree.digest).unwrap(), [place.store.tree(&tree.digest).unwrap().join("d/y")]);
    assert!(!place.store.distrust(&digest).unwrap());
    assert!(!place.store.distrust(&tree.digest).unwrap());
    assert!(place.store.object(&digest, None).unwrap().is_none() && !place.store.has_tree(&tree.digest));
    // What was placed is the project's, and stays.
    assert!(file.exists() && folder.join("d/y").exists());
    assert!(place.is_clean());
}

#[test]
fn what_is_damaged_is_never_placed() {
    let place = Place::new();
    let digest = place.put(b"input");
    let tree = place.put_tree(&[("x", "one"), ("d/y", "two")]);
    write(&place.path("folder/old"), "stays");
    damage(&place.store.object(&digest, None).unwrap().unwrap(), false);
    damage(&place.store.tree(&tree.digest).unwrap().join("x"), false);
    let file = place_file(&place.store, &digest, false, &place.path("file"), Link::Auto);
    assert!(matches!(file, Err(StoreError::Damaged { .. })), "{file:?}");
    let folder = place_tree(&place.store, &tree.digest, &place.path("folder"), Link::Auto);
    assert!(matches!(folder, Err(StoreError::Damaged { .. })), "{folder:?}");
    assert_eq!(names(place.dir.path()), ["folder", "store"]);
    assert_eq!(names(&place.path("folder")), ["old"]);
    // A file that is missing, and a tree whose listing is lost.
    let tree = place.put_tree(&[("x", "three"), ("d/y", "four")]);
    fs::remove_file(place.store.object(&tree.digest, None).unwrap().unwrap()).unwrap();
    place_tree(&place.store, &tree.digest, &place.path("folder"), Link::Auto).unwrap();
    assert_eq!(names(&place.path("folder")), ["d", "x"]);
    fs::remove_file(place.store.tree(&tree.digest).unwrap().join("x")).unwrap();
    let folder = place_tree(&place.store, &tree.digest, &place.path("folder"), Link::Copy);
    assert!(matches!(folder, Err(StoreError::Damaged { .. })), "{folder:?}");
    assert_eq!(names(&place.path("folder")), ["d", "x"]);
}

/// Where there are reflinks, they would wait for the disk.
#[test]
fn what_was_put_a_moment_ago_is_placed_at_once() {
    let place = Place::new();
    let (small, large) = (vec![b'x'; 100_000], vec![b'y'; 1 << 20]);
    let [of_small, of_large] = [&small, &large].map(|content| place.put(content));
    let reflinks = reflinks(&place);
    let quick = if reflinks && !cfg!(target_os = "linux") { Placed::Reflink } else { Placed::Hardlink };
    let slow = if reflinks { Placed::Reflink } else { Placed::Hardlink };
    let file = place.path("file");
    // Each takes the place of the one before it, and the second of each that of itself.
    for (content, digest, is) in [(&small, &of_small, quick), (&large, &of_large, slow)] {
        for _ in 0..2 {
            assert_eq!(place_fresh(&place.store, digest, content.len() as u64, &file, Link::Auto).unwrap(), is);
            assert_eq!(fs::read(&file).unwrap(), *content);
            assert_eq!((mtime(&file), mode(&file)), (FIXED, 0o444));
        }
        // What is there by now stays as it is.
        let again = place_file(&place.store, digest, false, &file, Link::Auto);
        assert_eq!(again.unwrap(), is);
        assert_eq!(place_fresh(&place.store, digest, content.len() as u64, &file, Link::Copy).unwrap(), Placed::Copy);
        assert_eq!(fs::read(&file).unwrap(), *content);
        assert!(place.store.touched(digest).unwrap().is_empty() && place.is_clean());
    }
    let failed = place_fresh(&place.store, &Digest::of(b"none"), 4, &place.path("none"), Link::Auto);
    assert!(matches!(failed, Err(StoreError::Missing(_))), "{failed:?}");
    assert!(!place.path("none").exists());
}

/// A reflink waits until the store's file is on the disk: where there are any, a large one is on its way before its end.
#[test]
fn the_disk_begins_while_a_large_file_comes() {
    let place = Place::new();
    let reflinks = reflinks(&place);
    let session = place.session();
    let thread = || {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
        // One may end meanwhile.
        tasks
            .filter_map(|task| fs::read(task.unwrap().path().join("comm")).ok())
            .any(|name| name == b"trainlock-flush\n")
    };
    let part: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let put = |parts: u8| {
        let mut writer = session.writer().unwrap();
        writer.reserve(u64::from(parts) << 20).unwrap();
        let mut hasher = Hasher::new();
        let mut begun = false;
        for i in 0..parts {
            let part: Vec<u8> = part.iter().map(|b| b ^ i).collect();
            hasher.update(&part);
            writer.write_all(&part).unwrap();
            begun |= thread();
        }
        let sha256 = hasher.finish();
        writer.finish(Some((sha256, Some(u64::from(parts) << 20)))).unwrap();
        let file = place.path("file");
        place_file(&place.store, &sha256, false, &file, Link::Auto).unwrap();
        assert_eq!(Digest::of(&fs::read(&file).unwrap()), sha256);
        begun
    };
    assert!(!put(70), "nobody said that it will be placed");
    session.links_soon();
    assert!(!put(40), "a small one");
    assert_eq!(put(80), reflinks);
    assert!(place.is_clean());
}

#[test]
fn leftovers_of_killed_processes_go() {
    let place = Place::new();
    let digest = place.put(b"x");
    write(&place.path("out/.trainlock-tmp.y.0000000000000000/inner"), "half");
    place_file(&place.store, &digest, false, &place.path("out/x"), Link::Copy).unwrap();
    assert_eq!(names(&place.path("out")), ["x"]);
}

#[test]
fn what_others_make_is_left_to_them() {
    let place = Place::new();
    let digest = place.put(&[7; 100_000]);
    let tree = place.put_tree(&[("a/b", "one"), ("c", "two")]);
    let makers = |link: Link| {
        let (place, tree) = (&place, &tree);
        std::thread::scope(|scope| {
            for maker in 0..4 {
                scope.spawn(move || {
                    for turn in 0..100 {
                        // Another process's: it looks for leftovers as often as it places something.
                        let store = Store::open(place.store.root()).unwrap();
                        let name = |kind: &str| place.path(&format!("out/{kind}{maker}{}", turn % 2));
                        // What stands there is another file, so that a link is made beside it first.
                        fs_err::remove_file(name("file")).ok();
                        write(&name("file"), "in the way");
                        place_file(&store, &digest, false, &name("file"), link).unwrap();
                        place_tree(&store, &tree.digest, &name("tree"), link).unwrap();
                    }
                });
            }
        });
        let left = names(&place.path("out"));
        assert_eq!(left.len(), 16, "{left:?}");
    };
    for link in [Link::Copy, Link::Hardlink, Link::Auto] {
        makers(link);
    }
}

#[test]
fn words_of_the_configuration() {
    for (word, link) in
        [("auto", Link::Auto), ("reflink", Link::Reflink), ("hardlink", Link::Hardlink), ("copy", Link::Copy)]
    {
        assert_eq!(word.parse(), Ok(link));
    }
    assert!("symlink".parse::<Link>().unwrap_err().to_string().contains("symlink"));
}
