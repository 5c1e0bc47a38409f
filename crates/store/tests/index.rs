//! The stat index: what is hashed again and what is not.

mod common;

use common::*;
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};
use trainlock_store::{FileState, HashError, Index, Link, place_file, place_tree};
use trainlock_types::{Digest, EntryKind, RelPath};

fn index(place: &Place) -> Index {
    Index::load(&place.path("index"), place.dir.path(), Some(place.store.clone()))
}

/// Gives a file a time of long ago, so that it is not racily clean.
fn age(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + seconds, 123_456_789);
    fs::OpenOptions::new().write(true).open(path).unwrap().into_parts().0.set_modified(time).unwrap();
}

#[test]
fn a_file_is_hashed_once() {
    let place = Place::new();
    let file = place.path("dir/file");
    write(&file, "one");
    age(&file, 0);
    let mut first = index(&place);
    assert_eq!(first.lookup(&file), None);
    let state = FileState { sha256: Digest::of(b"one"), size: 3, kind: EntryKind::File };
    assert_eq!(first.file(&file).unwrap(), Some(state));
    first.save().unwrap();
    // By either name, from the file on disk.
    let second = index(&place);
    assert_eq!(second.lookup(&file), Some(state));
    assert_eq!(second.lookup(Path::new("dir/file")), Some(state));
    // Nothing changed: nothing written.
    let before = inode(&place.path("index"));
    let mut third = index(&place);
    third.file(&file).unwrap();
    third.save().unwrap();
    assert_eq!(inode(&place.path("index")), before);
    // Each kind of change is seen.
    set_mode(&file, 0o755);
    assert_eq!(third.lookup(&file), None);
    assert_eq!(third.file(&file).unwrap().unwrap().kind, EntryKind::Executable);
    fs::write(&file, "two").unwrap();
    age(&file, 0);
    assert_eq!(third.file(&file).unwrap().unwrap().sha256, Digest::of(b"two"));
    fs::remove_file(&file).unwrap();
    assert_eq!(third.file(&file).unwrap(), None);
    assert_eq!(third.file(&place.path("file/inside")).unwrap(), None);
    symlink("elsewhere", &file).unwrap();
    assert_eq!(
        third.file(&file).unwrap(),
        Some(FileState { sha256: Digest::of(b"elsewhere"), size: 9, kind: EntryKind::Symlink })
    );
    assert!(matches!(third.file(&place.path("dir")), Err(HashError::Kind { found: "a folder", .. })));
}

#[test]
fn a_racily_clean_file_is_hashed_again() {
    let place = Place::new();
    let file = place.path("file");
    write(&file, "just now");
    let mut first = index(&place);
    first.file(&file).unwrap();
    assert_eq!(first.lookup(&file), None);
    first.save().unwrap();
    // Hashed once more when its time has passed, it is trusted.
    let recent = SystemTime::now_for_tests() - Duration::from_millis(500);
    let set = |time| fs::OpenOptions::new().write(true).open(&file).unwrap().into_parts().0.set_modified(time).unwrap();
    set(recent);
    let mut second = index(&place);
    let state = second.file(&file).unwrap();
    assert_eq!(second.lookup(&file), state);
    // A file system that keeps whole seconds needs a wider margin.
    let whole = recent.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    set(SystemTime::UNIX_EPOCH + Duration::from_secs(whole));
    second.file(&file).unwrap();
    assert_eq!(second.lookup(&file), None);
}

trait Now {
    fn now_for_tests() -> SystemTime;
}

impl Now for SystemTime {
    #[expect(clippy::disallowed_methods, reason = "compared with a file's time")]
    fn now_for_tests() -> SystemTime {
        SystemTime::now()
    }
}

#[test]
fn a_hard_link_of_the_store_stays_known() {
    let place = Place::new();
    let digest = place.put(b"object");
    let tree = place.put_tree(&[("d/x", "one"), ("y", "two")]);
    let (file, folder) = (place.path("file"), place.path("folder"));
    place_file(&place.store, &digest, false, &file, Link::Hardlink).unwrap();
    place_tree(&place.store, &tree.digest, &folder, Link::Hardlink).unwrap();
    let mut index = index(&place);
    let state = FileState { sha256: digest, size: 6, kind: EntryKind::File };
    index.record(&file, state);
    index.record_tree(&folder, &tree.digest, &tree.listing);
    let of = |text: &str| FileState { sha256: Digest::of(text.as_bytes()), size: 3, kind: EntryKind::File };
    assert_eq!(index.lookup(&file), Some(state));
    assert_eq!(index.lookup(&folder.join("d/x")), Some(of("one")));
    // Another link moves the change time.
    place_file(&place.store, &digest, false, &place.path("other"), Link::Hardlink).unwrap();
    place_tree(&place.store, &tree.digest, &place.path("others"), Link::Hardlink).unwrap();
    index.save().unwrap();
    let mut index = self::index(&place);
    assert_eq!(index.lookup(&file), Some(state));
    assert_eq!(index.lookup(&folder.join("d/x")), Some(of("one")));
    assert_eq!(index.lookup(&folder.join("y")), Some(of("two")));
    assert_eq!(index.folder(&folder, |_| true).unwrap(), tree.listing);
    // Without the store's file it is only a file whose change time has moved.
    fs::remove_file(place.store.object(&digest, None).unwrap().unwrap()).unwrap();
    assert_eq!(index.lookup(&file), None);
    // A write shows, whatever the store says.
    damage(&folder.join("y"), false);
    assert_eq!(index.lookup(&folder.join("y")), None);
    assert_ne!(index.folder(&folder, |_| true).unwrap(), tree.listing);
}

#[test]
fn a_damaged_index_is_no_index() {
    let place = Place::new();
    let file = place.path("file");
    write(&file, "content");
    age(&file, 0);
    let mut first = index(&place);
    first.file(&file).unwrap();
    first.save().unwrap();
    let good = fs::read(place.path("index")).unwrap();
    for cut in [0, 5, good.len() / 2, good.len() - 1] {
        fs::write(place.path("index"), &good[..cut]).unwrap();
        assert_eq!(index(&place).lookup(&file), None);
    }
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(place.path("index"), flipped).unwrap();
    let mut fresh = index(&place);
    assert_eq!(fresh.lookup(&file), None);
    assert_eq!(fresh.file(&file).unwrap().unwrap().sha256, Digest::of(b"content"));
    fresh.save().unwrap();
    assert_eq!(fs::read(place.path("index")).unwrap(), good);
    assert_eq!(names(place.dir.path()), ["file", "index", "store"]);
}

#[test]
fn folders_with_a_filter() {
    let place = Place::new();
    let root = place.path("src");
    for path in ["a.py", "b/c.py", "b/notes.txt", "target/huge", "d/e/f.py"] {
        write(&root.join(path), path);
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("target/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut index = index(&place);
    let keep = |path: &RelPath| path.as_str() != "target" && !path.as_str().ends_with(".txt");
    let listing = index.folder(&root, keep).unwrap();
    assert_eq!(listing.entries().iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["a.py", "b/c.py", "d/e/f.py"]);
    assert!(matches!(index.folder(&root, |_| true), Err(HashError::Kind { found: "a named pipe", .. })));
    symlink("../../outside", root.join("b/link")).unwrap();
    assert!(matches!(index.folder(&root, keep), Err(HashError::Link { .. })));
    fs::remove_file(root.join("b/link")).unwrap();
    symlink("../a.py", root.join("b/link")).unwrap();
    assert_eq!(index.folder(&root, keep).unwrap().count(), 4);
    assert!(matches!(index.folder(&place.path("none"), keep), Err(HashError::Io { .. })));
}

#[test]
fn two_filters_on_one_folder_do_not_make_each_other_forget() {
    let place = Place::new();
    let root = place.path("src");
    for path in ["a.py", "b/c.py", "b/notes.txt", "skipped/d.py"] {
        write(&root.join(path), path);
        age(&root.join(path), 0);
    }
    let mut index = index(&place);
    let known = |index: &Index| {
        ["a.py", "b/c.py", "b/notes.txt", "skipped/d.py"].map(|p| index.lookup(&root.join(p)).is_some())
    };
    index.folder(&root, |_| true).unwrap();
    assert_eq!(known(&index), [true; 4]);
    for end in [".py", ".txt"] {
        index.folder(&root, |p| p.as_str() != "skipped" && (p.as_str() == "b" || p.as_str().ends_with(end))).unwrap();
        assert_eq!(known(&index), [true; 4], "{end}");
    }
    // What is gone is forgotten: the index does not grow for ever.
    index.save().unwrap();
    let size = || fs::metadata(place.path("index")).unwrap().len();
    let before = size();
    fs::remove_file(root.join("b/notes.txt")).unwrap();
    fs::remove_dir_all(root.join("skipped")).unwrap();
    index.folder(&root, |_| true).unwrap();
    index.save().unwrap();
    assert!(size() < before - 100);
}

#[test]
fn many_files_at_once_in_their_order() {
    let place = Place::new();
    let paths: Vec<_> = (0..1300).map(|i| place.path(&format!("f/{}/{i}", i % 5))).collect();
    for (i, path) in paths.iter().enumerate().filter(|(i, _)| i % 10 != 0) {
        write(path, &"x".repeat(i));
        age(path, i as u64);
    }
    fs::write(&paths[7], vec![9; 9 << 20]).unwrap();
    let mut index = index(&place);
    for round in 0..2 {
        let states = index.files(&paths).unwrap();
        for (i, state) in states.iter().enumerate() {
            let expected = if i == 7 { Digest::of(&vec![9; 9 << 20]) } else { Digest::of("x".repeat(i).as_bytes()) };
            assert_eq!(state.map(|s| s.sha256), (i % 10 != 0).then_some(expected), "{i} in round {round}");
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u8, u8),
    Remove(u8),
    Program(u8),
    Link(u8, u8),
    SaveAndLoad,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..6u8, any::<u8>()).prop_map(|(f, c)| Change::Write(f, c)),
        1 => (0..6u8).prop_map(Change::Remove),
        1 => (0..6u8).prop_map(Change::Program),
        1 => (0..6u8, 0..6u8).prop_map(|(f, t)| Change::Link(f, t)),
        2 => Just(Change::SaveAndLoad),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However files change, however quickly: the index says what hashing everything would say. All sizes are the same,
    /// and most changes fall into one tick of the kernel's clock.
    #[test]
    fn the_index_never_lies(changes in prop::collection::vec(change(), 1..25)) {
        let place = Place::new();
        let root = place.path("p");
        fs::create_dir(&root).unwrap();
        let mut cached = index(&place);
        let name = |f: u8| format!("{}/{f}", f % 2);
        for change in changes {
            match change {
                Change::Write(f, c) => write(&root.join(name(f)), &format!("{c:03}")),
                Change::Remove(f) => { let _ = fs::remove_file(root.join(name(f))); }
                Change::Program(f) => if root.join(name(f)).exists() { set_mode(&root.join(name(f)), 0o755) },
                Change::Link(f, t) => if root.join(name(f)).exists() && name(f) != name(t) {
                    let _ = fs::remove_file(root.join(name(t)));
                    fs::create_dir_all(root.join(name(t)).parent().unwrap()).unwrap();
                    fs::hard_link(root.join(name(f)), root.join(name(t))).unwrap();
                },
                Change::SaveAndLoad => {
                    cached.save().unwrap();
                    cached = index(&place);
                }
            }
            let truth = Index::load(&place.path("none"), place.dir.path(), None).folder(&root, |_| true).unwrap();
            prop_assert_eq!(&cached.folder(&root, |_| true).unwrap(), &truth);
            let by_path: BTreeMap<_, _> = truth.entries().iter().map(|e| (e.path.to_string(), e.sha256)).collect();
            let paths: Vec<_> = (0..6).map(|f| root.join(name(f))).collect();
            for (f, state) in cached.files(&paths).unwrap().into_iter().enumerate() {
                prop_assert_eq!(state.map(|s| s.sha256), by_path.get(&name(f as u8)).copied());
            }
        }
    }
}
